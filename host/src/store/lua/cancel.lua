-- Cancels a job. One that runs is told to stop; whatever its worker writes later is refused, for its token is gone.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, id, reason
-- Returns  1 and the state it was in: cancelled; 0 no such job; -1 and the state: it has ended already;
--          -2 and the name: it belongs to another queue; or a text when a key is of the wrong type

local q, who, id, reason = queues[1], take(), take(), take()
local found = try('HMGET', JOB .. id, 'status', 'queue', 'run_at_nano', 'limit_key', 'priority')
if found.err then
  return { 'key `' .. JOB .. id .. '` is not a hash' }
elseif not found[1] then
  return { 0 }
elseif found[2] and found[2] ~= q.name then
  return { -2, found[2] }
end
local status = found[1]
if status ~= 'scheduled' and status ~= 'ready' and status ~= 'inflight' then
  return { -1, status }
end
local broken = trouble(q)
if broken then
  return { broken }
end
part('withdraw')(q, id, status, { run_at_nano = found[3], limit_key = found[4], priority = found[5] }, reason)
write_ends()
note(who, 'cancelled', 'job ' .. sub(id, 1, NAME_MAX), nil, sub(reason, 1, NAME_MAX))
if status == 'inflight' then
  call('PUBLISH', WAKE, 'cancel ' .. id)
end
return { 1, status }
