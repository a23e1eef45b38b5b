-- Looks once more at what a pass has found, in one moment, and repairs it when that is asked for. Whatever is not as it
-- was told is left alone.
--
-- KEYS     head.lua (keys that a fault is about begin with the prefix, as those of jobs do)
-- ARGV     head.lua, then: who, 1 to repair else 0, number of faults, and for each: what is wrong (docs/doctor.md), index of
--          the queue or 0, the key that it is about, the id, entry or field, and one more word: the marks of a row,
--          seconds to live, the type that a key must have, or the other list of an id that stands twice
-- Returns  for each fault 1 when it is there (and is repaired, if that was asked for) else 0; set aside (4 entries each)

local WRONG_DAYS = 30
local STALE_MS = 3600000
local KEYS_MAX = 1000

local entries, lost = part('entries'), part('lost')
local side = lost.side

-- An entry of a list was removed: if it was parked, it is not any more.
local function left(q, list)
  local key = match(sub(list, #q.ready - 4), '^parked:(.*)$')
  if key then
    part('limits').unpark(q, key)
  end
end

local function set_aside(q, id, reason)
  part('dead').set_aside(q, id, reason)
end

local function status_of(id)
  local status = try('HGET', JOB .. id, 'status')
  return type(status) == 'string' and sub(status, 1, NAME_MAX) or ''
end

-- An id in a list that serves workers.
local function waiting(fault)
  return function(q, list, id, _, is_fix)
    local from = entries.ready(q, id) == fault and side(list, id)
    if from and is_fix then
      call('LREM', list, from, id)
      left(q, list)
      set_aside(q, id, fault == 'ready-ghost' and 'there is no record of it'
        or 'its status is `' .. status_of(id) .. '`, so it is not to be run')
    end
    return from
  end
end

local function dead(fault)
  return function(q, _, id, _, is_fix)
    local from = entries.dlq(q, id) == fault and side(q.dlq, id)
    if from and is_fix then
      call('LREM', q.dlq, from, id)
    end
    return from
  end
end

-- An entry of `inflight` or `scheduled`; `reason` when its id is kept aside.
local function entry(structure, fault, reason)
  return function(q, _, member, _, is_fix)
    local is_so = not trouble(q, structure) and entries[structure](q, member) == fault
    if is_so and is_fix then
      call('ZREM', q[structure], member)
      if reason then
        set_aside(q, match(member, '^%d%d%d%d%d%d%d%d%d:(.+)$') or member, reason)
      end
    end
    return is_so
  end
end

local function expired(q, _, id, _, is_fix)
  local is_so = not trouble(q) and entries.inflight(q, id) == 'lease-expired'
  if is_so and is_fix then
    part('due').reclaim(q, { id })
  end
  return is_so
end

-- The first entry is the one that counts.
local function twice(q, list, id, other, is_fix)
  if list ~= other then
    local from = side(other, id) and side(list, id)
    if from and is_fix then
      call('LREM', list, from, id)
      left(q, list)
    end
    return from
  elseif kind(list) ~= 'list' then
    return false
  end
  local heads = call('LPOS', list, id, 'COUNT', 2, 'MAXLEN', lost.END_MAX)
  local tails = call('LPOS', list, id, 'RANK', -1, 'COUNT', 2, 'MAXLEN', lost.END_MAX)
  local is_near_tail = tails[2] or tails[1] and heads[1] and tails[1] ~= heads[1]
  if is_fix and is_near_tail then
    call('LREM', list, -1, id)
    left(q, list)
  elseif is_fix and heads[2] then
    -- Far from the tail: marked by its place, so that no long search is needed.
    local mark = '\0' .. now_nano .. id
    call('LSET', list, heads[2], mark)
    call('LREM', list, 1, mark)
    left(q, list)
  end
  return is_near_tail or heads[2]
end

local function wrong_type(_, key, _, wanted, is_fix)
  local found = kind(key)
  local is_so = found ~= 'none' and found ~= wanted
  if is_so and is_fix then
    local aside = PREFIX .. ':wrong:' .. sub(key, #PREFIX + 2)
    if call('EXISTS', aside) == 1 then
      aside = aside .. ':' .. now_nano
    end
    call('RENAME', key, aside)
    call('EXPIRE', aside, WRONG_DAYS * 86400)
  end
  return is_so
end

-- A key that would live for ever.
local function endless(is_meant)
  return function(q, key, id, seconds, is_fix)
    local is_so = call('TTL', key) == -1 and (not is_meant or is_meant(q, key, id))
    if is_so and is_fix then
      call('EXPIRE', key, seconds)
    end
    return is_so
  end
end

local function is_done(_, _, id)
  return status_of(id) == 'done'
end

local function is_cancelled(q, _, id)
  return status_of(id) == 'cancelled' and not (q and lost.waits(q, id))
end

local function has_no_job(_, key)
  local id = try('GET', key)
  return type(id) == 'string' and call('EXISTS', JOB .. id) == 0
end

local function mortal(_, key, id, _, is_fix)
  local row = marks(id)
  local is_so = row and row.status ~= 'done' and row.status ~= 'cancelled' and lives_too_short(id, row)
  if is_so and is_fix then
    call('PERSIST', key)
  end
  return is_so
end

local function unchanged(_, _, id, mark)
  local row, is = marks(id)
  return row and is == mark
end

local function slot(q, _, id, _, is_fix)
  local is_so = entries.slots(q, id)
  if is_so and is_fix then
    release_slots(q, { id })
  end
  return is_so
end

local function limit_key(fault)
  return function(q, _, key, _, is_fix)
    q.running = nil
    local is_so = not trouble(q) and entries.keys(q, key) == fault
    if is_so and is_fix then
      part('limits').mend_keys(q, { key }, entries.running_of(q))
      q.running = nil
    end
    return is_so
  end
end

local function parked_count(q, _, _, _, is_fix)
  local keys = try('HLEN', q.keys)
  if type(keys) ~= 'number' or keys > KEYS_MAX or kind(q.counters) ~= 'hash' then
    return false
  end
  local n_parked = 0
  for _, key in ipairs(call('HKEYS', q.keys)) do
    local length = try('LLEN', part('limits').parked_list(q, key))
    n_parked = n_parked + (type(length) == 'number' and length or 0)
  end
  local is_so = (tonumber(call('HGET', q.counters, 'parked') or 0) or -1) ~= n_parked
  if is_so and is_fix then
    call('HSET', q.counters, 'parked', n_parked)
  end
  return is_so
end

local function hidden_priority(q, list, priority, _, is_fix)
  local used = try('HGET', q.settings, 'priorities')
  local is_so = type(used) ~= 'table' and not find(used or '', priority, 1, true) and kind(list) == 'list'
  if is_so and is_fix then
    call('HSET', q.settings, 'priorities', (used or '') .. priority)
    q.is_to_wake = true
  end
  return is_so
end

local function unknown_queue(q, _, _, _, is_fix)
  local known = try('SISMEMBER', QUEUES, q.name)
  if known == 0 and is_fix then
    call('SADD', QUEUES, q.name)
  end
  return known == 0
end

local function stale_watch(_, key, queue, _, is_fix)
  local known = try('HGET', key, queue)
  if type(known) ~= 'string' then
    return false
  end
  local ends = match(known, '^(%d+) %S+$')
  local is_so = not ends or tonumber(ends) < now_ms - STALE_MS
  if is_so and is_fix then
    call('HDEL', key, queue)
  end
  return is_so
end

local FAULTS = {
  ['wrong-type'] = wrong_type,
  ['lost-ready'] = function(q, _, id, mark, is_fix) return lost.lost(q, id, mark, is_fix) end,
  ['ready-ghost'] = waiting('ready-ghost'),
  ['ready-misfit'] = waiting('ready-misfit'),
  ['ready-twice'] = twice,
  ['lease-ghost'] = entry('inflight', 'lease-ghost', 'in flight, but there is no record'),
  ['lease-misfit'] = entry('inflight', 'lease-misfit'),
  ['lease-expired'] = expired,
  ['scheduled-ghost'] = entry('scheduled', 'scheduled-ghost', 'scheduled, but there is no record'),
  ['scheduled-misfit'] = entry('scheduled', 'scheduled-misfit'),
  ['scheduled-malformed'] = entry('scheduled', 'scheduled-malformed',
    'its entry in `scheduled` is not `nanos:id` with nine digits'),
  ['dead-ghost'] = dead('dead-ghost'),
  ['dead-misfit'] = dead('dead-misfit'),
  ['done-endless'] = endless(is_done),
  ['cancelled-endless'] = endless(is_cancelled),
  ['row-mortal'] = mortal,
  ['state-unknown'] = unchanged,
  ['queue-unnamed'] = unchanged,
  ['slot-leaked'] = slot,
  ['key-count'] = limit_key('key-count'),
  ['parked-stuck'] = limit_key('parked-stuck'),
  ['parked-count'] = parked_count,
  ['priority-hidden'] = hidden_priority,
  ['queue-unknown'] = unknown_queue,
  ['list-endless'] = endless(),
  ['key-endless'] = endless(has_no_job),
  ['claim-endless'] = endless(),
  ['watch-stale'] = stale_watch,
  ['key-unknown'] = function(_, key) return call('EXISTS', key) == 1 end,
}
FAULTS['lost-scheduled'], FAULTS['lost-inflight'] = FAULTS['lost-ready'], FAULTS['lost-ready']
FAULTS['lost-dead'] = FAULTS['lost-ready']

local who, is_fix, answers, n_mended, kinds = take(), take() == '1', {}, 0, {}
for n = 1, take_number() do
  local fault = take()
  local look, q = FAULTS[fault], queues[take_number()]
  answers[n] = look(q, take(), take(), take(), is_fix) and 1 or 0
  n_mended = n_mended + answers[n]
  if answers[n] == 1 and not kinds[fault] then
    kinds[fault], kinds[#kinds + 1] = true, fault
  end
end
write_ends()
if is_fix and n_mended > 0 then
  note(who, 'repaired', 'prefix ' .. PREFIX, n_mended, table.concat(kinds, ' '))
end
return { answers, asides }
