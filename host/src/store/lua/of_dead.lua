-- Looks at a job before something is done with it that only a dead one takes (requeue.lua, drop.lua).
-- In this order, which is TaskHarbor's: 0 no such job, -1 it is not dead, -2 and the name: it belongs to another queue,
-- or a text when a key is of the wrong type.

-- The answer when the job is not to be touched, or nil; and the value of a further field.
local function refusal(q, id, field)
  local row = try('HMGET', JOB .. id, 'status', 'queue', field)
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
  return reason and { reason }, row[3]
end
