-- Bounded housekeeping: brings back what is due, drops dead rows over their cap, and says what has changed.
-- Queues after the budget is used up are left for the next call, which the answer asks for.
--
-- KEYS     head.lua
-- ARGV     head.lua, nothing else
-- Returns  now in milliseconds, revision, check of the jumpscript records, next due in milliseconds or empty,
--          reclaimed, promoted, dropped, 1 when more is due, set aside (4 entries each), broken queues (index and reason)

local BUDGET = 500
-- Above this the records are told apart by their number only; a change by another program is then seen by its own
-- publish of `workers:jumpscripts:rev`.
local RECORDS_MAX = 500

local broken, next_ms = {}, nil
for _, q in ipairs(queues) do
  local reason = trouble(q)
  if reason then
    broken[#broken + 1], broken[#broken + 2] = q.index, reason
  elseif swept.reclaimed + swept.promoted + #asides / 4 >= BUDGET then
    swept.is_more = 1
  else
    reclaim(q)
    promote(q)
    prune(q)
  end
end
write_ends()
for _, q in ipairs(queues) do
  if not q.trouble then
    local due = next_due(q)
    if due and (not next_ms or due < next_ms) then
      next_ms = due
    end
  end
end
-- After FLUSHALL the prefix is marked again.
try('HSETNX', PREFIX .. ':meta', 'layout', LAYOUT)
-- A queue that nobody has enqueued into through us is known from here on.
for _, q in ipairs(queues) do
  try('SADD', QUEUES, q.name)
end
local check = try('HLEN', NAMES)
if type(check) == 'number' and check > 0 and check <= RECORDS_MAX then
  check = redis.sha1hex(table.concat(call('HGETALL', NAMES), '\n'))
elseif type(check) == 'table' then
  check = 'broken'
end
return { whole(now_ms), revision(), tostring(check), next_ms and whole(math.ceil(next_ms)) or '', swept.reclaimed,
  swept.promoted, swept.dropped, swept.is_more, asides, broken }
