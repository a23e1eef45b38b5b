-- Takes a batch of jobs under a lease. Part of turn.lua: it runs after the settle.
--
-- Every queue gives up to its quota; what is left over is filled in the order of the queues. A queue whose lists give
-- less than they are asked for makes up for it with scheduled jobs that are due, so these come back as fast as they can
-- be run, and no faster (64 a call), and after them with what other systems have pushed for it (direct.lua); what a sweep
-- does is only for queues that always have ready jobs. A record that
-- cannot be run goes to the DLQ with a reason that names the field, or is set aside when it is not ours to change; it
-- never stops the batch, and no hash is made for an id that has none.
--
-- ARGV     1 when a reserve is wanted else 0; then: limit, lease in milliseconds, token, node or empty, 1 to bring back
--          what is due first else 0, number of queues to ask, and for each: index of the queue, quota
-- Returns  now in milliseconds, revision, next due in milliseconds or empty, kinds (3 entries each: queue index, type,
--          digest or empty), jobs (5 entries each: kind, id, payload, created at, extra or 0), extras (8 entries each:
--          attempts, max attempts, timeout in nanoseconds, deliveries, content type, metadata, first and longest delay
--          of retries in milliseconds; without one they are 0, not given, not given, 1, empty, empty, not given twice), jobs per queue, set aside (4 entries each), broken queues (index
--          and reason), closed queues (index, and why nothing is taken: paused or full), 1 when more may be waiting,
--          what came of lists of other systems (index of the queue; 0 left to others, 1 empty now, 2 there may be more)

parts.reserve = function()
  -- How often one list is asked again in a call, because what it gave could not be handed out.
  local DRAWS_MAX = 6
  -- Scheduled jobs that one call makes ready. One that settles and hands out as many as it may besides is the longest
  -- script there is.
  local PROMOTE_MAX = 64

  -- Jobs of one queue, type and code are of one kind: what they share is said once. Returns its place, and the digest.
  local function kind_of_job(r, q, job_type, pin)
    local name = q.index .. ' ' .. job_type .. '\n' .. pin
    local kinds, place = r.kinds, r.kind_of[name]
    if not place then
      local digest = pin
      if pin == '' then
        local known = try('HGET', ROUTE, job_type)
        digest = type(known) == 'string' and sub(known, 1, 64) or ''
      end
      place = #kinds / 3 + 1
      kinds[#kinds + 1], kinds[#kinds + 2], kinds[#kinds + 3] = q.index, job_type, digest
      r.kind_of[name] = place
      keep(digest, r.keep_seconds)
    end
    return place, kinds[place * 3]
  end

  -- Whether a record has the fields of a fresh job of ours, in the order in which they are written, and no others but
  -- a limit key.
  local function is_plain(q, row)
    return row[8] == 'ready' and row[4] == q.name and row[1] == 'type' and row[3] == 'queue' and row[5] == 'payload'
      and row[7] == 'status' and row[9] == 'created_at_nano' and (not row[11] or row[11] == 'limit_key' and not row[13])
      and row[2] ~= '' and #row[2] <= NAME_MAX and #row[6] <= PAYLOAD_MAX
  end

  -- Leases such a record. Returns how it is told to the host.
  local function lease_plain(r, q, id, row)
    if row[2] ~= r.last_type or q ~= r.last_queue then
      r.last_queue, r.last_type = q, row[2]
      r.last_place, r.last_digest = kind_of_job(r, q, row[2], '')
    end
    if r.last_digest == '' then
      call('HSET', JOB .. id, 'status', 'inflight', 'lease_token', r.token, 'lease_expires_at_nano', r.expires,
        'node', r.node, 'deliveries', '1')
    else
      call('HSET', JOB .. id, 'status', 'inflight', 'lease_token', r.token, 'lease_expires_at_nano', r.expires,
        'node', r.node, 'deliveries', '1', 'digest', r.last_digest)
    end
    return r.last_place, row[6], row[10], 0
  end

  -- Jobs whose keys are limited: their ids, keys and rows, and which rows were checked field by field.
  local function new_waiting()
    return { n = 0, ids = {}, keys = {}, rows = {}, is_checked = {} }
  end

  -- Leases what can be run of a queue's ids. Returns how many that were.
  local function hand_out(r, q, ids)
    local jobs, handed, score = r.jobs, r.handed, r.score
    local leases, n_leases, n, waiting = {}, 0, #jobs, nil
    for i = 1, #ids do
      local id = ids[i]
      local row = id ~= '' and #id <= ID_MAX and not handed[id] and try('HGETALL', JOB .. id) or NOTHING
      local place, payload, created_at, extra
      if not is_plain(q, row) then
        waiting = waiting or new_waiting()
        place, payload, created_at, extra = part('checked').hand_out(r, q, id, row, waiting)
      elseif row[11] and q.is_limited ~= false and row[12] ~= '' and (q.is_limited or part('limits').has_key_limits(q)) then
        waiting = waiting or new_waiting()
        local w = waiting.n + 1
        waiting.n, waiting.ids[w], waiting.keys[w], waiting.rows[w], handed[id] = w, id, row[12], row, true
      else
        place, payload, created_at, extra = lease_plain(r, q, id, row)
      end
      if place then
        handed[id] = true
        leases[n_leases + 1], leases[n_leases + 2] = score, id
        n_leases = n_leases + 2
        jobs[n + 1], jobs[n + 2], jobs[n + 3], jobs[n + 4], jobs[n + 5] = place, id, payload, created_at, extra
        n = n + 5
      end
    end
    local n_waiting = waiting and waiting.n or 0
    local may_run = n_waiting > 0 and part('limits').admit(q, waiting)
    for w = 1, n_waiting do
      if may_run[w] then
        local id, row = waiting.ids[w], waiting.rows[w]
        leases[n_leases + 1], leases[n_leases + 2] = score, id
        n_leases = n_leases + 2
        jobs[n + 2] = id
        if waiting.is_checked[w] then
          jobs[n + 1], jobs[n + 3], jobs[n + 4], jobs[n + 5] = part('checked').lease(r, q, id, row)
        else
          jobs[n + 1], jobs[n + 3], jobs[n + 4], jobs[n + 5] = lease_plain(r, q, id, row)
        end
        n = n + 5
      end
    end
    r.n_jobs = r.n_jobs + n_leases / 2
    if n_leases > 0 then
      call('ZADD', q.inflight, unpack(leases))
    end
    return n_leases / 2
  end

  -- The lists of a queue in the order in which they are served.
  local function lists_of(q)
    local used = settings(q).priorities
    if not used then
      return { q.ready }
    end
    local lists = {}
    for priority = 9, 0, -1 do
      if find(used, priority, 1, true) then
        lists[#lists + 1] = prio_list(q, priority)
      end
    end
    lists[#lists + 1] = q.ready
    return lists
  end

  -- Takes up to `most` from the lists of a share's queue. Returns how many more it may take.
  local function draw_ready(r, share, most)
    local q, n_draws = share.q, DRAWS_MAX
    most = math.min(most, share.room)
    share.is_empty = share.room > 0
    for _, list in ipairs(share.lists) do
      while most > 0 and n_draws > 0 do
        -- The first pop of a reserve is told when the server takes no writes, as a replica does: nothing is written yet.
        -- A list of a priority may be of any type; `ready` was looked at.
        local pop = r.n_jobs == 0 and list == q.ready and call or try
        local ids = pop('LPOP', list, most)
        if not ids or ids.err then
          break
        end
        local n_taken = hand_out(r, q, ids)
        r.taken[share.place] = r.taken[share.place] + n_taken
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

  -- Takes up to `most` from a share's queue: from its lists, then of what is due, then from another system's list.
  local function draw(r, share, most)
    local left = draw_ready(r, share, most)
    if not share.is_empty then
      share.q.drawn = share.room > 0 and 2 or 0
      return
    end
    local wanted = math.min(left, r.may_promote)
    local n_due = wanted > 0 and share.q.kinds.scheduled ~= 'none' and part('due').promote(share.q, wanted) or 0
    r.may_promote = r.may_promote - n_due
    if n_due > 0 then
      write_ends()
      share.lists = lists_of(share.q)
      left = draw_ready(r, share, left)
    end
    share.is_empty = share.is_empty and n_due < wanted
    if share.q.source and share.is_empty then
      part('direct').draw(r, share, math.min(left, share.room))
    end
  end

  return function()
    local limit, lease_ms, token, node, is_sweep = take_number(), take_number(), take(), take(), take() == '1'
    local expires_ms = now_ms + lease_ms
    -- As text: a number in a call is written with 17 digits by the C library, which costs more than the call.
    local score = whole(expires_ms)
    -- What this reserve knows; checked.lua uses it, too.
    local r = { token = token, node = node, score = score, expires = score .. '000000',
      may_promote = math.min(limit, PROMOTE_MAX),
      keep_seconds = expires_ms / 1000 + 3600, n_jobs = 0, jobs = {}, extras = {}, taken = {}, handed = {}, kinds = {},
      kind_of = {}, kind_of_job = kind_of_job, last_queue = nil, last_type = nil, last_place = nil, last_digest = nil }
    local shares, broken, shut, next_ms = {}, {}, {}, nil
    for n = 1, take_number() do
      local share = { place = n, q = queues[take_number()], quota = take_number() }
      r.taken[n] = 0
      -- What is due may go to any structure.
      local reason = trouble(share.q, 'ready') or trouble(share.q, 'inflight') or trouble(share.q, 'scheduled')
        or is_sweep and trouble(share.q)
      if reason then
        broken[#broken + 1], broken[#broken + 2] = share.q.index, reason
      else
        if is_sweep then
          part('due').reclaim(share.q)
          part('due').promote(share.q)
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
      local most = math.min(share.quota, limit - r.n_jobs)
      if most > 0 then
        draw(r, share, most)
      end
    end
    for _, share in ipairs(shares) do
      if r.n_jobs < limit and not share.is_empty then
        draw(r, share, limit - r.n_jobs)
      end
    end
    local is_more, drawn = 0, {}
    for _, share in ipairs(shares) do
      if share.room == 0 then
        shut[#shut + 1], shut[#shut + 2] = share.q.index, 'full'
      elseif not share.is_empty then
        is_more = 1
      end
      local due = is_sweep and part('due').next_due(share.q)
      if due and (not next_ms or due < next_ms) then
        next_ms = due
      end
    end
    for _, q in ipairs(queues) do
      if q.source then
        drawn[#drawn + 1], drawn[#drawn + 2] = q.index, q.drawn
      end
    end
    return { whole(now_ms), revision(), next_ms and whole(math.ceil(next_ms)) or '', r.kinds, r.jobs, r.extras,
      r.taken, asides, broken, shut, is_more, drawn }
  end
end
