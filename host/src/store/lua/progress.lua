-- Notes how far a running job has come, if its lease still holds.
--
-- KEYS     head.lua
-- ARGV     head.lua (one queue), then: id, token, percent, message
-- Returns  the answer of fence.lua; 0 when it was written

local id, token, percent, message = take(), take(), take(), take()
local answer = trouble(queues[1]) or fence(queues[1], JOB .. id, id, token, false)
if answer == REPEATED then
  return NOT_INFLIGHT
elseif answer then
  return answer
end
call('HSET', JOB .. id, 'progress', percent, 'progress_message', message)
return 0
