-- Writes one dead job as another Redis had it. Its days in the DLQ begin anew: else the next sweep could drop it.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, id, number of fields, name and value of each
-- Returns  1 written, 0 there is a job of this id (nothing was written), or a text why it cannot be

-- Fields of one HSET.
local FIELDS_MAX = 200

local q, who, id, n_fields = queues[1], take(), take(), take_number()
local reason = trouble(q)
if reason then
  return reason
elseif call('EXISTS', JOB .. id) == 1 then
  return 0
elseif call('LLEN', q.dlq) >= DLQ_MAX then
  return 'the DLQ of queue `' .. q.name .. '` is full: it has ' .. DLQ_MAX .. ' jobs, and a further one would drop the oldest'
end
local pin
for n = 1, n_fields, FIELDS_MAX do
  local values = {}
  for m = n, math.min(n + FIELDS_MAX - 1, n_fields) do
    local name, value = take(), take()
    values[#values + 1], values[#values + 2] = name, value
    pin = name == 'pin' and value or pin
  end
  call('HSET', JOB .. id, unpack(values))
end
call('HSET', JOB .. id, 'status', 'dlq', 'queue', q.name, 'lease_token', '', 'lease_expires_at_nano', '0',
  'run_at_nano', '0', 'dlq_failed_at_nano', now_nano)
call('RPUSH', q.dlq, id)
try('SADD', QUEUES, q.name)
keep(pin, tonumber(now_s) + DLQ_DAYS * 86400)
write_keeps()
note(who, 'imported', 'queue ' .. q.name, 1, sub(id, 1, NAME_MAX))
return 1
