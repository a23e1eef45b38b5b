-- Jobs that are to be written: by a producer (enqueue.lua) or as an effect of another job (effects.lua).
-- First every job of a call is looked at, then every job is written.
--
-- ARGV of one job: index of its queue, id, type, payload, number of further fields, name and value of each. The further
-- fields are those of the job's hash (docs/keys.md): run_at_nano timeout_nano max_attempts retry_base_ms
-- retry_cap_ms idempotency_key content_type pin metadata priority limit_key supersede_key. A time or a count is digits,
-- and none begins with a 0 (a priority is one digit). An empty value means not given.
parts.jobs = function()
  local function take_job()
    local job = { q = queues[tonumber(ARGV[at + 1])], id = ARGV[at + 2], type = ARGV[at + 3], payload = ARGV[at + 4],
      n_more = 2 * tonumber(ARGV[at + 5]), first = at + 6 }
    at = at + 5 + job.n_more
    for n = job.first, at, 2 do
      if ARGV[n] == 'idempotency_key' and ARGV[n + 1] ~= '' then
        job.idempotency = PREFIX .. ':idem:' .. job.q.name .. ':' .. ARGV[n + 1]
      end
    end
    return job
  end

  -- Ids and idempotency keys that earlier jobs of this call will take.
  local planned = {}

  -- The id of the job that is there already, or nil; and why it cannot be told. `is_free`: the row is known not to be.
  local function existing(job, row, is_free)
    if job.idempotency then
      local known = planned[job.idempotency] or try('GET', job.idempotency)
      if type(known) == 'table' then
        return nil, 'key `' .. job.idempotency .. '` is not a string'
      elseif known then
        return known
      end
    end
    if planned[row] or not is_free and call('EXISTS', row) == 1 then
      return job.id
    end
    planned[row] = true
    if job.idempotency then
      planned[job.idempotency] = job.id
    end
  end

  local function is_later(seconds, nanos)
    local difference = tonumber(seconds) - tonumber(now_s)
    return difference > 0 or difference == 0 and nanos > now_n
  end

  -- Why a queue takes no `n` further jobs, or nil. Asked before anything is written: a full queue that drops its oldest
  -- jobs has room, as far as `ready` has jobs to drop.
  local function full(q, n)
    local set = settings(q)
    if not set.capacity then
      return nil
    end
    local reason = trouble(q)
    if reason then
      return reason
    end
    local waiting = 0
    for _, list in ipairs({ q.ready, prio_list(q, 0), prio_list(q, 1), prio_list(q, 2), prio_list(q, 3), prio_list(q, 4),
      prio_list(q, 5), prio_list(q, 6), prio_list(q, 7), prio_list(q, 8), prio_list(q, 9) }) do
      local length = try('LLEN', list)
      waiting = waiting + (type(length) == 'number' and length or 0)
    end
    waiting = waiting + call('ZCARD', q.scheduled) + math.max(0, tonumber(try('HGET', q.counters, 'parked') or 0) or 0)
    q.n_over = waiting + n - set.capacity
    if q.n_over > 0 and (set.on_full ~= 'drop_oldest' or n > set.capacity or q.n_over > call('LLEN', q.ready)) then
      return 'queue `' .. q.name .. '` is full: ' .. whole(waiting) .. ' jobs wait, ' .. whole(set.capacity) .. ' may'
    end
  end

  -- Makes the room that `full` has promised.
  local function make_room(q)
    if not q.n_over or q.n_over <= 0 then
      return
    end
    for _, id in ipairs(call('LPOP', q.ready, q.n_over) or {}) do
      local status = try('HGET', JOB .. id, 'status')
      if status == 'ready' or status == 'scheduled' then
        part('withdraw')(q, id, 'dropped', {}, 'dropped: its queue was full and it was the oldest')
      end
    end
    count(q, 'dropped', q.n_over)
    q.n_over = 0
  end

  -- The newest job of a key stands for all before it that still wait.
  local function supersede(q, key, id)
    local latest = PREFIX .. ':latest:' .. q.name .. ':' .. key
    local old = try('GET', latest)
    if type(old) == 'string' and old ~= id then
      local found = try('HMGET', JOB .. old, 'status', 'queue', 'run_at_nano', 'limit_key', 'priority')
      if (found[1] == 'ready' or found[1] == 'scheduled') and found[2] == q.name then
        part('withdraw')(q, old, found[1], { run_at_nano = found[3], limit_key = found[4], priority = found[5] },
          'superseded by job `' .. id .. '` of the same key')
      end
    end
    call('SET', latest, id, 'EX', IDEMPOTENCY_DAYS * 86400)
  end

  local function write_job(job, row)
    local q, id = job.q, job.id
    if job.n_more == 0 then
      call('HSET', row, 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready',
        'created_at_nano', now_nano)
      return to_tail(q, id)
    end
    local fields = { 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready', 'created_at_nano', now_nano }
    local n, run_s, run_n, pin, priority = 10, nil, nil, nil, nil
    for m = job.first, job.first + job.n_more - 1, 2 do
      local name, value = ARGV[m], ARGV[m + 1]
      if value ~= '' then
        if name == 'run_at_nano' then
          run_s, run_n = sub(value, 1, -10), sub(value, -9)
          if #value < 10 or not is_later(run_s, run_n) then
            run_s, value = nil, nil
          end
        elseif name == 'pin' then
          pin = value
        elseif name == 'priority' then
          priority = value
        elseif name == 'supersede_key' then
          supersede(q, value, id)
        end
        if value then
          fields[n + 1], fields[n + 2] = name, value
          n = n + 2
        end
      end
    end
    if run_s then
      fields[8] = 'scheduled'
    end
    call('HSET', row, unpack(fields, 1, n))
    if job.idempotency then
      call('SET', job.idempotency, id, 'EX', IDEMPOTENCY_DAYS * 86400)
    end
    if run_s then
      to_schedule(q, id, run_s, run_n)
    else
      to_tail(q, id, priority)
    end
    if pin then
      keep(pin, math.max(tonumber(now_s), tonumber(run_s) or 0) + DLQ_DAYS * 86400)
    end
  end

  return { take = take_job, existing = existing, full = full, make_room = make_room, write = write_job }
end
