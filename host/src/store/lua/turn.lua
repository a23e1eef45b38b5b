-- One turn of a host: ends a batch of attempts, then takes a batch of jobs.
--
-- KEYS     head.lua, then lists of other systems (direct.lua)
-- ARGV     head.lua, then number of these lists and what is said of them (direct.lua), then settle.lua, then reserve.lua
-- Returns  answers of settle.lua; answer of reserve.lua, nil when none was wanted

local n_sources = take_number()
if n_sources > 0 then
  part('direct').take_sources(n_sources)
end
local n_groups = take_number()
local answers = n_groups > 0 and part('settle')(n_groups) or {}
-- What the settles gave back can be taken again in the same turn.
write_ends()
local reserved = false
if take() == '1' then
  reserved = part('reserve')()
  -- Jobs that came too fast for their key were scheduled meanwhile.
  write_ends()
end
write_keeps()
return { answers, reserved }
