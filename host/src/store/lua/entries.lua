-- Removes entries of `inflight` or `scheduled` whose job is gone or in another state. A lease that has ended and a job
-- that is due find that out by themselves; this is for those that end or are due in a long time.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: inflight or scheduled, number of members, the members
-- Returns  number of removed entries, set aside (4 entries each)

local q, structure = queues[1], take()
local n_removed = 0
if not trouble(q) then
  for _ = 1, take_number() do
    local member = take()
    local id = member
    if structure == 'scheduled' then
      id = match(member, '^%d%d%d%d%d%d%d%d%d:(.+)$') or member
    end
    local status = try('HGET', JOB .. id, 'status')
    local is_fit = status == structure or (structure == 'scheduled' and status == 'ready')
    -- A key that is no hash is told of when its time comes.
    if not is_fit and type(status) ~= 'table' and call('ZREM', q[structure], member) == 1 then
      n_removed = n_removed + 1
      if not status then
        part('dead').set_aside(q, id, (structure == 'inflight' and 'in flight' or 'scheduled') .. ', but there is no record')
      end
    end
  end
end
return { n_removed, asides }
