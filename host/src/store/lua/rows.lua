-- Looks at rows: which of them must be in a structure, and whether they live as long as they should. Writes nothing.
--
-- A done row without a time to live was ended by another program. A row that lives again but kept the time to live of
-- its first end (another producer wrote the same id once more), or that runs, must not vanish.
--
-- KEYS     head.lua (without queues)
-- ARGV     head.lua, then: number of ids, the ids
-- Returns  for each row that must be in a structure or is wrong: id, what is wrong (docs/doctor.md; of a lost one only
--          if it is in no structure), queue, created at, marks; of one that is no hash its type in place of the marks

local LOST = { [''] = 'lost-ready', ready = 'lost-ready', scheduled = 'lost-scheduled', inflight = 'lost-inflight',
  dlq = 'lost-dead' }
local answer = {}

local function tell(id, fault, row, mark)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = id, fault, row.queue or ''
  answer[n + 4], answer[n + 5] = row.created_at_nano or '', mark
end

for _ = 1, take_number() do
  local id = take()
  local row, mark = marks(id)
  if not row then
    tell(id, 'wrong-type', {}, kind(JOB .. id))
  elseif row.status == 'done' or row.status == 'cancelled' then
    if call('TTL', JOB .. id) == -1 then
      tell(id, row.status == 'done' and 'done-endless' or 'cancelled-endless', row, mark)
    end
  elseif row.status == '' and call('EXISTS', JOB .. id) == 0 then
    -- It was removed since it was scanned.
    mark = nil
  elseif LOST[row.status] then
    tell(id, LOST[row.status], row, mark)
    if lives_too_short(id, row) then
      tell(id, 'row-mortal', row, mark)
    end
  else
    tell(id, 'state-unknown', row, mark)
  end
end
return answer
