-- What was live under each name, the newest first: `workers:jumpscripts:history`, one line of JSON for each. And who may
-- still mean a digest: `workers:jumpscripts:owners`, the fields of the names that it was live under.
--
-- KEYS     8 records by id, 9 code by digest, 10 last id, 11 history by field, 12 owners by digest, 13 signatures,
--          14 names by digest, of what wasmhost itself published

local IDS, WASM, LAST_ID, HISTORY, OWNERS, SIGNATURES = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local PUBLISHED = KEYS[14]
local HISTORY_MAX = 20
local REMOVED_DAYS = 30

local function broken_past()
  return broken_keys(IDS, 'hash', WASM, 'hash', LAST_ID, 'string', HISTORY, 'hash', OWNERS, 'hash', SIGNATURES, 'hash',
    PUBLISHED, 'hash')
end

-- Notes what is live under a name from now on. `line` is a JSON object without `at`, from its first field on.
local function remember(field, digest, line)
  local lines = { '{"at":' .. now_s .. ',' .. line }
  for old in string.gmatch(call('HGET', HISTORY, field) or '', '[^\n]+') do
    if #lines == HISTORY_MAX then
      break
    end
    lines[#lines + 1] = old
  end
  call('HSET', HISTORY, field, table.concat(lines, '\n'))
  if digest then
    local owners = call('HGET', OWNERS, digest)
    if not owners then
      call('HSET', OWNERS, digest, field)
    elseif not find(' ' .. owners .. ' ', ' ' .. field .. ' ', 1, true) then
      call('HSET', OWNERS, digest, owners .. ' ' .. field)
    end
  end
end

-- The signature of a digest under one name; empty for none.
local function set_signature(field, digest, signature)
  if signature == '' then
    call('HDEL', SIGNATURES, digest .. ' ' .. field)
  else
    call('HSET', SIGNATURES, digest .. ' ' .. field, signature)
  end
end
