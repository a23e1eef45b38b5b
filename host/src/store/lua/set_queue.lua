-- Changes what is set for a queue, and says what is set now.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: number of fields, name and value of each; an empty value unsets
-- Returns  name and value of each field that is set

local q = queues[1]
local found = kind(q.settings)
if found ~= 'none' and found ~= 'hash' then
  return redis.error_reply('REFUSED key `' .. q.settings .. '` is a ' .. found .. ', must be a hash')
end
local n_changes = take_number()
for _ = 1, n_changes do
  local name, value = take(), take()
  if value == '' then
    call('HDEL', q.settings, name)
  else
    call('HSET', q.settings, name, value)
  end
end
if n_changes > 0 then
  try('SADD', QUEUES, q.name)
  -- Hosts that hold back look again.
  call('PUBLISH', WAKE, 'push ' .. q.name)
end
return call('HGETALL', q.settings)
