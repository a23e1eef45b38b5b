-- Lets a record that another program wrote (or removed) take effect: sets or clears its routes.
--
-- KEYS     head.lua (without queues), then past.lua
-- ARGV     head.lua, then: field of the name, name, the record as it was read (empty when it is gone), digest, who, act,
--          line of the history (past.lua), signature or empty, number of words (0 clears), the words
-- Returns  one of  set  rev         the routes are as the record says now
--                  changed          the record is another by now: look again
--                  missing          its code is not there
--                  claimed word owner

local field, name, seen, digest = take(), take(), take(), take()
local who, act, line, signature = take(), take(), take(), take()
local words = take_words()
local reason = broken_past()
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end
if call('HSTRLEN', NAMES, field) ~= #seen or (call('HGET', NAMES, field) or '') ~= seen then
  return { 'changed' }
end
if #words > 0 and call('HEXISTS', WASM, digest) == 0 then
  return { 'missing' }
end
local word, owner = claimed(words, name)
if word then
  return { 'claimed', word, owner }
end
set_routes(words, name, digest)
if digest ~= '' then
  set_signature(field, digest, signature)
end
remember(field, digest ~= '' and digest, line)
note(who, act, name, nil, sub(digest, 1, 12))
keep(digest, tonumber(now_s) + 3600)
write_keeps()
return { 'set', next_revision() }
