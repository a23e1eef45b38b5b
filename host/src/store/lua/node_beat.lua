-- One heartbeat of a host: registers it and renews its fields in the node's hashes.
--
-- KEYS     1 registry {prefix}:nodes, 2 {prefix}:nodes:info, 3 workers:watchdog, 4 workers:heartbeat,
--          5 workers:sessions, 6 application, 7 healthcheck:status, 8 healthcheck:lastcheck,
--          9 healthcheck:monitoring (looked at only)
-- ARGV     node, session, number n as of the last beat (-1: none yet), info (JSON for the registry), record of the
--          session (JSON), application, pid, live ms,
--          number of workers times two, then queue and 1 (alive) or 0 for each,
--          number of components times three, then name, True or False and the age of the check in ms for each
-- Returns  n, 1 when other nodes are registered else 0, server time in ms as text,
--          1 when there is a report of the grid else 0, list of wrong keys (name, type, ...), list of silent members (member, ms of silence, info, ...)

local node, session, n = take(), take(), tonumber(take())
local info, record, app, pid, live_ms = take(), take(), take(), take(), tonumber(take())
local workers, components = take_list(), take_list()

local others = live_others(session, live_ms)
local taken, is_shared = {}, 0
for _, other in ipairs(others) do
  if other.node == node then
    taken[other.n] = true
  else
    is_shared = 1
  end
end

-- The number tells processes of one node apart. A host keeps its number, unless it was silent for so long that another
-- one took it.
local old = n
if n < 0 or taken[n] then
  n = 0
  while taken[n] do
    n = n + 1
  end
end
if old >= 0 and old ~= n then
  call('ZREM', NODES, node .. '/' .. old .. '/' .. session)
end
call('ZADD', NODES, NOW_MS, node .. '/' .. n .. '/' .. session)
call('HSET', INFO, session, info)

-- A stalled worker is not renewed: its stamp grows old, which is how readers notice.
local has_status, has_lastcheck = is_hash(STATUS), is_hash(LASTCHECK)
local has_watchdog, has_heartbeat = is_hash(WATCHDOG), is_hash(HEARTBEAT)
local now_text = NOW_S .. string.format('.%03d', NOW_MS % 1000)
for i = 1, #workers, 2 do
  local queue, is_alive = workers[i], workers[i + 1] == '1'
  local name = worker_name(queue, node, n)
  if is_alive and has_watchdog then
    call('HSET', WATCHDOG, name, NOW_S)
  end
  if is_alive and has_heartbeat then
    call('HSET', HEARTBEAT, queue, NOW_S)
  end
  if has_status then
    call('HSET', STATUS, 'workers:' .. name, is_alive and 'True' or 'False')
  end
  if has_lastcheck then
    call('HSET', LASTCHECK, 'workers:' .. name, now_text)
  end
end

-- Components carry the node's name as soon as they would be ambiguous without it.
for i = 1, #components, 3 do
  local alone, tagged = components[i], components[i] .. '@' .. node
  local name, other_name = alone, tagged
  if is_shared == 1 then
    name, other_name = tagged, alone
  end
  local checked_ms = NOW_MS - tonumber(components[i + 2])
  local checked = string.format('%d.%03d', math.floor(checked_ms / 1000), checked_ms % 1000)
  if has_status then
    call('HDEL', STATUS, other_name)
    call('HSET', STATUS, name, components[i + 1])
  end
  if has_lastcheck then
    call('HDEL', LASTCHECK, other_name)
    call('HSET', LASTCHECK, name, checked)
  end
end

if is_hash(SESSIONS) then
  call('HSET', SESSIONS, session, record)
end
if is_hash(APPLICATION) then
  local pids, is_listed = pids_of(app), false
  for _, other in ipairs(pids) do
    is_listed = is_listed or other == tonumber(pid)
  end
  if not is_listed then
    pids[#pids + 1] = tonumber(pid)
    write_pids(app, pids)
  end
end

local has_report = is_hash(MONITORING) and call('HEXISTS', MONITORING, 'results') or 0

local silent = {}
local members = call('ZRANGEBYSCORE', NODES, '-inf', '(' .. (NOW_MS - live_ms), 'WITHSCORES', 'LIMIT', 0, 20)
for i = 1, #members, 2 do
  local other = string.match(members[i], '^[^/]*/%d+/(.*)$') or ''
  silent[#silent + 1] = members[i]
  silent[#silent + 1] = NOW_MS - tonumber(members[i + 1])
  silent[#silent + 1] = call('HGET', INFO, other) or ''
end
return { n, is_shared, string.format('%.0f', NOW_MS), has_report, wrong, silent }
