-- Jobs that say they wait, run or are dead, and stand in no structure. Part of repair.lua.
--
-- The caller has looked at every structure twice, some time apart. Here it is made sure, in one moment: the row has not
-- changed since then, and its id is not where it belongs. Long lists are looked at from both ends, where what moved
-- meanwhile stands; a reserve sets an id aside that stands twice.
parts.lost = function()
  local END_MAX, LEASE_MAX_MS = 10000, 3600000

  -- From which end of a list an id is found: 1 the head, -1 the tail; nil when it is not near either.
  local function side(list, id)
    if kind(list) ~= 'list' then
      return nil
    end
    return call('LPOS', list, id, 'MAXLEN', END_MAX) and 1
      or call('LPOS', list, id, 'RANK', -1, 'MAXLEN', END_MAX) and -1 or nil
  end

  local function waits(q, id)
    local found = call('HMGET', JOB .. id, 'priority', 'limit_key')
    return side(q.ready, id) or is_priority(found[1]) and side(prio_list(q, found[1]), id)
      or found[2] and side(part('limits').parked_list(q, found[2]), id), found[1]
  end

  local function inflight(q, id, row, is_fix)
    if call('ZSCORE', q.inflight, id) then
      return false
    elseif is_fix then
      local ends = tonumber(sub(row.lease_expires_at_nano, 1, -7)) or now_ms
      call('ZADD', q.inflight, whole(math.min(ends, now_ms + LEASE_MAX_MS)), id)
    end
    return true
  end

  local function dead(q, id, _, is_fix)
    if side(q.dlq, id) then
      return false
    elseif is_fix then
      call('RPUSH', q.dlq, id)
    end
    return true
  end

  local function ready(q, id, _, is_fix)
    local is_there, priority = waits(q, id)
    if is_there then
      return false
    elseif is_fix then
      call('HSET', JOB .. id, 'status', 'ready', 'run_at_nano', '0')
      to_tail(q, id, priority)
    end
    return true
  end

  local function scheduled(q, id, row, is_fix)
    local seconds, nanos = match(row.run_at_nano, '^(%d+)(%d%d%d%d%d%d%d%d%d)$')
    if call('ZSCORE', q.scheduled, id) or (nanos and call('ZSCORE', q.scheduled, nanos .. ':' .. id)) then
      return false
    elseif not nanos then
      -- It says no time: it is due.
      return ready(q, id, row, is_fix)
    elseif is_fix then
      to_schedule(q, id, seconds, nanos)
    end
    return true
  end

  local BY_STATUS = { [''] = ready, ready = ready, inflight = inflight, scheduled = scheduled, dlq = dead }

  -- Whether a job is lost; with `is_fix` it is not any more. `mark`: what its row said when it was looked at.
  local function lost(q, id, mark, is_fix)
    local row, is = marks(id)
    local look = row and is == mark and not trouble(q) and BY_STATUS[row.status]
    return look and look(q, id, row, is_fix) or false
  end

  return { lost = lost, side = side, waits = waits, END_MAX = END_MAX }
end
