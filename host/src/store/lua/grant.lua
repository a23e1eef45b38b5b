-- Changes what is granted to code, if it is still what the caller has seen, and tells every host.
--
-- KEYS     head.lua (without queues), then: 8 grants by digest
-- ARGV     head.lua, then: digest, the grant as it was read (empty when there was none), the new one (empty removes it),
--          who, act, what it is called, what is granted in words
-- Returns  set rev, or: changed

local GRANTS = KEYS[8]
local digest, seen, text = take(), take(), take()
local who, act, name, words = take(), take(), take(), take()
local reason = broken_keys(GRANTS, 'hash')
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end
if (call('HGET', GRANTS, digest) or '') ~= seen then
  return { 'changed' }
end
if text == '' then
  call('HDEL', GRANTS, digest)
else
  call('HSET', GRANTS, digest, text)
end
note(who, act, name, nil, sub(digest, 1, 12) .. ' ' .. words)
return { 'set', next_revision() }
