-- Changes what is set for a queue, and says what is set now.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, act, number of fields, name and value of each; an empty value unsets
-- Returns  name and value of each field that is set

local q, who, act = queues[1], take(), take()
local found = kind(q.settings)
if found ~= 'none' and found ~= 'hash' then
  return redis.error_reply('REFUSED key `' .. q.settings .. '` is a ' .. found .. ', must be a hash')
end
local n_changes, changes = take_number(), {}
for _ = 1, n_changes do
  local name, value = take(), take()
  changes[#changes + 1] = name .. '=' .. (value == '' and 'none' or value)
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
  note(who, act, 'queue ' .. q.name, nil, act == 'queue-set' and table.concat(changes, ' ') or '')
end
return call('HGETALL', q.settings)
