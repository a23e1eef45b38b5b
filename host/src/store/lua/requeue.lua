-- Brings dead jobs back.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, run at (seconds, nanoseconds; both empty: at once), 1 to forget failed attempts else 0,
--          how many entries of an id to remove (0 for all), number of ids (at most 500), the ids
-- Returns  for each: 1 done, else why not (of_dead.lua)

local q, who, run_s, run_n, is_reset, n_entries = queues[1], take(), take(), take(), take() == '1', take()
local is_later = run_s ~= '' and (tonumber(run_s) > tonumber(now_s) or (tonumber(run_s) == tonumber(now_s) and run_n > now_n))

local function requeue(id)
  local refused, priority = refusal(q, id, 'priority')
  if refused then
    return refused
  end
  call('LREM', q.dlq, n_entries, id)
  -- Its hand-outs begin anew: else one more lost worker would make it dead again.
  call('HSET', JOB .. id, 'status', is_later and 'scheduled' or 'ready', 'run_at_nano', is_later and run_s .. run_n or '0',
    'dlq_reason', '', 'dlq_failed_at_nano', '0', 'deliveries', '0', 'done_token', '', 'finished_at_nano', '0')
  if is_reset then
    call('HSET', JOB .. id, 'attempts', '0', 'last_error', '', 'failed_at_nano', '0', 'error_kind', '')
  end
  part('answer').tell(q, id, 'again', '')
  if is_later then
    to_schedule(q, id, run_s, run_n)
  else
    to_tail(q, id, priority)
  end
  return { 1 }
end

local answers, n_back, last = {}, 0, nil
for n = 1, take_number() do
  local id = take()
  answers[n] = requeue(id)
  if answers[n][1] == 1 then
    n_back, last = n_back + 1, id
  end
end
write_ends()
if n_back > 0 then
  note(who, 'requeued', 'queue ' .. q.name, n_back, n_back == 1 and sub(last, 1, NAME_MAX) or '')
end
return answers
