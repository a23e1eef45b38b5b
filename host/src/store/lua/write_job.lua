-- Jobs that are to be written: by a producer (enqueue.lua) or as an effect of another job (effects.lua).
-- First every job of a call is looked at, then every job is written.
--
-- ARGV of one job: index of its queue, id, type, payload, content type, run at (seconds, nanoseconds; both empty for
-- now), timeout in nanoseconds, max attempts, idempotency key, pinned digest, metadata. Empty means not given.

local function take_job()
  return {
    q = queues[take_number()], id = take(), type = take(), payload = take(), content_type = take(),
    run_s = take(), run_n = take(), timeout = take(), max = take(), key = take(), pin = take(), metadata = take(),
  }
end

-- Ids and idempotency keys that earlier jobs of this call will take.
local planned = {}

-- The id of the job that is there already, or nil; and why it cannot be told.
local function existing(job)
  if job.key ~= '' then
    job.idempotency = PREFIX .. ':idem:' .. job.q.name .. ':' .. job.key
    local known = planned[job.idempotency] or try('GET', job.idempotency)
    if type(known) == 'table' then
      return nil, 'key `' .. job.idempotency .. '` is not a string'
    elseif known then
      return known
    end
  end
  local row = JOB .. job.id
  if planned[row] or call('EXISTS', row) == 1 then
    return job.id
  end
  planned[row] = true
  if job.idempotency then
    planned[job.idempotency] = job.id
  end
end

local function write_job(job)
  local q = job.q
  local is_later = job.run_s ~= '' and (tonumber(job.run_s) > tonumber(now_s)
    or (tonumber(job.run_s) == tonumber(now_s) and job.run_n > now_n))
  local fields = { 'type', job.type, 'queue', q.name, 'payload', job.payload,
    'status', is_later and 'scheduled' or 'ready', 'created_at_nano', now_nano }
  local n = #fields
  local function add(name, value)
    if value ~= '' then
      fields[n + 1], fields[n + 2] = name, value
      n = n + 2
    end
  end
  add('run_at_nano', is_later and job.run_s .. job.run_n or '')
  add('timeout_nano', job.timeout)
  add('max_attempts', job.max)
  add('idempotency_key', job.key)
  add('content_type', job.content_type)
  add('pin', job.pin)
  add('metadata', job.metadata)
  call('HSET', JOB .. job.id, unpack(fields))
  if job.idempotency then
    call('SET', job.idempotency, job.id, 'EX', IDEMPOTENCY_DAYS * 86400)
  end
  if is_later then
    to_schedule(q, job.id, job.run_s, job.run_n)
  else
    to_tail(q, job.id)
  end
  if job.pin ~= '' then
    local start = math.max(tonumber(now_s), tonumber(job.run_s) or 0)
    keep(job.pin, start + DLQ_DAYS * 86400)
  end
end
