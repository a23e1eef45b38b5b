-- Looks at rows: which of them must be in a structure, and whether they live as long as they should.
--
-- A done row without a time to live (another program ended the job) gets one. A row that lives again but kept the time
-- to live of its first end (another producer wrote the same id once more) loses it, or the job would vanish.
--
-- KEYS     head.lua (without queues)
-- ARGV     head.lua, then: seconds that a done row lives, number of ids, the ids
-- Returns  rows given a time to live, rows that lost one, rows in a state that nobody knows, then for each row that must
--          be in a structure: id, queue, created at, marks

local LIVE = { [''] = true, ready = true, scheduled = true, inflight = true, dlq = true }
local ttl = take()
local answer = { 0, 0, 0 }
for _ = 1, take_number() do
  local id = take()
  local row, mark = marks(id)
  if row and row.status == 'done' then
    if call('TTL', JOB .. id) == -1 then
      call('EXPIRE', JOB .. id, ttl)
      answer[1] = answer[1] + 1
    end
  elseif row and LIVE[row.status] then
    if (row.done_token ~= '' or (row.finished_at_nano ~= '' and row.finished_at_nano ~= '0'))
      and call('PERSIST', JOB .. id) == 1 then
      answer[2] = answer[2] + 1
    end
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = id, row.queue, row.created_at_nano, mark
  elseif row and row.status ~= 'cancelled' then
    answer[3] = answer[3] + 1
  end
end
return answer
