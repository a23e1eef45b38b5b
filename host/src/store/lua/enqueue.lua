-- Enqueues a batch of jobs, all or none.
--
-- A job whose idempotency key is known, or whose id is there already, is not written; its answer names the one that
-- is. A full Redis refuses the first write, so nothing is left half done.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: number of jobs, and each job as write_job.lua says
-- Returns  for each job: id, 1 when this call wrote it else 0

local jobs, answers = {}, {}
for n = 1, take_number() do
  local job = take_job()
  local reason = trouble(job.q)
  if not reason then
    job.known, reason = existing(job)
  end
  if reason then
    return redis.error_reply('REFUSED ' .. reason)
  end
  jobs[n] = job
end
local seen = {}
for n, job in ipairs(jobs) do
  if not job.known then
    write_job(job)
    if not seen[job.q] then
      seen[job.q] = true
      try('SADD', QUEUES, job.q.name)
    end
  end
  answers[2 * n - 1], answers[2 * n] = job.known or job.id, job.known and 0 or 1
end
write_ends()
write_keeps()
return answers
