-- Removes code that no name means and no row may name any more.
--
-- KEYS     head.lua (without queues), then: 8 records by id, 9 code by digest
-- ARGV     head.lua, nothing else
-- Returns  the digests that were removed

local WASM = KEYS[9]
local REMOVED_MAX = 100
local reason = broken_keys(WASM, 'hash')
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end
local used = {}
for _, route in ipairs(call('HVALS', ROUTE)) do
  used[sub(route, 1, 64)] = true
end
for _, record in ipairs(call('HVALS', NAMES)) do
  local digest = match(record, '"digest"%s*:%s*"(%x+)"')
  if digest then
    used[digest] = true
  end
end
local removed = {}
for _, digest in ipairs(call('HKEYS', WASM)) do
  if #removed == REMOVED_MAX then
    break
  end
  if not used[digest] then
    local seconds = tonumber(call('HGET', KEEP, digest) or '')
    if not seconds then
      -- Another program stored it and may be about to write the record.
      keep(digest, tonumber(now_s))
    elseif seconds < tonumber(now_s) then
      call('HDEL', WASM, digest)
      call('HDEL', KEEP, digest)
      removed[#removed + 1] = digest
    end
  end
end
write_keeps()
return removed
