-- Enqueues a batch of jobs, all or none.
--
-- A job whose idempotency key is known, or whose id is there already, is not written; the answer names the one that is.
-- A full Redis refuses the first write, so nothing is left half done. A full queue takes none of the batch.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: number of jobs, and each job as write_job.lua says
-- Returns  for each job that was not written: its place in the call, and the id of the one that is there

local part_jobs = part('jobs')
local take_job, existing, write_job = part_jobs.take, part_jobs.existing, part_jobs.write
local jobs, answers, rows = {}, {}, {}
local n_jobs = take_number()
for n = 1, n_jobs do
  local job = take_job()
  jobs[n], rows[n] = job, JOB .. job.id
end
-- One question for the whole batch: ids are fresh, unless the answer to an earlier call was lost.
local is_free = n_jobs > 0 and call('EXISTS', unpack(rows)) == 0
for n = 1, n_jobs do
  local job = jobs[n]
  -- A job without further fields is written to `ready` only.
  local reason = trouble(job.q, job.n_more == 0 and 'ready' or nil)
  if not reason then
    job.known, reason = existing(job, rows[n], is_free)
  end
  if reason then
    return redis.error_reply('REFUSED ' .. reason)
  end
end
local new = {}
for n = 1, n_jobs do
  local q = jobs[n].q
  new[q] = (new[q] or 0) + (jobs[n].known and 0 or 1)
end
for q, n in pairs(new) do
  local reason = n > 0 and part_jobs.full(q, n)
  if reason then
    return redis.error_reply('QUEUEFULL ' .. reason)
  end
end
for q, n in pairs(new) do
  if n > 0 then
    part_jobs.make_room(q)
    try('SADD', QUEUES, q.name)
  end
end
for n = 1, n_jobs do
  local job = jobs[n]
  if job.known then
    answers[#answers + 1], answers[#answers + 2] = n, job.known
  else
    write_job(job, rows[n])
  end
end
write_ends()
write_keeps()
return answers
