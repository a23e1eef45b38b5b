-- Bounded housekeeping: brings back what is due, drops dead rows over their cap, and says what has changed.
-- Queues after the budget is used up are left for the next call, which the answer asks for.
--
-- A host that names itself is also told which lists it is to watch with a blocking peek, so that one push wakes one host
-- of the fleet: the watch of a queue is a short lease in `watchers`, taken and renewed here.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: who asks (one word, empty for nobody), 1 when it has room for jobs else 0
-- Returns  now in milliseconds, revision, check of the jumpscript records, next due in milliseconds or empty,
--          reclaimed, promoted, dropped, 1 when more is due, set aside (4 entries each), broken queues (index and reason),
--          indexes of the queues it watches, indexes of the queues that have ready jobs

local BUDGET = 500
-- Above this the records are told apart by their number only; a change by another program is then seen by its own
-- publish of `workers:jumpscripts:rev`.
local RECORDS_MAX = 500
-- A longer record is told by its length only; no host takes it.
local RECORD_BYTES_MAX = 262144

local due = part('due')
local swept = due.swept
local session, has_room = take(), take() == '1'

-- After FLUSHALL the prefix is marked again. It is the first write: a server that has become a replica is found out
-- here, where nothing is written yet. Most other writes of a sweep would pass over its refusal.
local marked = try('HSETNX', PREFIX .. ':meta', 'layout', LAYOUT)
if type(marked) == 'table' and marked.err and find(marked.err, '^READONLY') then
  return redis.error_reply(marked.err)
end

local broken, next_ms = {}, nil
for _, q in ipairs(queues) do
  local reason = trouble(q)
  if reason then
    broken[#broken + 1], broken[#broken + 2] = q.index, reason
  elseif swept.reclaimed + swept.promoted + #asides / 4 >= BUDGET then
    swept.is_more = 1
  else
    due.reclaim(q)
    due.promote(q)
    part('limits').mend(q)
    due.prune(q)
  end
end
write_ends()
for _, q in ipairs(queues) do
  if not q.trouble then
    local next_due = due.next_due(q)
    if next_due and (not next_ms or next_due < next_ms) then
      next_ms = next_due
    end
  end
end
-- A queue that nobody has enqueued into through us is known from here on.
for _, q in ipairs(queues) do
  try('SADD', QUEUES, q.name)
end
local check = try('HLEN', NAMES)
if type(check) == 'number' and check > 0 and check <= RECORDS_MAX then
  local fields, short = call('HKEYS', NAMES), {}
  for n, field in ipairs(fields) do
    local length = call('HSTRLEN', NAMES, field)
    if length <= RECORD_BYTES_MAX then
      short[#short + 1] = field
    else
      fields[n] = field .. ' ' .. whole(length)
    end
  end
  local records = #short > 0 and call('HMGET', NAMES, unpack(short)) or {}
  check = redis.sha1hex(table.concat(fields, '\n') .. table.concat(records, '\n'))
elseif type(check) == 'table' then
  check = 'broken'
end

local watch = part('watch')
local watched, waiting = {}, {}
for _, q in ipairs(queues) do
  if not q.trouble then
    if session ~= '' and watch(q.name, session, has_room) then
      watched[#watched + 1] = q.index
    end
    if has_ready(q) then
      waiting[#waiting + 1] = q.index
    end
  end
end
return { whole(now_ms), revision(), tostring(check), next_ms and whole(math.ceil(next_ms)) or '', swept.reclaimed,
  swept.promoted, swept.dropped, swept.is_more, asides, broken, watched, waiting }
