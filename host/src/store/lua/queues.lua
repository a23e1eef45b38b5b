-- Queues in numbers.
--
-- KEYS     head.lua
-- ARGV     head.lua, nothing else
-- Returns  for each queue: ready (priorities included), scheduled, inflight, done, dlq, cancelled, counters and settings
--          (name and value of each), and since when the job at its head could run (nanoseconds, exact to 256; the
--          longest of `ready` and the priorities; empty when none waits); a structure of the wrong type counts as empty

local function number(value)
  return type(value) == 'number' and value or 0
end
-- The later of its making and its time; of the lists the earliest.
local function earlier(since, list)
  local id = try('LRANGE', list, 0, 0)[1]
  if not id then
    return since
  end
  local row = try('HMGET', JOB .. id, 'created_at_nano', 'run_at_nano')
  local at_nano = math.max(tonumber(row[1] or '') or 0, tonumber(row[2] or '') or 0)
  return at_nano > 0 and (not since or at_nano < since) and at_nano or since
end
local answers = {}
for n, q in ipairs(queues) do
  local counters, set = try('HGETALL', q.counters), try('HGETALL', q.settings)
  local ready, since = number(try('LLEN', q.ready)), earlier(nil, q.ready)
  for priority in string.gmatch(settings(q).priorities or '', '%d') do
    local list = prio_list(q, priority)
    ready, since = ready + number(try('LLEN', list)), earlier(since, list)
  end
  answers[n] = {
    ready, number(try('ZCARD', q.scheduled)), number(try('ZCARD', q.inflight)),
    number(try('LLEN', q.done)), number(try('LLEN', q.dlq)), number(try('LLEN', q.cancelled)),
    counters.err and {} or counters, set.err and {} or set,
    since and fmt('%.0f', since) or '',
  }
end
return answers
