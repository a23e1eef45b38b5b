-- Removes code that no name means, no history tells of, and no row may name any more.
--
-- KEYS     head.lua (without queues), then past.lua
-- ARGV     head.lua, nothing else
-- Returns  the digests that were removed

local LOOKED_MAX = 500
local REMOVED_MAX = 50
-- What is longer is no record of ours.
local RECORD_BYTES_MAX = 262144
local reason = broken_past()
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end

-- Code that was never live through us: another program stored it. Its record is looked for among all of them, once.
local meant
local function is_meant(digest)
  if not meant then
    meant = {}
    for _, route in ipairs(call('HVALS', ROUTE)) do
      meant[sub(route, 1, 64)] = true
    end
    for _, field in ipairs(call('HKEYS', NAMES)) do
      local record = call('HSTRLEN', NAMES, field) <= RECORD_BYTES_MAX and call('HGET', NAMES, field) or ''
      local found = match(record, '"digest"%s*:%s*"(%x+)"')
      if found then
        meant[found] = true
      end
    end
  end
  return meant[digest]
end

-- Whether a name that had this code still does, or its history tells of it. The history of a name that was removed is
-- forgotten after a while.
local function is_of(field, digest)
  local is_record = call('HSTRLEN', NAMES, field) <= RECORD_BYTES_MAX
  local record, history = is_record and call('HGET', NAMES, field), call('HGET', HISTORY, field)
  if record and find(record, digest, 1, true) then
    return true
  end
  local route = call('HGET', ROUTE, (string.gsub(field, '__', '/', 1)))
  if route and sub(route, 1, 64) == digest then
    return true
  end
  if history and not record then
    local at = tonumber(match(history, '^{"at":(%d+),') or '') or 0
    if at + REMOVED_DAYS * 86400 < tonumber(now_s) then
      call('HDEL', HISTORY, field)
      history = nil
    end
  end
  return history and find(history, digest, 1, true) and true
end

local function is_used(digest)
  local owners = call('HGET', OWNERS, digest)
  if not owners then
    return is_meant(digest)
  end
  for field in string.gmatch(owners, '%S+') do
    if is_of(field, digest) then
      return true
    end
  end
  return false
end

local function drop(digest)
  for field in string.gmatch(call('HGET', OWNERS, digest) or '', '%S+') do
    call('HDEL', SIGNATURES, digest .. ' ' .. field)
  end
  call('HDEL', OWNERS, digest)
  call('HDEL', PUBLISHED, digest)
  call('HDEL', WASM, digest)
  call('HDEL', KEEP, digest)
end

-- Of very many some are looked at, others the next time; never their bytes.
local digests = call('HLEN', WASM) > LOOKED_MAX and call('HRANDFIELD', WASM, LOOKED_MAX) or call('HKEYS', WASM)
local kept = #digests > 0 and call('HMGET', KEEP, unpack(digests)) or {}
local removed = {}
for n, digest in ipairs(digests) do
  local seconds = tonumber(kept[n] or '')
  if #removed == REMOVED_MAX then
    break
  elseif not seconds then
    -- Another program stored it and may be about to write the record.
    keep(digest, tonumber(now_s))
  elseif seconds < tonumber(now_s) and not is_used(digest) then
    drop(digest)
    removed[#removed + 1] = digest
  end
end
write_keeps()
return removed
