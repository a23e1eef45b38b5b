-- A page of jobs from one structure of one queue.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: structure (ready, scheduled, inflight, done, dlq), offset, limit, number of fields, the fields
-- Returns  entries read (also of rows that are gone), then for each row: id, and the values of the fields

local q, structure, offset, limit = queues[1], take(), take_number(), take_number()
local fields = {}
for n = 1, take_number() do
  fields[n] = take()
end
local reason = trouble(q)
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end
local ids
if structure == 'ready' then
  ids = call('LRANGE', q.ready, offset, offset + limit - 1)
elseif structure == 'scheduled' or structure == 'inflight' then
  ids = call('ZRANGE', q[structure], offset, offset + limit - 1)
else
  -- The newest first.
  local turned = call('LRANGE', q[structure], -offset - limit, -offset - 1)
  ids = {}
  for n = #turned, 1, -1 do
    ids[#ids + 1] = turned[n]
  end
end
local page = { #ids }
for _, id in ipairs(ids) do
  if structure == 'scheduled' then
    id = match(id, '^%d%d%d%d%d%d%d%d%d:(.+)$') or id
  end
  if #id <= ID_MAX then
    local row = try('HMGET', JOB .. id, unpack(fields))
    if not row.err and (row[1] or row[2] or row[3]) then
      page[#page + 1] = id
      page[#page + 1] = row
    end
  end
end
return page
