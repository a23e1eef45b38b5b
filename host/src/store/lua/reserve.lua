-- Takes a batch of jobs under a lease. Part of turn.lua: it runs after the settle.
--
-- Every queue gives up to its quota; what is left over is filled in the order of the queues. A record that cannot be
-- run goes to the DLQ with a reason that names the field, or is set aside when it is not ours to change; it never
-- stops the batch, and no hash is made for an id that has none.
--
-- ARGV     1 when a reserve is wanted else 0; then: limit, lease in milliseconds, token, node or empty, 1 to bring back
--          what is due first else 0, number of queues to ask, and for each: index of the queue, quota
-- Returns  now in milliseconds, revision, next due in milliseconds or empty, jobs (13 entries each: queue index, id,
--          type, payload, attempts, max attempts, timeout in nanoseconds, created at, deliveries, digest, content type,
--          metadata, pin), jobs per queue, set aside (4 entries each), broken queues (index and reason)

-- The further fields of a record that has none.
local NOTHING = {}

-- A count with a cap; digits only, any length.
local function capped(text, most)
  return #text > 15 and most or math.min(tonumber(text), most)
end

local function reserve()
  local limit, lease_ms, token, node, is_sweep = take_number(), take_number(), take(), take(), take() == '1'
  local expires_ms = now_ms + lease_ms
  -- As text: a number in a call is written with 17 digits by the C library, which costs more than the call.
  local score = whole(expires_ms)
  local expires = score .. '000000'
  local keep_seconds = expires_ms / 1000 + 3600
  local shares, jobs, taken, broken = {}, {}, {}, {}
  local n_jobs, n_entries, next_ms = 0, 0, nil
  local routes, handed = {}, {}
  -- What is written into every job, with two places for what differs.
  local stamp = { 'status', 'inflight', 'lease_token', token, 'lease_expires_at_nano', expires }
  if node ~= '' then
    stamp[7], stamp[8] = 'node', node
  end
  local n_stamp = #stamp
  stamp[n_stamp + 1], stamp[n_stamp + 3] = 'deliveries', 'digest'
  stamp[n_stamp + 2], stamp[n_stamp + 4] = 0, ''

  local function route(job_type)
    local known = routes[job_type]
    if known == nil then
      known = try('HGET', ROUTE, job_type)
      known = type(known) == 'string' and sub(known, 1, 64) or false
      routes[job_type] = known
    end
    return known
  end

  -- Why a record cannot be run: the first field that is wrong.
  local function fault(row, rest)
    if not row[1] or row[1] == '' then
      return 'field `type` is missing'
    elseif #row[1] > NAME_MAX then
      return 'field `type` has ' .. #row[1] .. ' bytes, at most ' .. NAME_MAX .. ' are allowed'
    elseif not row[2] then
      return 'field `queue` is missing'
    elseif row[3] and #row[3] > PAYLOAD_MAX then
      return 'field `payload` has ' .. #row[3] .. ' bytes, at most ' .. PAYLOAD_MAX .. ' are allowed'
    end
    if rest == NOTHING then
      return nil
    end
    local attempts, max_attempts, timeout, run_at = rest[1], rest[2], rest[3], rest[4]
    local name, value
    if attempts and (attempts == '' or find(attempts, '%D')) then
      name, value = 'attempts', attempts
    elseif max_attempts and (max_attempts == '' or find(max_attempts, '%D')) then
      name, value = 'max_attempts', max_attempts
    elseif timeout and (timeout == '' or find(timeout, '%D')) then
      name, value = 'timeout_nano', timeout
    end
    if name then
      return 'field `' .. name .. '` is `' .. sub(value, 1, 40) .. '`, must be a number from 0'
    elseif attempts and (#attempts > 15 or tonumber(attempts) > 2147483647) then
      return 'field `attempts` is `' .. sub(attempts, 1, 40) .. '`, which is no count of attempts'
    elseif run_at and not match(run_at, '^-?%d+$') then
      return 'field `run_at_nano` is `' .. sub(run_at, 1, 40) .. '`, must be a number'
    end
  end

  -- Why an id must not be run at all, whatever its record says; nil when it may.
  local function misfit(q, id, row)
    local status = row[4]
    if status == 'ready' then
      return nil
    elseif not status or status == '' then
      if not (row[1] or row[2] or row[3]) and call('EXISTS', JOB .. id) == 0 then
        return 'there is no record of it'
      end
    elseif status == 'inflight' then
      if call('ZSCORE', q.inflight, id) then
        return 'it is in flight already (its id stood twice in the queue)'
      end
    elseif status ~= 'scheduled' then
      return 'its status is `' .. sub(status, 1, NAME_MAX) .. '`, so it is not to be run'
    end
  end

  local function hand_out(q, ids)
    local leases = {}
    for _, id in ipairs(ids) do
      local job, row, rest, reason
      if id == '' then
        reason = 'its id is empty'
      elseif #id > ID_MAX then
        reason = 'its id has ' .. #id .. ' bytes, at most ' .. ID_MAX .. ' are allowed'
      elseif handed[id] then
        reason = 'it is in flight already (its id stood twice in the queue)'
      else
        job = JOB .. id
        row = try('HMGET', job, 'type', 'queue', 'payload', 'status', 'created_at_nano')
        if row.err then
          reason = 'key `' .. job .. '` is not a hash'
        else
          local n_found = 0
          for n = 1, 5 do
            if row[n] then
              n_found = n_found + 1
            end
          end
          -- Most waiting jobs have these fields and no others; asking for the rest costs as much as for these.
          rest = call('HLEN', job) == n_found and NOTHING
            or call('HMGET', job, 'attempts', 'max_attempts', 'timeout_nano', 'run_at_nano', 'deliveries',
              'content_type', 'metadata', 'pin')
          reason = misfit(q, id, row)
        end
      end
      if reason then
        set_aside(q, id, reason)
      else
        reason = fault(row, rest)
        if reason then
          dead_letter(q, id, reason, { 'error_kind', 'rejected', 'finished_at_nano', now_nano })
          report(q, id, reason, true)
        else
          local deliveries = rest[5] and whole((tonumber(rest[5]) or 0) + 1) or '1'
          local pin = rest[8]
          local digest = pin or route(row[1])
          stamp[n_stamp + 2] = deliveries
          if digest then
            stamp[n_stamp + 4] = digest
            call('HSET', job, unpack(stamp))
            keep(digest, keep_seconds)
          else
            call('HSET', job, unpack(stamp, 1, n_stamp + 2))
          end
          if rest[4] and rest[4] ~= '0' then
            call('HSET', job, 'run_at_nano', '0')
          end
          if row[2] ~= q.name then
            -- The list was renamed, or the producer pushed to another queue: the list is what counts.
            call('HSET', job, 'queue', q.name)
          end
          handed[id] = true
          local l = #leases
          leases[l + 1], leases[l + 2] = score, id
          local e = n_entries
          jobs[e + 1], jobs[e + 2], jobs[e + 3], jobs[e + 4] = q.index, id, row[1], row[3] or ''
          jobs[e + 5] = rest[1] and tonumber(rest[1]) or 0
          -- 0 is TaskHarbor's word for "not given", where a worker without a policy runs it once.
          jobs[e + 6] = rest[2] and math.max(1, capped(rest[2], ATTEMPTS_MAX)) or 0
          jobs[e + 7], jobs[e + 8] = rest[3] or '0', row[5] or '0'
          jobs[e + 9], jobs[e + 10] = deliveries, digest or ''
          jobs[e + 11], jobs[e + 12], jobs[e + 13] = rest[6] or '', rest[7] or '', pin or ''
          n_entries, n_jobs = e + 13, n_jobs + 1
        end
      end
    end
    if #leases > 0 then
      call('ZADD', q.inflight, unpack(leases))
    end
    return #leases / 2
  end

  -- Takes up to `most` from a share's queue.
  local function draw(share, most)
    local ids = try('LPOP', share.q.ready, most)
    if not ids then
      share.is_empty = true
    else
      share.is_empty = #ids < most
      taken[share.place] = taken[share.place] + hand_out(share.q, ids)
    end
  end

  for n = 1, take_number() do
    local share = { place = n, q = queues[take_number()], quota = take_number() }
    taken[n] = 0
    local reason = trouble(share.q)
    if reason then
      broken[#broken + 1], broken[#broken + 2] = share.q.index, reason
    else
      shares[#shares + 1] = share
      if is_sweep then
        reclaim(share.q)
        promote(share.q)
      end
    end
  end
  if is_sweep then
    write_ends()
    for _, q in ipairs(queues) do
      q.heads, q.tails, q.soonest = nil, nil, nil
    end
  end
  for _, share in ipairs(shares) do
    local most = math.min(share.quota, limit - n_jobs)
    if most > 0 then
      draw(share, most)
    end
  end
  for _, share in ipairs(shares) do
    if n_jobs < limit and not share.is_empty then
      draw(share, limit - n_jobs)
    end
  end
  if is_sweep then
    for _, share in ipairs(shares) do
      local due = next_due(share.q)
      if due and (not next_ms or due < next_ms) then
        next_ms = due
      end
    end
  end
  return { whole(now_ms), revision(), next_ms and whole(math.ceil(next_ms)) or '', jobs, taken, asides, broken }
end
