-- Queues in numbers.
--
-- KEYS     head.lua
-- ARGV     head.lua, nothing else
-- Returns  for each queue: ready (priorities included), scheduled, inflight, done, dlq, cancelled, counters and settings
--          (name and value of each); a structure of the wrong type counts as empty

local function number(value)
  return type(value) == 'number' and value or 0
end
local answers = {}
for n, q in ipairs(queues) do
  local counters, set = try('HGETALL', q.counters), try('HGETALL', q.settings)
  local ready = number(try('LLEN', q.ready))
  for priority in string.gmatch(settings(q).priorities or '', '%d') do
    ready = ready + number(try('LLEN', prio_list(q, priority)))
  end
  answers[n] = {
    ready, number(try('ZCARD', q.scheduled)), number(try('ZCARD', q.inflight)),
    number(try('LLEN', q.done)), number(try('LLEN', q.dlq)), number(try('LLEN', q.cancelled)),
    counters.err and {} or counters, set.err and {} or set,
  }
end
return answers
