-- Removes dead jobs for good: the entry in the DLQ, the row, and the idempotency key.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: how many entries of an id to remove (0 for all), number of ids (at most 500), the ids
-- Returns  for each: 1 done, 0 no such job, -1 it is not dead, -2 and the name: it belongs to another queue, or a text
--          when a key is of the wrong type

local q, n_entries = queues[1], take()

local function drop(id)
  local row = try('HMGET', JOB .. id, 'status', 'queue', 'idempotency_key')
  if row.err then
    return { 'key `' .. JOB .. id .. '` is not a hash' }
  elseif not row[1] then
    return { 0 }
  elseif row[1] ~= 'dlq' then
    return { -1 }
  elseif row[2] and row[2] ~= q.name then
    return { -2, row[2] }
  end
  local reason = trouble(q)
  if reason then
    return { reason }
  end
  call('LREM', q.dlq, n_entries, id)
  forget(q, id, row[3])
  return { 1 }
end

local answers, n_gone = {}, 0
for n = 1, take_number() do
  answers[n] = drop(take())
  n_gone = n_gone + (answers[n][1] == 1 and 1 or 0)
end
count(q, 'purged', n_gone)
return answers
