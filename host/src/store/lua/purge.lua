-- Removes jobs of one structure of a queue, the oldest first, with their rows. A job that runs is never touched: an
-- entry whose row speaks of another state goes, the row stays.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, structure (ready, parked, scheduled, done, dlq, cancelled), step among the limit keys (of
--          parked jobs; 0 to begin with), most entries to take (at most 500)
-- Returns  entries taken, rows removed, 1 when the structure is empty now else 0, the next step; or a text when a key
--          is of the wrong type

local KEYS_MAX = 100
-- The states that a row may have for its entry to mean it.
local MEANT = {
  ready = { ready = true, scheduled = true }, parked = { ready = true }, scheduled = { scheduled = true, ready = true },
  done = { done = true }, dlq = { dlq = true }, cancelled = { cancelled = true },
}

local q, who, structure, step, most = queues[1], take(), take(), take(), math.min(take_number(), 500)
local meant = MEANT[structure]
-- A job that has ended well stays known by its idempotency key: it must not run a second time.
local is_history = structure == 'done' or structure == 'cancelled'
local reason = trouble(q)
if reason then
  return reason
end

local n_taken, gone = 0, {}

local function remove(ids)
  for _, id in ipairs(ids) do
    n_taken = n_taken + 1
    local row = try('HMGET', JOB .. id, 'status', 'queue', 'idempotency_key')
    if row.err or row[2] and row[2] ~= q.name then
      part('dead').set_aside(q, id, row.err and 'its key is not a hash' or 'its queue is `' .. sub(row[2], 1, NAME_MAX) .. '`')
    elseif meant[row[1] or ''] then
      if not is_history and structure ~= 'dlq' then
        part('answer').tell(q, id, 'failed', 'purged before it was run')
      end
      forget(q, id, not is_history and row[3])
      gone[#gone + 1] = id
    elseif row[1] == 'cancelled' then
      -- It was left in a long list when it was cancelled, and its row waited for this.
      call('EXPIRE', JOB .. id, CANCELLED_HOURS * 3600)
    end
  end
end

local function pop(list)
  if kind(list) == 'list' then
    remove(call('LPOP', list, most - n_taken) or {})
  end
end

local is_end, next_step = true, '0'
if structure == 'parked' then
  local found = try('HSCAN', q.keys, step, 'COUNT', KEYS_MAX)
  next_step = not found.err and found[1] or '0'
  is_end = next_step == '0'
  for n = 1, found.err and 0 or #found[2], 2 do
    local key = found[2][n]
    local n_parked = part('limits').parked_of(found[2][n + 1])
    if n_parked > 0 and n_taken >= most then
      -- The same step once more.
      is_end, next_step = false, step
      break
    elseif n_parked > 0 then
      local limits, list = part('limits'), part('limits').parked_list(q, key)
      pop(list)
      local left = try('LLEN', list)
      left = type(left) == 'number' and left or 0
      local states, order = limits.key_states(q, { key })
      count(q, 'parked', left - states[key].parked)
      states[key].parked = left
      limits.write_key_states(q, states, order)
      if left > 0 then
        is_end, next_step = false, step
      end
    end
  end
elseif structure == 'scheduled' then
  local members = call('ZRANGE', q.scheduled, 0, most - 1)
  local ids = {}
  for n, member in ipairs(members) do
    ids[n] = match(member, '^%d%d%d%d%d%d%d%d%d:(.+)$') or member
  end
  if #members > 0 then
    call('ZREM', q.scheduled, unpack(members))
  end
  remove(ids)
elseif structure == 'ready' then
  for priority = 9, 0, -1 do
    if n_taken < most then
      pop(prio_list(q, priority))
    end
  end
  if n_taken < most then
    pop(q.ready)
  end
else
  pop(q[structure])
end
if structure ~= 'parked' then
  is_end = n_taken < most
end
release_slots(q, gone)
write_ends()
count(q, 'purged', #gone)
if #gone > 0 then
  note(who, 'purged', 'queue ' .. q.name, #gone, structure)
end
if not is_history then
  tell_ended(gone, #gone)
end
return { n_taken, #gone, is_end and 1 or 0, next_step }
