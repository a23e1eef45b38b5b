-- A page of jobs from one structure of one queue, as far as they fit a filter.
--
-- Parked jobs lie in a list for each limit key. Which keys there are is asked of `keys` in steps, so a place in them is
-- an offset in the list of a key, the key, and where the step began.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: structure (ready, parked, scheduled, inflight, done, dlq, cancelled);
--          the place to begin at: offset, key, step (for other structures than parked: empty, 0);
--          1 to begin with the oldest dead job, and to pass over what is not dead or belongs elsewhere, else 0;
--          most entries to look at (at most 500), most rows to answer;
--          the filter, each empty for any: type, part of the error, part of the payload, from and before (nanoseconds),
--          and what these times are of: created or died; number of fields, the fields
-- Returns  entries looked at (also of rows that are gone), 1 when the structure ends here else 0, the place to go on at
--          (offset, key, step), then for each row that fits: id, and the values of the fields

-- Payloads that one call reads, in bytes; it ends after the one that goes over.
local PAYLOADS_MAX = 4194304
local KEYS_MAX = 100

local q, structure, offset, key, step = queues[1], take(), take_number(), take(), take()
local is_walk, most, rows_most = take() == '1', math.min(take_number(), 500), take_number()
local of_type, of_error, of_payload = take(), string.lower(take()), take()
local since, before = tonumber(take()), tonumber(take())
local TIMES = { created = { 'created_at_nano' }, died = { 'dlq_failed_at_nano', 'failed_at_nano', 'created_at_nano' } }
local times = TIMES[take()]
local fields = {}
for n = 1, take_number() do
  fields[n] = take()
end
local reason = trouble(q)
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end

local n_looked, n_rows, n_bytes, rows = 0, 0, 0, {}

local function has_error(row)
  for n = 4, 6 do
    if row[n] and find(string.lower(row[n]), of_error, 1, true) then
      return true
    end
  end
end

local function is_in_time(row)
  local at_nano = 0
  for n = 7, 6 + #times do
    at_nano = at_nano > 0 and at_nano or tonumber(row[n] or '') or 0
  end
  return at_nano > 0 and (not since or at_nano >= since) and (not before or at_nano < before)
end

local function has_payload(id)
  local length = call('HSTRLEN', JOB .. id, 'payload')
  if length < #of_payload or length > PAYLOAD_MAX then
    return false
  end
  n_bytes = n_bytes + length
  return find(call('HGET', JOB .. id, 'payload'), of_payload, 1, true)
end

local function fits(id)
  local row = try('HMGET', JOB .. id, 'type', 'queue', 'status', 'last_error', 'dlq_reason', 'error_kind', unpack(times))
  if row.err or not (row[1] or row[2] or row[3]) then
    return false
  end
  return not (is_walk and (row[3] ~= 'dlq' or row[2] and row[2] ~= q.name))
    and not (structure == 'parked' and row[3] ~= 'ready')
    and (of_type == '' or row[1] == of_type)
    and (of_error == '' or has_error(row))
    and (not (since or before) or is_in_time(row))
    and (of_payload == '' or has_payload(id))
end

-- Looks at ids in turn, until the page is full. Returns how many it has looked at.
local function look(ids)
  for n, id in ipairs(ids) do
    if n_rows >= rows_most or n_bytes > PAYLOADS_MAX then
      return n - 1
    end
    if structure == 'scheduled' then
      id = match(id, '^%d%d%d%d%d%d%d%d%d:(.+)$') or id
    end
    n_looked = n_looked + 1
    if #id <= ID_MAX and fits(id) then
      n_rows = n_rows + 1
      rows[2 * n_rows - 1] = id
      rows[2 * n_rows] = #fields > 0 and call('HMGET', JOB .. id, unpack(fields)) or {}
    end
  end
  return #ids
end

local function answer(is_end, at_offset, at_key, at_step)
  return { n_looked, is_end and 1 or 0, at_offset, at_key, at_step, unpack(rows) }
end

if structure == 'parked' then
  local found = try('HSCAN', q.keys, step, 'COUNT', KEYS_MAX)
  if found.err then
    return answer(true, 0, '', '0')
  end
  local names = {}
  for n = 1, #found[2], 2 do
    local n_parked = part('limits').parked_of(found[2][n + 1])
    if n_parked > 0 and found[2][n] >= key then
      names[#names + 1] = found[2][n]
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local first = name == key and offset or 0
    local asked = most - n_looked
    local ids = asked > 0 and try('LRANGE', part('limits').parked_list(q, name), first, first + asked - 1) or {}
    local n = ids.err and 0 or look(ids)
    if asked == 0 or n < #ids or #ids == asked then
      return answer(false, first + n, name, step)
    end
  end
  return answer(found[1] == '0', 0, '', found[1])
end

local ids = {}
if structure == 'ready' then
  -- As they are served: the lists of priorities, then `ready`.
  local skip = offset
  for priority = 9, -1, -1 do
    local list = priority < 0 and q.ready or prio_list(q, priority)
    local length = try('LLEN', list)
    length = type(length) == 'number' and length or 0
    if skip < length and #ids < most then
      for _, id in ipairs(call('LRANGE', list, skip, skip + most - #ids - 1)) do
        ids[#ids + 1] = id
      end
    end
    skip = math.max(0, skip - length)
  end
elseif structure == 'scheduled' or structure == 'inflight' then
  ids = call('ZRANGE', q[structure], offset, offset + most - 1)
elseif is_walk then
  ids = call('LRANGE', q[structure], offset, offset + most - 1)
else
  -- The newest first.
  local turned = try('LRANGE', q[structure], -offset - most, -offset - 1)
  for n = turned.err and 0 or #turned, 1, -1 do
    ids[#ids + 1] = turned[n]
  end
end
local n = look(ids)
return answer(n == #ids and #ids < most, offset + n, '', '0')
