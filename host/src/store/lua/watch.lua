-- Who of the fleet is blocked on a list, so that one push wakes one host: a short lease in `watchers`, by the name of
-- the queue, or of the list when it is another system's.
parts.watch = function()
  -- How long a watch lasts that is not renewed: two sweeps of a host, and a moment.
  local WATCH_MS = 4000
  local WATCHERS = PREFIX .. ':watchers'

  -- Takes or renews a watch unless another host has it; one without room takes none, and keeps what it has.
  return function(name, session, has_room)
    local known = try('HGET', WATCHERS, name)
    local ends, owner = match(type(known) == 'string' and known or '', '^(%d+) (%S+)$')
    local left = ends and tonumber(ends) - now_ms or 0
    -- An end further away than any lease was written before the clock was set back.
    if owner ~= session and left > 0 and left <= WATCH_MS then
      return false
    end
    if has_room then
      -- A full Redis remembers no watch: better that several hosts watch than none.
      try('HSET', WATCHERS, name, whole(now_ms + WATCH_MS) .. ' ' .. session)
      if owner ~= session then
        call('PUBLISH', WAKE, 'watch ' .. session .. ' ' .. name)
      end
    end
    return true
  end
end
