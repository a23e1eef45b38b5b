-- Removes dead jobs for good: the entry in the DLQ, the row, and the idempotency key.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: how many entries of an id to remove (0 for all), number of ids (at most 500), the ids
-- Returns  for each: 1 done, else why not (of_dead.lua)

local q, n_entries = queues[1], take()

local function drop(id)
  local refused, idempotency_key = refusal(q, id, 'idempotency_key')
  if refused then
    return refused
  end
  call('LREM', q.dlq, n_entries, id)
  forget(q, id, idempotency_key)
  return { 1 }
end

local answers, n_gone = {}, 0
for n = 1, take_number() do
  answers[n] = drop(take())
  n_gone = n_gone + (answers[n][1] == 1 and 1 or 0)
end
count(q, 'purged', n_gone)
return answers
