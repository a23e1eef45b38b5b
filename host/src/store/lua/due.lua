-- What is due comes back: jobs whose lease has ended (to the head of their queue), scheduled jobs whose time has come.
-- Each scan is bounded. Both encodings are understood: the current one (milliseconds in `inflight`; seconds and
-- `nanos:id` in `scheduled`) and the first one (nanoseconds and bare ids, scores above 1e17).

local NANO_SCORES = '1e17'

local swept = { reclaimed = 0, promoted = 0, dropped = 0, is_more = 0 }

local function deliveries_max(max_attempts)
  return math.max(tonumber(max_attempts or ATTEMPTS_DEFAULT) or ATTEMPTS_DEFAULT, DELIVERIES_MIN)
end

local function reclaim(q)
  local ids = call('ZRANGEBYSCORE', q.inflight, '-inf', whole(now_ms), 'LIMIT', 0, SCAN_MAX)
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
  local n_reclaimed = 0
  for _, id in ipairs(ids) do
    local row = try('HMGET', JOB .. id, 'status', 'deliveries', 'max_attempts')
    if row.err then
      set_aside(q, id, 'key `' .. JOB .. sub(id, 1, ID_MAX) .. '` is not a hash')
    elseif not row[1] then
      set_aside(q, id, 'in flight, but there is no record')
    elseif row[1] == 'inflight' then
      local deliveries = tonumber(row[2] or 0) or 0
      if deliveries >= deliveries_max(row[3]) then
        local reason = 'handed out ' .. whole(deliveries) .. ' times, and each time its worker was lost or its lease ran out'
        dead_letter(q, id, reason, { 'error_kind', 'lease_lost', 'finished_at_nano', now_nano })
        report(q, id, reason, true)
      else
        call('HSET', JOB .. id, 'status', 'ready', 'lease_token', '', 'lease_expires_at_nano', '0', 'run_at_nano', '0')
        to_head(q, id)
        n_reclaimed = n_reclaimed + 1
      end
    end
  end
  swept.reclaimed = swept.reclaimed + n_reclaimed
  count(q, 'reclaimed', n_reclaimed)
end

local function promote(q)
  local gone, ids = {}, {}
  local entries = call('ZRANGEBYSCORE', q.scheduled, '-inf', now_s, 'WITHSCORES', 'LIMIT', 0, SCAN_MAX)
  for n = 1, #entries, 2 do
    local member, score = entries[n], tonumber(entries[n + 1])
    local nanos, id = match(member, '^(%d%d%d%d%d%d%d%d%d):(.+)$')
    if not nanos then
      gone[#gone + 1] = member
      set_aside(q, member, 'its entry in `scheduled` is not `nanos:id` with nine digits')
    elseif score < tonumber(now_s) or nanos <= now_n then
      gone[#gone + 1] = member
      ids[#ids + 1] = id
    end
  end
  if #entries == 2 * SCAN_MAX then
    swept.is_more = 1
  elseif #entries == 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', q.scheduled, NANO_SCORES, now_nano, 'LIMIT', 0, SCAN_MAX)) do
      gone[#gone + 1] = id
      ids[#ids + 1] = id
    end
    if #ids == SCAN_MAX then
      swept.is_more = 1
    end
  end
  if #gone > 0 then
    call('ZREM', q.scheduled, unpack(gone))
  end
  for _, id in ipairs(ids) do
    local status = try('HGET', JOB .. id, 'status')
    if status == 'scheduled' or status == 'ready' then
      call('HSET', JOB .. id, 'status', 'ready', 'run_at_nano', '0')
      to_tail(q, id)
      swept.promoted = swept.promoted + 1
    elseif type(status) == 'table' then
      set_aside(q, id, 'key `' .. JOB .. sub(id, 1, ID_MAX) .. '` is not a hash')
    elseif not status then
      set_aside(q, id, 'scheduled, but there is no record')
    else
      set_aside(q, id, 'scheduled, but its status is `' .. sub(status, 1, NAME_MAX) .. '`')
    end
  end
end

-- Dead rows over the cap or too old.
local function prune(q)
  local over = call('LLEN', q.dlq) - DLQ_MAX
  for n = 1, 10 do
    local is_due = n <= over
    if not is_due then
      local oldest = call('LINDEX', q.dlq, 0)
      local row = oldest and try('HMGET', JOB .. oldest, 'status', 'dlq_failed_at_nano')
      -- Seconds are enough here, and other programs write this field in the form of a floating point number.
      local failed = row and row[1] == 'dlq' and tonumber(row[2] or '')
      is_due = failed and failed > 0 and failed / 1e9 < tonumber(now_s) - DLQ_DAYS * 86400
    end
    if not is_due then
      return
    end
    drop_dead(q)
    swept.dropped = swept.dropped + 1
  end
  swept.is_more = 1
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
