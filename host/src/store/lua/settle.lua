-- Ends a batch of attempts. Part of turn.lua: it runs before the reserve.
--
-- Three passes: look at everything (fence, effects), free everything (one ZREM a queue), write everything. So a full
-- Redis still drains, and a batch with a bad member ends the others.
--
-- ARGV     number of settles, then each: index of the queue, id, token, code, and by code
--            D (done)     result, seconds the row lives
--            R (retry)    attempts, error, kind, delay in milliseconds
--            F (dlq)      attempts, error, kind, reason
--            L (release)  nothing
--          then: number of further fields, name and value of each, digest that ran or empty, effects
-- Returns  for each settle: 0 applied, 1 repeated, 2 not in flight, 3 expired, 4 another holder, or a text: refused

local function settle()
  local list, answers = {}, {}
  local ended = {}
  for n = 1, take_number() do
    local s = { q = queues[take_number()], id = take(), token = take(), code = take() }
    if s.code == 'D' then
      s.result, s.ttl = take(), take()
    elseif s.code ~= 'L' then
      s.attempts, s.error, s.kind, s.last = take(), take(), take(), take()
    end
    local fields = take_number() * 2
    s.first, s.final = at + 1, at + fields
    at = at + fields
    s.digest = take()
    s.effects = take_effects()
    -- A job that stands twice in one batch is ended once.
    s.row = JOB .. s.id
    local answer = ended[s.id] == s.token and REPEATED or fence(s.row, s.token, s.code == 'D')
      or trouble(s.q) or obstacle(s.effects)
    if answer then
      answers[n] = answer
    else
      answers[n] = 0
      ended[s.id] = s.token
      list[#list + 1] = s
      local free = s.q.free or {}
      free[#free + 1] = s.id
      s.q.free = free
    end
  end
  for _, q in ipairs(queues) do
    if q.free then
      call('ZREM', q.inflight, unpack(q.free))
    end
  end
  for _, s in ipairs(list) do
    local q, id, row = s.q, s.id, s.row
    if s.code == 'D' then
      call('HSET', row, 'status', 'done', 'lease_token', '', 'lease_expires_at_nano', '0', 'done_token', s.token,
        'finished_at_nano', now_nano, 'result', s.result, unpack(ARGV, s.first, s.final))
      call('EXPIRE', row, s.ttl)
      local done = q.finished or {}
      done[#done + 1] = id
      q.finished = done
      local seconds = tonumber(s.ttl)
      if seconds > (q.ttl or 0) then
        q.ttl = seconds
      end
      keep(s.digest, tonumber(now_s) + seconds)
    elseif s.code == 'R' then
      local delay = tonumber(s.last)
      local status, run_at = 'ready', '0'
      if delay > 0 then
        -- Whole milliseconds, so the last six digits are those of now.
        local due_ms = now_ms + delay
        local seconds = whole(math.floor(due_ms / 1000))
        local nanos = fmt('%03d', due_ms % 1000) .. sub(now_n, 4)
        status, run_at = 'scheduled', seconds .. nanos
        to_schedule(q, id, seconds, nanos)
        keep(s.digest, due_ms / 1000 + 3600)
      else
        to_tail(q, id)
        keep(s.digest, tonumber(now_s) + 3600)
      end
      call('HSET', row, 'status', status, 'lease_token', '', 'lease_expires_at_nano', '0', 'run_at_nano', run_at,
        'attempts', s.attempts, 'last_error', s.error, 'error_kind', s.kind, 'failed_at_nano', now_nano,
        'done_token', s.token, unpack(ARGV, s.first, s.final))
      q.retried = (q.retried or 0) + 1
    elseif s.code == 'F' then
      local fields = { 'attempts', s.attempts, 'last_error', s.error, 'error_kind', s.kind,
        'failed_at_nano', now_nano, 'done_token', s.token, 'finished_at_nano', now_nano }
      for n = s.first, s.final do
        fields[#fields + 1] = ARGV[n]
      end
      dead_letter(q, id, s.last, fields)
      keep(s.digest, tonumber(now_s) + DLQ_DAYS * 86400)
    else
      local deliveries = tonumber(call('HGET', row, 'deliveries') or 0) or 0
      call('HSET', row, 'status', 'ready', 'lease_token', '', 'lease_expires_at_nano', '0', 'done_token', s.token,
        'deliveries', whole(math.max(0, deliveries - 1)), unpack(ARGV, s.first, s.final))
      to_head(q, id)
    end
    apply(s.effects)
  end
  for _, q in ipairs(queues) do
    if q.finished then
      call('RPUSH', q.done, unpack(q.finished))
      call('LTRIM', q.done, -DONE_MAX, -1)
      call('EXPIRE', q.done, whole(q.ttl))
      count(q, 'done', #q.finished)
    end
    count(q, 'retried', q.retried or 0)
  end
  return answers
end
