-- Puts lost jobs back: rows that say they wait, run or are dead, and stand in no structure.
--
-- The caller has looked at every structure twice, some time apart. Here it is made sure, in one moment: the row has not
-- changed since then, and its id is not where it belongs. Long lists are looked at from both ends, where what moved
-- meanwhile stands; a reserve sets an id aside that stands twice.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: number of jobs, and for each: index of its queue, id, marks
-- Returns  for each job: 0 not lost, 1 in flight again until its lease ends, 2 ready again, 3 scheduled again, 4 in the DLQ

local END_MAX = 10000
local LEASE_MAX_MS = 3600000

local function is_in(list, id)
  return call('LPOS', list, id, 'MAXLEN', END_MAX) or call('LPOS', list, id, 'RANK', -1, 'MAXLEN', END_MAX)
end

local function put_back(q, id, row)
  local status = row.status
  if status == 'inflight' then
    if call('ZSCORE', q.inflight, id) then
      return 0
    end
    local ends = tonumber(sub(row.lease_expires_at_nano, 1, -7)) or now_ms
    call('ZADD', q.inflight, whole(math.min(ends, now_ms + LEASE_MAX_MS)), id)
    return 1
  elseif status == 'dlq' then
    if is_in(q.dlq, id) then
      return 0
    end
    call('RPUSH', q.dlq, id)
    return 4
  elseif status == 'scheduled' then
    local seconds, nanos = match(row.run_at_nano, '^(%d+)(%d%d%d%d%d%d%d%d%d)$')
    if call('ZSCORE', q.scheduled, id) or (nanos and call('ZSCORE', q.scheduled, nanos .. ':' .. id)) then
      return 0
    elseif nanos then
      to_schedule(q, id, seconds, nanos)
      return 3
    end
  end
  local found = call('HMGET', JOB .. id, 'priority', 'limit_key')
  if is_in(q.ready, id) or is_priority(found[1]) and is_in(prio_list(q, found[1]), id)
    or found[2] and is_in(part('limits').parked_list(q, found[2]), id) then
    return 0
  end
  call('HSET', JOB .. id, 'status', 'ready', 'run_at_nano', '0')
  to_tail(q, id, found[1])
  return 2
end

local answers = {}
for n = 1, take_number() do
  local q, id, mark = queues[take_number()], take(), take()
  local row, is = marks(id)
  answers[n] = row and is == mark and not trouble(q) and put_back(q, id, row) or 0
end
write_ends()
return answers
