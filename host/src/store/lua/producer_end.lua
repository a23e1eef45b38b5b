-- Answers as the contract of producer.lua says: every job, and not only those that were there already.
--
-- Returns  for each job its id and 1; or, when it was there already, the id of the first one and 0

if enqueued.err then
  return enqueued
end
local told = {}
for n = 1, n_jobs do
  told[2 * n - 1], told[2 * n] = given_ids[n], 1
end
for n = 1, #enqueued, 2 do
  told[2 * enqueued[n] - 1], told[2 * enqueued[n]] = enqueued[n + 1], 0
end
return told
