-- Moves the end of leases.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: lease in milliseconds, number of leases, and for each: index of the queue, id, token
-- Returns  for each lease the answer of fence.lua: 0 extended, 2 not in flight, 3 expired, 4 another holder, or a text

local expires_ms = now_ms + take_number()
local score = whole(expires_ms)
local expires = score .. '000000'
local answers = {}
for n = 1, take_number() do
  local q, id, token = queues[take_number()], take(), take()
  local answer = trouble(q) or fence(q, JOB .. id, id, token, false)
  if not answer then
    answer = 0
    q.held, q.leases = q.held or {}, q.leases or {}
    q.held[#q.held + 1] = id
    q.leases[#q.leases + 1], q.leases[#q.leases + 2] = score, id
  elseif answer == REPEATED then
    -- It has ended; there is nothing to extend.
    answer = NOT_INFLIGHT
  end
  answers[n] = answer
end
for _, q in ipairs(queues) do
  if q.leases then
    -- Freed first: a full Redis refuses a script whose first write takes memory, and running jobs would lose their lease.
    call('ZREM', q.inflight, unpack(q.held))
    for _, id in ipairs(q.held) do
      call('HSET', JOB .. id, 'lease_expires_at_nano', expires)
    end
    call('ZADD', q.inflight, unpack(q.leases))
  end
end
return answers
