-- Some keys of a bucket (effects.lua), without their values.
--
-- KEYS     head.lua, then the bucket
-- ARGV     head.lua, then: the cursor to go on at, 0 to begin; about how many
-- Returns  what changes when a key is added or removed, or nil; the next cursor, 0 at the end; the keys
--          or an error when the key is not a hash

local bucket, cursor, some = KEYS[KEYS_FIXED + 1], take(), take()
local page = call('HSCAN', bucket, cursor, 'COUNT', some)
local keys = {}
for n = 1, #page[2], 2 do
  if page[2][n] ~= '' then
    keys[#keys + 1] = page[2][n]
  end
end
return { call('HGET', bucket, ''), page[1], keys }
