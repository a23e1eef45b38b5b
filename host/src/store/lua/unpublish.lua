-- Removes a name: no job finds its code any more. The code itself goes when nothing names it (drop_unused.lua), and the
-- history stays for a while, so that it can be brought back.
--
-- KEYS     head.lua (without queues), then past.lua
-- ARGV     head.lua, then: field of the name, name, who, line of the history (past.lua)
-- Returns  1 and the revision now, or 0 when nothing is published under the name

local field, name, who, line = take(), take(), take(), take()
local reason = broken_past()
if reason then
  return redis.error_reply('REFUSED ' .. reason)
end
if call('HEXISTS', NAMES, field) == 0 then
  return { 0 }
end
-- What is longer is no record of ours, and removed unread.
local RECORD_BYTES_MAX = 262144
local text = call('HSTRLEN', NAMES, field) <= RECORD_BYTES_MAX and call('HGET', NAMES, field) or ''
local is_json, record = pcall(cjson.decode, text)
local id = is_json and type(record) == 'table' and tonumber(record.id)
call('HDEL', NAMES, field)
if id and call('HGET', IDS, whole(id)) == text then
  call('HDEL', IDS, whole(id))
end
set_routes({}, name, '')
remember(field, nil, line)
note(who, 'removed', name)
local digest = match(text, '"digest"%s*:%s*"(%x+)"')
if digest then
  -- Jobs that run were handed this code; those that died keep it for longer (settle.lua).
  keep(digest, tonumber(now_s) + 3600)
  write_keeps()
end
return { 1, next_revision() }
