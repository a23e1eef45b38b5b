-- Which code a type means: the hash `workers:jumpscripts:route`, word -> digest, a space, owner's name.

-- The first word that belongs to another jumpscript, and its owner; nil when all are free or ours.
local function claimed(words, name)
  for _, word in ipairs(words) do
    local route = call('HGET', ROUTE, word)
    if route and sub(route, 66) ~= name then
      return word, sub(route, 66)
    end
  end
end

-- Makes `words`, and no others, mean `digest` of `name`.
local function set_routes(words, name, digest)
  local wanted = {}
  for _, word in ipairs(words) do
    wanted[word] = true
    call('HSET', ROUTE, word, digest .. ' ' .. name)
  end
  local all = call('HGETALL', ROUTE)
  for n = 1, #all, 2 do
    if sub(all[n + 1], 66) == name and not wanted[all[n]] then
      call('HDEL', ROUTE, all[n])
    end
  end
end

-- The next revision, told to everybody. It never goes back, also not after FLUSHALL.
local function next_revision()
  local rev = whole(math.max((tonumber(revision()) or 0) + 1, now_ms))
  call('SET', REV, rev)
  call('PUBLISH', WAKE, 'rev ' .. rev)
  return rev
end

local function take_words()
  local words = {}
  for n = 1, take_number() do
    words[n] = take()
  end
  return words
end

-- Why the jumpscript keys cannot be written, or nil.
local function broken_keys(...)
  local pairs_of = { ROUTE, 'hash', KEEP, 'hash', NAMES, 'hash', REV, 'string', ... }
  for n = 1, #pairs_of, 2 do
    local found = kind(pairs_of[n])
    if found ~= 'none' and found ~= pairs_of[n + 1] then
      return 'key `' .. pairs_of[n] .. '` is a ' .. found .. ', must be a ' .. pairs_of[n + 1]
    end
  end
end
