-- Replaces the report of the whole grid, unless somebody else has written meanwhile.
--
-- KEYS     1 healthcheck:monitoring
-- ARGV     results as read, errors as read (empty: absent), results, errors (both `{}`: the fields
--          are removed), age of the check in ms
-- Returns  1 written, 0 it has changed since it was read, or has become another type

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return 0
end
local found = redis.call('HMGET', KEYS[1], 'results', 'errors')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '{}' and ARGV[4] == '{}' then
  redis.call('HDEL', KEYS[1], 'results', 'errors', 'lastcheck')
  return 1
end
local clock = redis.call('TIME')
local checked_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) - tonumber(ARGV[5])
local checked = string.format('%d.%03d', math.floor(checked_ms / 1000), checked_ms % 1000)
redis.call('HSET', KEYS[1], 'results', ARGV[3], 'errors', ARGV[4], 'lastcheck', checked)
return 1
