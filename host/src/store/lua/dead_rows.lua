-- Writes dead jobs straight into the DLQ of a queue, without its cap, as another program may: for measuring only.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: number of the first, how many (at most 1,000), type
-- Returns  how many the DLQ has now

local q, first, n, job_type = queues[1], take_number(), take_number(), take()
local ids = {}
for i = 1, n do
  ids[i] = q.name .. '-' .. whole(first + i - 1)
  call('HSET', JOB .. ids[i], 'type', job_type, 'queue', q.name, 'payload', 'null', 'status', 'dlq',
    'created_at_nano', now_nano, 'attempts', '5', 'last_error', 'no luck', 'error_kind', 'failed',
    'failed_at_nano', now_nano, 'finished_at_nano', now_nano, 'dlq_reason', 'no luck', 'dlq_failed_at_nano', now_nano)
end
try('SADD', QUEUES, q.name)
return call('RPUSH', q.dlq, unpack(ids))
