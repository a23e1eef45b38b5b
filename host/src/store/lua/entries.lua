-- What is wrong with an entry of a structure, as far as its row tells. Part of look_at_entries.lua and repair.lua. Writes nothing.
parts.entries = function()
  -- A lease that ended so long ago should have been taken back by a sweep.
  local EXPIRED_MS = 10000
  -- Slots of a queue that are counted key by key.
  local SLOTS_MAX = 1000
  local NANO_SCORE = 1e17

  -- An id in `ready`, in the list of a priority, or parked. A cancelled job may stand there; whoever takes it drops it.
  local function ready(q, id)
    local row = try('HMGET', JOB .. id, 'status', 'type', 'queue')
    local status = row[1]
    if row.err then
      return nil
    elseif not status or status == '' then
      return not (row[2] or row[3]) and call('EXISTS', JOB .. id) == 0 and 'ready-ghost' or nil
    elseif status == 'inflight' then
      return call('ZSCORE', q.inflight, id) and 'ready-misfit' or nil
    end
    return status ~= 'ready' and status ~= 'scheduled' and status ~= 'cancelled' and 'ready-misfit' or nil
  end

  local function inflight(q, id)
    local score, status = call('ZSCORE', q.inflight, id), try('HGET', JOB .. id, 'status')
    if not score or type(status) == 'table' then
      return nil
    elseif not status then
      return 'lease-ghost'
    elseif status ~= 'inflight' then
      return 'lease-misfit'
    end
    score = tonumber(score)
    local ends_ms = score > NANO_SCORE and score / 1e6 or score
    return ends_ms < now_ms - EXPIRED_MS and 'lease-expired' or nil
  end

  local function scheduled(q, member)
    local score = call('ZSCORE', q.scheduled, member)
    local id = match(member, '^%d%d%d%d%d%d%d%d%d:(.+)$')
    if not score then
      return nil
    elseif not id and tonumber(score) < NANO_SCORE then
      return 'scheduled-malformed'
    end
    local status = try('HGET', JOB .. (id or member), 'status')
    if not status then
      return 'scheduled-ghost'
    end
    return type(status) ~= 'table' and status ~= 'scheduled' and status ~= 'ready' and 'scheduled-misfit' or nil
  end

  local function dlq(_, id)
    local status = try('HGET', JOB .. id, 'status')
    if not status then
      return 'dead-ghost'
    end
    return type(status) ~= 'table' and status ~= 'dlq' and 'dead-misfit' or nil
  end

  local function slots(q, id)
    if id == '' or not try('HGET', q.slots, id) then
      return nil
    end
    local status = try('HGET', JOB .. id, 'status')
    return status ~= 'inflight' and status ~= 'ready' and status ~= 'scheduled' and 'slot-leaked' or nil
  end

  -- Jobs that run, by limit key; nil when there are too many to count. Counted once a call.
  local function running_of(q)
    if q.running == nil then
      local n = try('HLEN', q.slots)
      q.running = type(n) == 'number' and n <= SLOTS_MAX and {}
      for _, key in ipairs(q.running and n > 0 and call('HVALS', q.slots) or NOTHING) do
        q.running[key] = (q.running[key] or 0) + 1
      end
    end
    return q.running or nil
  end

  -- A limit key: what is counted, what is parked, and whether it has room.
  local function keys(q, key)
    if key == '' or kind(q.keys) ~= 'hash' and kind(q.keys) ~= 'none' then
      return nil
    end
    local limits = part('limits')
    local state = limits.key_states(q, { key })[key]
    local parked, running = try('LLEN', limits.parked_list(q, key)), running_of(q)
    if type(parked) ~= 'number' then
      return nil
    end
    local n_running = running and (running[key] or 0) or state.running
    if state.parked ~= parked or state.running ~= n_running then
      return 'key-count'
    end
    local most = settings(q).key_concurrency
    return parked > 0 and (not most or n_running < most) and 'parked-stuck' or nil
  end

  return { ready = ready, inflight = inflight, scheduled = scheduled, dlq = dlq, slots = slots, keys = keys,
    running_of = running_of }
end
