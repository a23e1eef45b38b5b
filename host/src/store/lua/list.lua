-- A page of jobs from one structure of one queue.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: structure (ready, scheduled, inflight, done, dlq, cancelled), offset, limit, number of fields, the fields
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
local ids = {}
if structure == 'ready' then
  -- As they are served: the lists of priorities, then `ready`.
  local skip = offset
  for priority = 9, -1, -1 do
    local list = priority < 0 and q.ready or prio_list(q, priority)
    local length = try('LLEN', list)
    length = type(length) == 'number' and length or 0
    if skip < length and #ids < limit then
      for _, id in ipairs(call('LRANGE', list, skip, skip + limit - #ids - 1)) do
        ids[#ids + 1] = id
      end
    end
    skip = math.max(0, skip - length)
  end
elseif structure == 'scheduled' or structure == 'inflight' then
  ids = call('ZRANGE', q[structure], offset, offset + limit - 1)
else
  -- The newest first.
  local turned = try('LRANGE', q[structure], -offset - limit, -offset - 1)
  for n = turned.err and 0 or #turned, 1, -1 do
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
