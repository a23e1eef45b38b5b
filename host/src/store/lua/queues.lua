-- Queues in numbers.
--
-- KEYS     head.lua
-- ARGV     head.lua, nothing else
-- Returns  for each queue: ready, scheduled, inflight, done, dlq, counters (name and value of each); a structure of the
--          wrong type counts as empty

local function number(value)
  return type(value) == 'number' and value or 0
end
local answers = {}
for n, q in ipairs(queues) do
  local counters = try('HGETALL', q.counters)
  answers[n] = {
    number(try('LLEN', q.ready)), number(try('ZCARD', q.scheduled)), number(try('ZCARD', q.inflight)),
    number(try('LLEN', q.done)), number(try('LLEN', q.dlq)), counters.err and {} or counters,
  }
end
return answers
