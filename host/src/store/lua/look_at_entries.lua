-- Looks at entries of one structure of a queue: which of them are wrong, as far as their rows tell. Writes nothing.
--
-- KEYS     head.lua (one queue)
-- ARGV     head.lua, then: ready (also priorities and parked jobs), inflight, scheduled, dlq, slots or keys; number of
--          entries, the entries
-- Returns  for each that is wrong: its place among the entries, what is wrong (docs/doctor.md)

local q, look = queues[1], part('entries')[take()]
local found = {}
if not (trouble(q, 'inflight') or trouble(q, 'scheduled')) then
  for n = 1, take_number() do
    local fault = look(q, take())
    if fault then
      found[#found + 1], found[#found + 2] = n, fault
    end
  end
end
return found
