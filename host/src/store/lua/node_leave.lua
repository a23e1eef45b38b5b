-- Removes a host from the registry and its fields from the node's hashes: its own on a clean stop, or those of one that
-- has been silent for long.
--
-- KEYS     as node_beat.lua
-- ARGV     node, session, n, application, pid, live ms, 1 when the host itself leaves else 0,
--          number of queues, the queues, number of components, the components
-- Returns  1 done, 1 when it was the last process of its node else 0; or 0, 0 when it is alive after all

local node, session, n, app, pid, live_ms = take(), take(), take(), take(), tonumber(take()), tonumber(take())
local is_own, queues, components = take() == '1', take_list(), take_list()
local member = node .. '/' .. n .. '/' .. session

local beaten = tonumber(call('ZSCORE', NODES, member) or '0')
if not is_own and beaten >= NOW_MS - live_ms then
  return { 0, 0 }
end

-- What others that are alive hold stays: workers whose number was taken over, queues, components, the pid.
local served, owned, is_last, is_alone, is_pid_free = {}, {}, 1, true, true
for _, other in ipairs(live_others(session, live_ms)) do
  is_alone = false
  if other.node == node then
    is_last = 0
  end
  local is_json, info = pcall(cjson.decode, call('HGET', INFO, other.session) or '')
  if is_json and type(info) == 'table' then
    is_pid_free = is_pid_free and info.pid ~= pid
    for _, queue in ipairs(type(info.queues) == 'table' and info.queues or {}) do
      served[queue] = true
      owned[queue] = owned[queue] or (other.node == node and other.n == tonumber(n))
    end
  end
end

call('ZREM', NODES, member)
call('HDEL', INFO, session)
local has_watchdog, has_heartbeat = is_hash(WATCHDOG), is_hash(HEARTBEAT)
local has_status, has_lastcheck = is_hash(STATUS), is_hash(LASTCHECK)
local function drop_component(name)
  if has_status then
    call('HDEL', STATUS, name)
  end
  if has_lastcheck then
    call('HDEL', LASTCHECK, name)
  end
end
for _, queue in ipairs(queues) do
  local name = worker_name(queue, node, n)
  if not owned[queue] then
    if has_watchdog then
      call('HDEL', WATCHDOG, name)
    end
    drop_component('workers:' .. name)
  end
  if has_heartbeat and not served[queue] then
    call('HDEL', HEARTBEAT, queue)
  end
end
for _, component in ipairs(components) do
  if is_last == 1 then
    drop_component(component .. '@' .. node)
  end
  if is_alone then
    drop_component(component)
  end
end
if is_hash(SESSIONS) then
  call('HDEL', SESSIONS, session)
end
if is_pid_free and is_hash(APPLICATION) then
  local kept = {}
  for _, other in ipairs(pids_of(app)) do
    if other ~= pid then
      kept[#kept + 1] = other
    end
  end
  write_pids(app, kept)
end
return { 1, is_last }
