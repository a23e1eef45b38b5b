-- What the scripts share that deal with another system's list (look.lua, take_over.lua).

-- Another system's record, as it is now: `none`, `other` when its key is no hash, or `hash:` and what its state field
-- says. What was read before and what is taken later are compared by it.
local function state_of(key, field)
  local state = try('HGET', key, field)
  if type(state) == 'table' then
    return 'other'
  elseif state then
    return 'hash:' .. state
  end
  return call('EXISTS', key) == 1 and 'hash:' or 'none'
end

-- How many more jobs may wait in a queue, and how many may in all: what was asked for, or the operator's capacity.
local function room_of(q, waiting_max)
  local function number(of)
    return type(of) == 'number' and of or 0
  end
  local n_ready = number(try('LLEN', q.ready))
  local room, most = waiting_max - n_ready, waiting_max
  local capacity = settings(q).capacity
  if capacity then
    local n_parked = math.max(0, tonumber(try('HGET', q.counters, 'parked') or 0) or 0)
    room = math.min(room, capacity - n_ready - number(try('ZCARD', q.scheduled)) - n_parked)
    most = math.min(most, capacity)
  end
  return room, most
end
