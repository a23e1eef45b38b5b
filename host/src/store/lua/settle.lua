-- Ends a batch of attempts. Part of turn.lua: it runs before the reserve.
--
-- Three passes: look at everything (fence, effects), free everything (one ZREM a queue), write everything. So a full
-- Redis still drains, and a batch with a bad member ends the others. The passes read ARGV by place and make no table
-- per job: this is where most of Redis's time per job would go.
--
-- ARGV     number of groups, then each: index of the queue, token, code, digest that ran or empty, life of the rows in
--          seconds (of code D), number of settles, then each settle, by code
--            D (done)     id, result, usage or empty, further
--            R (retry)    id, attempts, error, kind, delay in milliseconds, further
--            F (dlq)      id, attempts, error, kind, reason, further
--            L (release)  id, further
--          further: empty, or a number of fields, name and value of each, effects (effects.lua)
-- Returns  for each settle: 0 applied, 1 repeated, 2 not in flight, 3 expired, 4 another holder, 5 what it has read has
--          changed (nothing of it was written, and the job waits again), or a text: refused

-- The ends that are not `done`.
parts.ends = function()
  -- Fields of a row whose attempt has ended, and those that are the caller's own.
  local function write_end(row, first, last, ...)
    call('HSET', row, 'lease_token', '', 'lease_expires_at_nano', '0', ...)
    if first and first <= last then
      call('HSET', row, unpack(ARGV, first, last))
    end
  end

  local function end_retry(q, id, place, token, digest, first, last)
    local delay = tonumber(ARGV[place + 5])
    local status, run_at = 'ready', '0'
    if delay > 0 then
      -- Whole milliseconds, so the last six digits are those of now.
      local due_ms = now_ms + delay
      local seconds = whole(math.floor(due_ms / 1000))
      local nanos = fmt('%03d', due_ms % 1000) .. sub(now_n, 4)
      status, run_at = 'scheduled', seconds .. nanos
      to_schedule(q, id, seconds, nanos)
      keep(digest, due_ms / 1000 + 3600)
    else
      to_tail(q, id, call('HGET', JOB .. id, 'priority'))
      keep(digest, tonumber(now_s) + 3600)
    end
    write_end(JOB .. id, first, last, 'status', status, 'run_at_nano', run_at, 'attempts', ARGV[place + 2],
      'last_error', ARGV[place + 3], 'error_kind', ARGV[place + 4], 'failed_at_nano', now_nano, 'done_token', token)
    q.n_retried = (q.n_retried or 0) + 1
  end

  local function end_dead(q, id, place, token, digest, first, last)
    local fields = { 'attempts', ARGV[place + 2], 'last_error', ARGV[place + 3], 'error_kind', ARGV[place + 4],
      'failed_at_nano', now_nano, 'done_token', token, 'finished_at_nano', now_nano }
    for n = first or 1, last or 0 do
      fields[#fields + 1] = ARGV[n]
    end
    part('dead').letter(q, id, ARGV[place + 5], fields)
    keep(digest, tonumber(now_s) + DLQ_DAYS * 86400)
  end

  -- Hand-outs without one that does not count.
  local function without_this(found)
    local deliveries = tonumber(found or 0) or 0
    return whole(math.max(0, deliveries - 1))
  end

  local function end_release(q, id, _, token, _, first, last)
    local row = JOB .. id
    local found = call('HMGET', row, 'deliveries', 'priority')
    write_end(row, first, last, 'status', 'ready', 'done_token', token, 'deliveries', without_this(found[1]))
    to_head(q, id, found[2])
  end

  -- Its state changed under it: it runs again, at once for the first times, then after pauses that double. The token
  -- decides where in the pause, because chance begins anew with each script.
  local CONFLICTS_AT_ONCE, PAUSE_MS, PAUSE_MS_MAX = 8, 5, 1000
  local function end_conflict(q, id, token, digest)
    local row = JOB .. id
    local found = call('HMGET', row, 'deliveries', 'priority', 'conflicts')
    local n = (tonumber(found[3] or 0) or 0) + 1
    local status, run_at = 'ready', '0'
    if n <= CONFLICTS_AT_ONCE then
      to_head(q, id, found[2])
    else
      local pause = math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ^ math.min(n - CONFLICTS_AT_ONCE, 10))
      local share = (tonumber(sub(redis.sha1hex(token .. id), 1, 4), 16) or 0) / 65536
      local due_ms = now_ms + math.max(1, math.floor(pause * share))
      local seconds, nanos = whole(math.floor(due_ms / 1000)), fmt('%03d', due_ms % 1000) .. sub(now_n, 4)
      status, run_at = 'scheduled', seconds .. nanos
      to_schedule(q, id, seconds, nanos)
      if settings(q).key_order ~= 'strict' then
        q.gone = q.gone or {}
        q.gone[#q.gone + 1] = id
      end
    end
    keep(digest, tonumber(now_s) + 3600)
    write_end(row, nil, nil, 'status', status, 'run_at_nano', run_at, 'done_token', token, 'deliveries',
      without_this(found[1]), 'conflicts', whole(n))
  end

  return { R = end_retry, F = end_dead, L = end_release, conflict = end_conflict }
end

parts.settle = function()
  local SETTLE_ARGS = { D = 4, R = 6, F = 6, L = 2 }

  local function end_done(q, id, place, token, ttl, first, last)
    local row, result, usage = JOB .. id, ARGV[place + 2], ARGV[place + 3]
    if usage == '' then
      call('HSET', row, 'status', 'done', 'lease_token', '', 'lease_expires_at_nano', '0', 'done_token', token,
        'finished_at_nano', now_nano, 'result', result)
    else
      call('HSET', row, 'status', 'done', 'lease_token', '', 'lease_expires_at_nano', '0', 'done_token', token,
        'finished_at_nano', now_nano, 'result', result, 'usage', usage)
    end
    if first and first <= last then
      call('HSET', row, unpack(ARGV, first, last))
    end
    call('EXPIRE', row, ttl)
    local n = q.n_finished + 1
    q.finished[n], q.n_finished = id, n
  end

  return function(n_groups)
    local answers, n_answers, accepted = {}, 0, {}
    -- By the number of a settle: its further fields (first and last place) and effects, where it has any.
    local firsts, lasts, stops, effects = {}, {}, {}, {}
    local start = at
    for _ = 1, n_groups do
      local q, token, code, n_settles = queues[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 6])
      at = at + 6
      local is_done, n_args = code == 'D', SETTLE_ARGS[code]
      local broken
      if is_done then
        broken = trouble(q, 'inflight') or trouble(q, 'done')
      else
        broken = trouble(q)
      end
      local is_careful = token == '' or not broken and has_ended_leases(q)
      if not q.free then
        q.free, q.n_free = {}, 0
      end
      local free, n_free = q.free, q.n_free
      for n = n_answers + 1, n_answers + n_settles do
        local id, further = ARGV[at + 1], ARGV[at + n_args]
        at = at + n_args
        if further ~= '' then
          firsts[n], lasts[n] = at + 1, at + 2 * tonumber(further)
          at = lasts[n]
          effects[n] = part('effects').take()
          stops[n] = at
        end
        local row = JOB .. id
        -- A job that stands twice in one batch is ended once.
        local answer = accepted[row] == token and REPEATED or broken
        if not answer and (is_careful or try('HGET', row, 'lease_token') ~= token) then
          answer = lost(q, row, id, token, is_done)
        end
        answer = answer or effects[n] and part('effects').obstacle(effects[n])
        if answer == CONFLICT then
          answer = trouble(q) or CONFLICT
        end
        if answer and answer ~= CONFLICT then
          answers[n] = answer
        else
          answers[n], accepted[row] = answer or 0, token
          n_free = n_free + 1
          free[n_free] = id
        end
      end
      q.n_free, n_answers = n_free, n_answers + n_settles
    end
    for _, q in ipairs(queues) do
      if q.n_free and q.n_free > 0 then
        call('ZREM', q.inflight, unpack(q.free))
        -- A queue at its limit has room again: hosts that hold back look again.
        local most = settings(q).concurrency
        q.is_to_wake = most and call('ZCARD', q.inflight) + q.n_free >= most or q.is_to_wake
      end
    end
    local stop = at
    at = start
    local n = 0
    for _ = 1, n_groups do
      local q, token, code, digest = queues[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
      local ttl, n_settles, n_args = ARGV[at + 5], tonumber(ARGV[at + 6]), SETTLE_ARGS[code]
      at = at + 6
      if code == 'D' then
        q.finished, q.n_finished = q.finished or {}, q.n_finished or 0
        q.ttl = math.max(q.ttl or 0, tonumber(ttl))
        keep(digest, tonumber(now_s) + tonumber(ttl))
      end
      -- Of a queue of another system's jobs (answer.lua), which has a `-` in its name.
      local is_told = code == 'D' and find(q.name, '-', 1, true) and part('answer').of(q)
      -- What goes back to the head keeps its slot; so does a retry where the order of a key is strict.
      local is_leaving = code == 'F' or code == 'R' and settings(q).key_order ~= 'strict'
      for _ = 1, n_settles do
        n = n + 1
        local place = at
        at = place + n_args
        if firsts[n] then
          at = stops[n]
        end
        if answers[n] == CONFLICT then
          part('ends').conflict(q, ARGV[place + 1], token, digest)
        elseif answers[n] == 0 then
          local id = ARGV[place + 1]
          if code == 'D' then
            end_done(q, id, place, token, ttl, firsts[n], lasts[n])
            if is_told then
              part('answer').tell(q, id, 'done', ARGV[place + 2])
            end
          else
            if is_leaving then
              q.gone = q.gone or {}
              q.gone[#q.gone + 1] = id
            end
            part('ends')[code](q, id, place, token, digest, firsts[n], lasts[n])
          end
          if effects[n] then
            part('effects').apply(effects[n])
          end
        end
      end
    end
    at = stop
    for _, q in ipairs(queues) do
      if q.finished and q.n_finished > 0 then
        if call('RPUSH', q.done, unpack(q.finished)) > DONE_MAX then
          call('LTRIM', q.done, -DONE_MAX, '-1')
        end
        call('EXPIRE', q.done, whole(q.ttl))
        count(q, 'done', q.n_finished)
        tell_ended(q.finished, q.n_finished)
        release_slots(q, q.finished)
      end
      count(q, 'retried', q.n_retried or 0)
      release_slots(q, q.gone or NOTHING)
    end
    return answers
  end
end
