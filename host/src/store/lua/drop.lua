-- Removes dead jobs for good: the entry in the DLQ, the row, and the idempotency key.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: who, how many entries of an id to remove (0 for all), number of ids (at most 500), the ids
-- Returns  for each: 1 done, else why not (of_dead.lua)

local q, who, n_entries = queues[1], take(), take()

local function drop(id)
  local refused, idempotency_key = refusal(q, id, 'idempotency_key')
  if refused then
    return refused
  end
  call('LREM', q.dlq, n_entries, id)
  forget(q, id, idempotency_key)
  return { 1 }
end

local answers, n_gone, last = {}, 0, nil
for n = 1, take_number() do
  local id = take()
  answers[n] = drop(id)
  if answers[n][1] == 1 then
    n_gone, last = n_gone + 1, id
  end
end
count(q, 'purged', n_gone)
if n_gone > 0 then
  note(who, 'dropped', 'queue ' .. q.name, n_gone, n_gone == 1 and sub(last, 1, NAME_MAX) or '')
end
return answers
