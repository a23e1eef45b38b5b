-- What is due comes back: jobs whose lease has ended (to the head of their queue), scheduled jobs whose time has come.
-- Each scan is bounded. Both encodings are understood: the current one (milliseconds in `inflight`; seconds and
-- `nanos:id` in `scheduled`) and the first one (nanoseconds and bare ids, scores above 1e17).
parts.due = function()
  local NANO_SCORES = '1e17'

  local swept = { reclaimed = 0, promoted = 0, dropped = 0, is_more = 0 }

  local function deliveries_max(max_attempts)
    return math.max(tonumber(max_attempts or ATTEMPTS_DEFAULT) or ATTEMPTS_DEFAULT, DELIVERIES_MIN)
  end

  -- Takes back jobs whose lease has ended: those that are named, or some.
  local function reclaim(q, named)
    local ids = named or call('ZRANGEBYSCORE', q.inflight, '-inf', whole(now_ms), 'LIMIT', 0, SCAN_MAX)
    if #ids == 0 then
      ids = call('ZRANGEBYSCORE', q.inflight, NANO_SCORES, now_nano, 'LIMIT', 0, SCAN_MAX)
    end
    if #ids == 0 then
      return
    end
    if #ids == SCAN_MAX then
      swept.is_more = 1
    end
    call('ZREM', q.inflight, unpack(ids))
    local n_reclaimed, dead = 0, {}
    for _, id in ipairs(ids) do
      local row = try('HMGET', JOB .. id, 'status', 'deliveries', 'max_attempts', 'priority')
      if row.err then
        part('dead').set_aside(q, id, 'key `' .. JOB .. sub(id, 1, ID_MAX) .. '` is not a hash')
      elseif not row[1] then
        part('dead').set_aside(q, id, 'in flight, but there is no record')
      elseif row[1] == 'inflight' then
        local deliveries = tonumber(row[2] or 0) or 0
        if deliveries >= deliveries_max(row[3]) then
          local reason = 'handed out ' .. whole(deliveries) .. ' times, and each time its worker was lost or its lease ran out'
          part('dead').letter(q, id, reason, { 'error_kind', 'lease_lost', 'finished_at_nano', now_nano })
          part('dead').report(q, id, reason, true)
          dead[#dead + 1] = id
        else
          call('HSET', JOB .. id, 'status', 'ready', 'lease_token', '', 'lease_expires_at_nano', '0', 'run_at_nano', '0')
          to_head(q, id, row[4])
          n_reclaimed = n_reclaimed + 1
        end
      end
    end
    release_slots(q, dead)
    swept.reclaimed = swept.reclaimed + n_reclaimed
    count(q, 'reclaimed', n_reclaimed)
  end

  -- Looks at `most` entries (SCAN_MAX when none is said). Returns how many have left `scheduled`.
  local function promote(q, most)
    most = most or SCAN_MAX
    local gone, ids = {}, {}
    local entries = call('ZRANGEBYSCORE', q.scheduled, '-inf', now_s, 'WITHSCORES', 'LIMIT', 0, most)
    for n = 1, #entries, 2 do
      local member, score = entries[n], tonumber(entries[n + 1])
      local nanos, id = match(member, '^(%d%d%d%d%d%d%d%d%d):(.+)$')
      if not nanos then
        gone[#gone + 1] = member
        part('dead').set_aside(q, member, 'its entry in `scheduled` is not `nanos:id` with nine digits')
      elseif score < tonumber(now_s) or nanos <= now_n then
        gone[#gone + 1] = member
        ids[#ids + 1] = id
      end
    end
    if #entries == 2 * most then
      swept.is_more = 1
    elseif #entries == 0 then
      for _, id in ipairs(call('ZRANGEBYSCORE', q.scheduled, NANO_SCORES, now_nano, 'LIMIT', 0, most)) do
        gone[#gone + 1] = id
        ids[#ids + 1] = id
      end
      if #ids == most then
        swept.is_more = 1
      end
    end
    if #gone > 0 then
      call('ZREM', q.scheduled, unpack(gone))
    end
    for _, id in ipairs(ids) do
      local row = try('HMGET', JOB .. id, 'status', 'priority')
      local status = row[1]
      if status == 'scheduled' or status == 'ready' then
        call('HSET', JOB .. id, 'status', 'ready', 'run_at_nano', '0')
        to_tail(q, id, row[2])
        swept.promoted = swept.promoted + 1
      elseif row.err then
        part('dead').set_aside(q, id, 'key `' .. JOB .. sub(id, 1, ID_MAX) .. '` is not a hash')
      elseif not status then
        part('dead').set_aside(q, id, 'scheduled, but there is no record')
      else
        part('dead').set_aside(q, id, 'scheduled, but its status is `' .. sub(status, 1, NAME_MAX) .. '`')
      end
    end
    return #gone
  end

  -- Dead rows over the cap or too old, and ids in the DLQ whose row is gone or not dead.
  local PRUNE_MAX = 50
  local function prune(q)
    local over = call('LLEN', q.dlq) - DLQ_MAX
    local n_gone, rows = 0, {}
    for n, id in ipairs(call('LRANGE', q.dlq, 0, PRUNE_MAX - 1)) do
      local row = try('HMGET', JOB .. id, 'status', 'dlq_failed_at_nano', 'failed_at_nano', 'created_at_nano')
      if row[1] == 'dlq' then
        -- Seconds are enough here, and other programs write the first of these in the form of a floating point number.
        local failed = 0
        for field = 2, 4 do
          failed = failed > 0 and failed or tonumber(row[field] or '') or 0
        end
        if failed <= 0 then
          -- It says nowhere when it died: its days count from here.
          try('HSET', JOB .. id, 'dlq_failed_at_nano', now_nano)
          failed = tonumber(now_nano)
        end
        if n > over and not (failed / 1e9 < tonumber(now_s) - DLQ_DAYS * 86400) then
          break
        end
        rows[#rows + 1] = JOB .. id
      end
      n_gone = n
    end
    if n_gone > 0 then
      call('LPOP', q.dlq, n_gone)
    end
    if #rows > 0 then
      call('UNLINK', unpack(rows))
    end
    count(q, 'dlq_dropped', n_gone)
    swept.dropped = swept.dropped + n_gone
    if n_gone == PRUNE_MAX then
      swept.is_more = 1
    end
  end

  -- When the next lease ends or the next scheduled job is due in a queue, in milliseconds; nil when nothing waits.
  local function next_due(q)
    local soonest
    local lease = call('ZRANGE', q.inflight, 0, 0, 'WITHSCORES')[2]
    if lease then
      lease = tonumber(lease)
      soonest = lease > 1e17 and lease / 1e6 or lease
    end
    local first = call('ZRANGE', q.scheduled, 0, 0, 'WITHSCORES')
    if first[2] then
      local score = tonumber(first[2])
      local due = score > 1e17 and score / 1e6 or score * 1000 + (tonumber(sub(first[1], 1, 3)) or 0) + 1
      if not soonest or due < soonest then
        soonest = due
      end
    end
    return soonest
  end

  return { swept = swept, reclaim = reclaim, promote = promote, prune = prune, next_due = next_due }
end
