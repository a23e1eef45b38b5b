-- Wakes one idle host through the bell of a queue: a list that every idle host which does not watch the queue is blocked
-- on. Redis gives an entry to the one that has waited longest. When nobody waits, the entry lies there for the next one;
-- one of each word is enough.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: who rings (one word), and what for
--            more   there are more jobs than the caller has room for: rings the first queue that has any ready
--            watch  the caller gives up its watch of these queues: rings each that nobody watches now
-- Returns  how many bells were rung

local WATCHERS = PREFIX .. ':watchers'
local BELL_SECONDS = 3600

local session, word = take(), take()

-- Rings a bell, unless the same word lies there unheard.
local function ring(q)
  local bell = PREFIX .. ':queue:' .. q.name .. ':bell'
  local words = try('LRANGE', bell, 0, 3)
  if words.err then
    return 0
  end
  for _, known in ipairs(words) do
    if known == word then
      return 0
    end
  end
  if type(try('RPUSH', bell, word)) == 'table' then
    return 0
  end
  try('EXPIRE', bell, BELL_SECONDS)
  return 1
end

local n_rung = 0
for _, q in ipairs(queues) do
  if word == 'watch' then
    local known = try('HGET', WATCHERS, q.name)
    local ends, owner = match(type(known) == 'string' and known or '', '^(%d+) (%S+)$')
    if owner == session then
      call('HDEL', WATCHERS, q.name)
    end
    if owner == session or not ends or tonumber(ends) <= now_ms then
      n_rung = n_rung + ring(q)
    end
  elseif n_rung == 0 and not trouble(q) and has_ready(q) then
    n_rung = ring(q)
  end
end
return n_rung
