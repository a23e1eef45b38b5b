-- Takes messages of another system over from the head of its list, in one moment: the entry leaves the list, and the
-- job is in a queue of ours, or is answered, or is set aside with a reason.
--
-- The caller has looked (look.lua) and says what each message means. Taken is only what is still as it was then; the
-- rest stays where it is for the next look. Other programs push to the same end meanwhile and take from it: what was
-- seen is looked for among the first entries, and what they pushed goes back in its order.
--
-- KEYS     head.lua (one queue), then the list
-- ARGV     head.lua, then: what the keys of records begin with, name of the state field, most jobs that may wait in the
--          queue, the system's word and what it is told (answer.lua), number of messages, and for each: id, state (foreign.lua), and what it means:
--            J job                 a job (write_job.lua)
--            R job                 the same, which has ended before
--            D reason job          a job that cannot be run: it goes to the DLQ
--            A text id             is answered at once with this text; the id that a job of it would have here
--            S reason              names no job of theirs that could be answered: set aside
--            E                     has ended before: dropped
-- Returns  entries taken, jobs that are new, entries that were known already, set aside (4 entries each), 1 when the
--          queue takes no more jobs; or a text when a key is of the wrong type

-- Entries that others may have pushed since the look.
local PUSHED_MAX = 512
-- Rows of dead jobs that are replaced in one call: each costs a walk over the DLQ.
local REPLACED_MAX = 8
local LIVE = { ready = true, scheduled = true, inflight = true }

local q, list = queues[1], KEYS[#KEYS]
local before, state_field, waiting_max = take(), take(), take_number()
local word, told = take(), take()
local messages, by_id, rows, n_messages = {}, {}, {}, take_number()
for n = 1, n_messages do
  local m = { id = take(), state = take(), action = take() }
  local action = m.action
  if action == 'D' or action == 'S' then
    m.reason = take()
  elseif action == 'A' then
    m.reason, m.here = take(), take()
  end
  if action == 'J' or action == 'R' or action == 'D' then
    m.job = part('jobs').take()
    m.row = JOB .. m.job.id
    rows[#rows + 1] = m.row
  end
  messages[n] = m
  by_id[m.id] = by_id[m.id] or m
end

local found = kind(list)
local reason = trouble(q) or found ~= 'none' and found ~= 'list' and 'key `' .. list .. '` is a ' .. found .. ', must be a list'
if reason then
  return reason
end

local room = room_of(q, waiting_max)

-- Whether a message can be taken now; what its row says may change what it means.
local is_free = #rows > 0 and call('EXISTS', unpack(rows)) == 0
local n_replaced, is_full, n_new, n_known = 0, false, 0, 0
local function may_take(m)
  if state_of(before .. m.id, state_field) ~= m.state then
    return false
  end
  if m.job and not is_free then
    local status = try('HGET', m.row, 'status')
    if type(status) == 'table' then
      m.action, m.reason = 'S', 'key `' .. m.row .. '` is not a hash'
    elseif LIVE[status or ''] then
      m.action = 'E'
    elseif status == 'dlq' then
      n_replaced = n_replaced + 1
      m.old = status
      if n_replaced > REPLACED_MAX then
        return false
      end
    else
      m.old = status
    end
  end
  if m.action == 'J' or m.action == 'R' then
    if n_new >= room then
      is_full = true
      return false
    end
    n_new = n_new + 1
  end
  return true
end

local taken, kept, n_gone = {}, {}, 0
for place, id in ipairs(call('LRANGE', list, 0, n_messages + PUSHED_MAX - 1)) do
  local m = by_id[id]
  if m and not m.is_taken and may_take(m) then
    m.is_taken = true
    taken[#taken + 1], n_gone = m, place
  else
    kept[#kept + 1] = id
  end
  if #taken == n_messages or is_full then
    break
  end
end
if #taken == 0 then
  return { 0, 0, 0, asides, is_full and 1 or 0 }
end

-- The first writes: a full Redis refuses them, and nothing has been taken yet.
call('SADD', QUEUES, q.name)
call('HSET', PREFIX .. ':protocols', word, told)
call('LPOP', list, n_gone)
local back = {}
for n = n_gone - #taken, 1, -1 do
  back[#back + 1] = kept[n]
end
if #back > 0 then
  call('LPUSH', list, unpack(back))
end

-- A row of an earlier life of the same job makes room for the new one.
local function replace(m)
  if m.old == 'dlq' then
    call('LREM', q.dlq, -1, m.job.id)
  end
  if m.old ~= nil then
    call('DEL', m.row)
  end
end

for _, m in ipairs(taken) do
  if m.action == 'J' or m.action == 'R' then
    replace(m)
    part('jobs').write(m.job, m.row)
    part('answer').tell(q, m.job.id, m.action == 'J' and 'started' or 'again', '')
  elseif m.action == 'D' then
    replace(m)
    part('dead').letter(q, m.job.id, m.reason, { 'type', m.job.type, 'payload', m.job.payload, 'created_at_nano', now_nano,
      'error_kind', 'rejected', 'last_error', m.reason, 'finished_at_nano', now_nano,
      unpack(ARGV, m.job.first, m.job.first + m.job.n_more - 1) })
    part('dead').report(q, m.job.id, m.reason, true)
  elseif m.action == 'A' then
    part('answer').tell(q, m.here, 'done', m.reason)
  elseif m.action == 'S' then
    part('dead').set_aside(q, m.id, m.reason)
  else
    n_known = n_known + 1
  end
end
write_ends()
write_keeps()
return { #taken, n_new, n_known, asides, is_full and 1 or 0 }
