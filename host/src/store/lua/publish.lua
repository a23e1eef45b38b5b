-- Publishes a jumpscript: code, record, routes and revision in one step.
--
-- KEYS     head.lua (without queues), then past.lua
-- ARGV     head.lua, then: field of the name, name, digest, code, record without `id` and `published_at` (JSON, from the
--          first field on), version, 1 to publish only what is absent or newer else 0, who, act, line of the history
--          (past.lua), signature or empty, number of words, the words
-- Returns  one of  new  id rev digest replaced-digest-or-empty
--                  same id rev digest            the same record is live already
--                  kept id rev live-digest       the live version is not lower
--                  claimed word owner            a word belongs to another jumpscript

-- JumpScale gives ids below this to what its controller publishes.
local FIRST_ID = 1000000
local HOUR = 3600
-- What is longer is no record of ours, and replaced unread.
local RECORD_BYTES_MAX = 262144

local field, name, digest, wasm, record, version, is_careful = take(), take(), take(), take(), take(), take(), take() == '1'
local who, act, line, signature = take(), take(), take(), take()
local words = take_words()

local reason = broken_past()
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end

-- Notes that wasmhost itself published the code under this name: the node's tables for the name count for it. Whether it
-- was news. Of very many names for one code not all are kept.
local NAMES_BYTES_MAX = 2000
local function vouch()
  local names = call('HGET', PUBLISHED, digest) or ''
  if find(' ' .. names .. ' ', ' ' .. name .. ' ', 1, true) or #names > NAMES_BYTES_MAX then
    return false
  end
  call('HSET', PUBLISHED, digest, names == '' and name or names .. ' ' .. name)
  return true
end

local function is_higher(one, other)
  local a, b = { match(one, '^(%d+)%.?(%d*)%.?(%d*)$') }, { match(other, '^(%d+)%.?(%d*)%.?(%d*)$') }
  for n = 1, 3 do
    local x, y = tonumber(a[n]) or 0, tonumber(b[n]) or 0
    if x ~= y then
      return x > y
    end
  end
  return false
end

-- What is live under the name: only a record of ours whose code is there counts.
local live_text = call('HSTRLEN', NAMES, field) <= RECORD_BYTES_MAX and call('HGET', NAMES, field)
local is_json, live = pcall(cjson.decode, live_text or '')
if not is_json or type(live) ~= 'table' then
  live = {}
end
local live_id = tonumber(live.id)
local live_digest = type(live.digest) == 'string' and call('HEXISTS', WASM, live.digest) == 1 and live.digest or nil
if live_digest then
  local route = call('HGET', ROUTE, name)
  local is_routed = route and sub(route, 1, 64) == live_digest
  if sub(live_text, -#record) == record and is_routed then
    return { 'same', live_id or 0, vouch() and next_revision() or revision(), live_digest }
  elseif is_careful and is_routed and not is_higher(version, tostring(live.version or '')) then
    return { 'kept', live_id or 0, revision(), live_digest }
  end
end
local word, owner = claimed(words, name)
if word then
  return { 'claimed', word, owner }
end

-- The code first: if the memory is full, this is what is refused, and nothing has been written.
call('HSET', WASM, digest, wasm)
if not live_id then
  live_id = math.max(tonumber(call('GET', LAST_ID) or 0) or 0, FIRST_ID) + 1
  call('SET', LAST_ID, whole(live_id))
end
local text = '{"id":' .. whole(live_id) .. ',"published_at":' .. now_s .. ',' .. record
call('HSET', IDS, whole(live_id), text)
call('HSET', NAMES, field, text)
vouch()
set_routes(words, name, digest)
set_signature(field, digest, signature)
remember(field, digest, line)
note(who, act, name, nil, sub(digest, 1, 12) .. (version ~= '' and ' version ' .. version or ''))
keep(digest, tonumber(now_s) + HOUR)
if live_digest ~= digest then
  keep(live_digest, tonumber(now_s) + HOUR)
end
write_keeps()
return { 'new', whole(live_id), next_revision(), digest, live_digest ~= digest and live_digest or '' }
