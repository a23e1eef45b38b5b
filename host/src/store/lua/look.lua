-- Looks at the head of another system's list, and reads the records that its entries name. Nothing is written.
--
-- KEYS     head.lua (one queue), then the list
-- ARGV     head.lua, then: what the keys of records begin with, most entries, bytes after which no further record is
--          read, most jobs that may wait in the queue, number of fields, their names; the first of them is the state
-- Returns  length of the list, then for each entry: id, state (foreign.lua), the values of the fields; none when the
--          queue has little room; or a text when the key is no list

-- Below this share of what may wait in the queue nothing is read: a batch is worth its price, a few entries are not.
local ROOM_SHARE = 1 / 16

local list = KEYS[#KEYS]
local found = kind(list)
if found ~= 'none' and found ~= 'list' then
  return 'key `' .. list .. '` is a ' .. found .. ', must be a list'
end
local before, most, bytes_left = take(), take_number(), take_number()
local room, most_waiting = room_of(queues[1], take_number())
local names = {}
for n = 1, take_number() do
  names[n] = take()
end
local answer = { call('LLEN', list) }
if room < math.max(1, math.floor(most_waiting * ROOM_SHARE)) then
  return answer
end
for _, id in ipairs(call('LRANGE', list, 0, math.min(most, room) - 1)) do
  if bytes_left <= 0 then
    break
  end
  local key = before .. id
  local values = try('HMGET', key, unpack(names))
  local state = 'other'
  if values.err then
    values = {}
  else
    state = values[1] and 'hash:' .. values[1] or state_of(key, names[1])
    for n = 1, #names do
      bytes_left = bytes_left - (values[n] and #values[n] or 0)
    end
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = id, state, values
end
return answer
