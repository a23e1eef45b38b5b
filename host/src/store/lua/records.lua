-- Reads the records of jumpscripts, but not those that are far too long to be one.
--
-- KEYS     head.lua (without queues)
-- ARGV     head.lua, then: longest record in bytes
-- Returns  for each: the field, its length, the record or empty when it is longer

local most, answer = take_number(), {}
for n, field in ipairs(call('HKEYS', NAMES)) do
  local length = call('HSTRLEN', NAMES, field)
  answer[3 * n - 2], answer[3 * n - 1] = field, length
  answer[3 * n] = length <= most and call('HGET', NAMES, field) or ''
end
return answer
