-- Takes a batch of jobs under a lease. Part of turn.lua: it runs after the settle.
--
-- Every queue gives up to its quota; what is left over is filled in the order of the queues. A queue whose lists give
-- less than they are asked for makes up for it with scheduled jobs that are due, so these come back as fast as they can
-- be run, and no faster; what a sweep does is only for queues that always have ready jobs. A record that cannot be
-- run goes to the DLQ with a reason that names the field, or is set aside when it is not ours to change; it never
-- stops the batch, and no hash is made for an id that has none.
--
-- ARGV     1 when a reserve is wanted else 0; then: limit, lease in milliseconds, token, node or empty, 1 to bring back
--          what is due first else 0, number of queues to ask, and for each: index of the queue, quota
-- Returns  now in milliseconds, revision, next due in milliseconds or empty, kinds (3 entries each: queue index, type,
--          digest or empty), jobs (5 entries each: kind, id, payload, created at, extra or 0), extras (8 entries each:
--          attempts, max attempts, timeout in nanoseconds, deliveries, content type, metadata, first and longest delay
--          of retries in milliseconds; without one they are 0, not given, not given, 1, empty, empty, not given twice), jobs per queue, set aside (4 entries each), broken queues (index
--          and reason), closed queues (index, and why nothing is taken: paused or full), 1 when more may be waiting

local NOTHING = {}
-- Fields that hold a count, in the order in which they are checked.
local COUNTS = { 'attempts', 'max_attempts', 'timeout_nano', 'retry_base_ms', 'retry_cap_ms' }

-- How often one list is asked again in a call, because what it gave could not be handed out.
local DRAWS_MAX = 6

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
  local shares, jobs, taken, broken, shut = {}, {}, {}, {}, {}
  local n_jobs, n_entries, next_ms = 0, 0, nil
  local handed, extras = {}, {}

  -- Jobs of one queue, type and code are of one kind: what they share is said once.
  local kinds, kind_of = {}, {}
  local function kind_of_job(q, job_type, pin)
    local name = q.index .. ' ' .. job_type .. '\n' .. pin
    local place = kind_of[name]
    if not place then
      local digest = pin
      if pin == '' then
        local known = try('HGET', ROUTE, job_type)
        digest = type(known) == 'string' and sub(known, 1, 64) or ''
      end
      place = #kinds / 3 + 1
      kinds[#kinds + 1], kinds[#kinds + 2], kinds[#kinds + 3] = q.index, job_type, digest
      kind_of[name] = place
      keep(digest, keep_seconds)
    end
    return place
  end

  -- Why a record cannot be run: the first field that is wrong.
  local function fault(row)
    if not row.type or row.type == '' then
      return 'field `type` is missing'
    elseif #row.type > NAME_MAX then
      return 'field `type` has ' .. #row.type .. ' bytes, at most ' .. NAME_MAX .. ' are allowed'
    elseif not row.queue then
      return 'field `queue` is missing'
    elseif row.payload and #row.payload > PAYLOAD_MAX then
      return 'field `payload` has ' .. #row.payload .. ' bytes, at most ' .. PAYLOAD_MAX .. ' are allowed'
    end
    for _, name in ipairs(COUNTS) do
      local value = row[name]
      if value and (value == '' or find(value, '%D')) then
        return 'field `' .. name .. '` is `' .. sub(value, 1, 40) .. '`, must be a number from 0'
      end
    end
    if row.attempts and (#row.attempts > 15 or tonumber(row.attempts) > 2147483647) then
      return 'field `attempts` is `' .. sub(row.attempts, 1, 40) .. '`, which is no count of attempts'
    elseif row.run_at_nano and not match(row.run_at_nano, '^-?%d+$') then
      return 'field `run_at_nano` is `' .. sub(row.run_at_nano, 1, 40) .. '`, must be a number'
    end
  end

  -- Why an id must not be run at all, whatever its record says; nil when it may.
  local function misfit(q, id, row)
    local status = row.status
    if status == 'ready' then
      return nil
    elseif not status or status == '' then
      if not (row.type or row.queue or row.payload) and call('EXISTS', JOB .. id) == 0 then
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

  -- Leases a record that was checked. Returns how it is told to the host.
  local function lease_checked(q, id, row)
    local deliveries = row.deliveries and whole((tonumber(row.deliveries) or 0) + 1) or '1'
    local place = kind_of_job(q, row.type, row.pin or '')
    local digest = kinds[place * 3]
    local fields = { 'status', 'inflight', 'lease_token', token, 'lease_expires_at_nano', expires, 'node', node,
      'deliveries', deliveries }
    if digest ~= '' then
      fields[11], fields[12] = 'digest', digest
    end
    if row.run_at_nano and row.run_at_nano ~= '0' then
      fields[#fields + 1], fields[#fields + 2] = 'run_at_nano', '0'
    end
    if row.limit_paid then
      fields[#fields + 1], fields[#fields + 2] = 'limit_paid', ''
    end
    if row.queue ~= q.name then
      -- The list was renamed, or the producer pushed to another queue: the list is what counts.
      fields[#fields + 1], fields[#fields + 2] = 'queue', q.name
    end
    call('HSET', JOB .. id, unpack(fields))
    local e = #extras
    extras[e + 1] = row.attempts and tonumber(row.attempts) or 0
    -- 0 is TaskHarbor's word for "not given", where a worker without a policy runs it once.
    extras[e + 2] = row.max_attempts and math.max(1, capped(row.max_attempts, ATTEMPTS_MAX)) or 0
    extras[e + 3], extras[e + 4] = row.timeout_nano or '0', deliveries
    extras[e + 5], extras[e + 6] = row.content_type or '', row.metadata or ''
    extras[e + 7], extras[e + 8] = row.retry_base_ms or '', row.retry_cap_ms or ''
    return place, row.payload or '', row.created_at_nano or '0', e / 8 + 1
  end

  -- A record with other fields than those of a fresh job of ours: checked field by field. Returns how it is told to
  -- the host, or nil when it is not handed out; jobs with a key gather in `waiting`.
  local function hand_out_checked(q, id, found, waiting)
    local row, reason = {}, nil
    if id == '' then
      reason = 'its id is empty'
    elseif #id > ID_MAX then
      reason = 'its id has ' .. #id .. ' bytes, at most ' .. ID_MAX .. ' are allowed'
    elseif handed[id] then
      reason = 'it is in flight already (its id stood twice in the queue)'
    elseif found.err then
      reason = 'key `' .. JOB .. id .. '` is not a hash'
    else
      for n = 1, #found, 2 do
        row[found[n]] = found[n + 1]
      end
      reason = misfit(q, id, row)
    end
    if reason and row.status == 'cancelled' then
      return call('EXPIRE', JOB .. id, CANCELLED_HOURS * 3600) and nil
    elseif reason then
      return set_aside(q, id, reason)
    end
    reason = fault(row)
    if reason then
      dead_letter(q, id, reason, { 'error_kind', 'rejected', 'finished_at_nano', now_nano })
      return report(q, id, reason, true)
    end
    if row.limit_key and row.limit_key ~= '' and has_key_limits(q) then
      local n = #waiting + 1
      waiting[n] = { id = id, key = row.limit_key, is_paid = row.limit_paid == '1', row = row }
      handed[id] = true
      return nil
    end
    return lease_checked(q, id, row)
  end

  -- Whether a record has the fields of a fresh job of ours, in the order in which they are written, and no others but a
  -- limit key.
  local function is_plain(q, row)
    return row[8] == 'ready' and row[4] == q.name and row[1] == 'type' and row[3] == 'queue' and row[5] == 'payload'
      and row[7] == 'status' and row[9] == 'created_at_nano' and (not row[11] or row[11] == 'limit_key' and not row[13])
      and row[2] ~= '' and #row[2] <= NAME_MAX and #row[6] <= PAYLOAD_MAX
  end

  -- Leases such a record. Returns how it is told to the host.
  local last_queue, last_type, last_place, last_digest
  local function lease_plain(q, id, row)
    if row[2] ~= last_type or q ~= last_queue then
      last_queue, last_type, last_place = q, row[2], kind_of_job(q, row[2], '')
      last_digest = kinds[last_place * 3]
    end
    if last_digest == '' then
      call('HSET', JOB .. id, 'status', 'inflight', 'lease_token', token, 'lease_expires_at_nano', expires,
        'node', node, 'deliveries', '1')
    else
      call('HSET', JOB .. id, 'status', 'inflight', 'lease_token', token, 'lease_expires_at_nano', expires,
        'node', node, 'deliveries', '1', 'digest', last_digest)
    end
    return last_place, row[6], row[10], 0
  end

  local function hand_out(q, ids)
    local leases, n_leases, n, waiting = {}, 0, n_entries, {}
    for _, id in ipairs(ids) do
      local row = id ~= '' and #id <= ID_MAX and not handed[id] and try('HGETALL', JOB .. id) or NOTHING
      local place, payload, created_at, extra
      if not is_plain(q, row) then
        place, payload, created_at, extra = hand_out_checked(q, id, row, waiting)
      elseif row[11] and row[12] ~= '' and has_key_limits(q) then
        waiting[#waiting + 1] = { id = id, key = row[12], plain = row }
        handed[id] = true
      else
        place, payload, created_at, extra = lease_plain(q, id, row)
      end
      if place then
        handed[id] = true
        leases[n_leases + 1], leases[n_leases + 2] = score, id
        n_leases = n_leases + 2
        jobs[n + 1], jobs[n + 2], jobs[n + 3], jobs[n + 4], jobs[n + 5] = place, id, payload, created_at, extra
        n = n + 5
      end
    end
    local may_run = #waiting > 0 and admit(q, waiting) or NOTHING
    for place_of, job in ipairs(waiting) do
      if may_run[place_of] then
        leases[n_leases + 1], leases[n_leases + 2] = score, job.id
        n_leases = n_leases + 2
        jobs[n + 2] = job.id
        if job.plain then
          jobs[n + 1], jobs[n + 3], jobs[n + 4], jobs[n + 5] = lease_plain(q, job.id, job.plain)
        else
          jobs[n + 1], jobs[n + 3], jobs[n + 4], jobs[n + 5] = lease_checked(q, job.id, job.row)
        end
        n = n + 5
      end
    end
    n_entries, n_jobs = n, n_jobs + n_leases / 2
    if n_leases > 0 then
      call('ZADD', q.inflight, unpack(leases))
    end
    return n_leases / 2
  end

  -- The lists of a queue in the order in which they are served.
  local function lists_of(q)
    local lists, used = {}, settings(q).priorities
    for priority = 9, used and 0 or 10, -1 do
      if find(used, priority, 1, true) then
        lists[#lists + 1] = prio_list(q, priority)
      end
    end
    lists[#lists + 1] = q.ready
    return lists
  end

  -- Takes up to `most` from the lists of a share's queue. Returns how many more it may take.
  local function draw_ready(share, most)
    local q, n_draws = share.q, DRAWS_MAX
    most = math.min(most, share.room)
    share.is_empty = share.room > 0
    for _, list in ipairs(share.lists) do
      while most > 0 and n_draws > 0 do
        -- The first pop of a reserve is told when the server takes no writes, as a replica does: nothing is written yet.
        -- A list of a priority may be of any type; `ready` was looked at.
        local pop = n_jobs == 0 and list == q.ready and call or try
        local ids = pop('LPOP', list, most)
        if not ids or ids.err then
          break
        end
        local n_taken = hand_out(q, ids)
        taken[share.place] = taken[share.place] + n_taken
        share.room = share.room - n_taken
        local was_all = #ids < most
        most = most - n_taken
        if was_all then
          break
        end
        n_draws = n_draws - 1
      end
      if most <= 0 or n_draws <= 0 then
        share.is_empty = false
        break
      end
    end
    return most
  end

  -- Takes up to `most` from a share's queue: from its lists, and then of what is due.
  local may_promote = limit
  local function draw(share, most)
    local left = draw_ready(share, most)
    if not share.is_empty then
      return
    end
    local wanted = math.min(left, may_promote)
    local n_due = wanted > 0 and promote(share.q, wanted) or 0
    may_promote = may_promote - n_due
    if n_due > 0 then
      write_ends()
      share.lists = lists_of(share.q)
      draw_ready(share, left)
    end
    share.is_empty = share.is_empty and n_due < wanted
  end

  for n = 1, take_number() do
    local share = { place = n, q = queues[take_number()], quota = take_number() }
    taken[n] = 0
    local reason = trouble(share.q)
    if reason then
      broken[#broken + 1], broken[#broken + 2] = share.q.index, reason
    else
      if is_sweep then
        reclaim(share.q)
        promote(share.q)
      end
      local most, why = settings(share.q).concurrency, closed(share.q)
      if why then
        shut[#shut + 1], shut[#shut + 2] = share.q.index, why
      else
        share.room = most and most - call('ZCARD', share.q.inflight) or math.huge
        share.lists = lists_of(share.q)
        shares[#shares + 1] = share
      end
    end
  end
  if is_sweep then
    write_ends()
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
  local is_more = 0
  for _, share in ipairs(shares) do
    if share.room == 0 then
      shut[#shut + 1], shut[#shut + 2] = share.q.index, 'full'
    elseif not share.is_empty then
      is_more = 1
    end
    local due = is_sweep and next_due(share.q)
    if due and (not next_ms or due < next_ms) then
      next_ms = due
    end
  end
  return { whole(now_ms), revision(), next_ms and whole(math.ceil(next_ms)) or '', kinds, jobs, extras,
    taken, asides, broken, shut, is_more }
end
