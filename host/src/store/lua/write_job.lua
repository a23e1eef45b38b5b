-- Jobs that are to be written: by a producer (enqueue.lua) or as an effect of another job (effects.lua).
-- First every job of a call is looked at, then every job is written.
--
-- ARGV of one job: index of its queue, id, type, payload, number of further fields, name and value of each. The further
-- fields are those of the job's hash (docs/keys.md): run_at_nano timeout_nano max_attempts idempotency_key content_type
-- pin metadata. A time or a count is digits, and none begins with a 0. An empty value means not given.

local function take_job()
  local job = { q = queues[tonumber(ARGV[at + 1])], id = ARGV[at + 2], type = ARGV[at + 3], payload = ARGV[at + 4] }
  job.n_more = 2 * tonumber(ARGV[at + 5])
  job.first = at + 6
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

-- The id of the job that is there already, or nil; and why it cannot be told. `is_free`: no row of this id is there.
local function existing(job, is_free)
  if job.idempotency then
    local known = planned[job.idempotency] or try('GET', job.idempotency)
    if type(known) == 'table' then
      return nil, 'key `' .. job.idempotency .. '` is not a string'
    elseif known then
      return known
    end
  end
  local row = JOB .. job.id
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

local function write_job(job)
  local q, id = job.q, job.id
  if job.n_more == 0 then
    call('HSET', JOB .. id, 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready',
      'created_at_nano', now_nano)
    return to_tail(q, id)
  end
  local fields = { 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready', 'created_at_nano', now_nano }
  local n, run_s, run_n, pin = 10, nil, nil, nil
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
  call('HSET', JOB .. id, unpack(fields, 1, n))
  if job.idempotency then
    call('SET', job.idempotency, id, 'EX', IDEMPOTENCY_DAYS * 86400)
  end
  if run_s then
    to_schedule(q, id, run_s, run_n)
  else
    to_tail(q, id)
  end
  if pin then
    keep(pin, math.max(tonumber(now_s), tonumber(run_s) or 0) + DLQ_DAYS * 86400)
  end
end
