-- Shared by node_beat.lua and node_leave.lua: names, and who else is alive.
--
-- KEYS     1 registry {prefix}:nodes, 2 {prefix}:nodes:info, 3 workers:watchdog, 4 workers:heartbeat,
--          5 workers:sessions, 6 application, 7 healthcheck:status, 8 healthcheck:lastcheck, 9 healthcheck:monitoring
-- ARGV     taken one after the other, as each script says
-- Returns  nothing: it is joined in front of a script
--
-- A member of the registry is `node/n/session`. Its score is the server's time of its last beat in ms, so liveness never
-- depends on a clock of a node. Neither names of nodes nor sessions contain `/`.
--
-- KEYS     1 members by last beat, 2 what members say, 3 watchdog, 4 heartbeat, 5 sessions, 6 application, 7 status,
--          8 lastcheck, 9 monitoring
-- ARGV     taken one after the other by `take`; the file it is joined with says which

local call = redis.call
local NODES, INFO, WATCHDOG, HEARTBEAT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SESSIONS, APPLICATION, STATUS, LASTCHECK, MONITORING = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
-- Most members that one call looks at.
local MEMBERS_MAX = 200

local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end

local function take_list()
  local list = {}
  for n = 1, tonumber(take()) do
    list[n] = take()
  end
  return list
end

local clock = call('TIME')
local NOW_S = clock[1]
local NOW_MS = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- Other programs write these hashes too. One of another type is left alone and named in the answer; the rest goes on.
local wrong = {}
local function is_hash(key)
  local kind = call('TYPE', key).ok
  if kind == 'hash' or kind == 'none' then
    return true
  end
  wrong[#wrong + 1] = key
  wrong[#wrong + 1] = kind
  return false
end

local function worker_name(queue, node, n)
  return 'worker_' .. queue .. '_' .. node .. '.' .. n
end

-- Everybody who has beaten within `live_ms`, except `session`.
local function live_others(session, live_ms)
  local others = {}
  for _, member in ipairs(call('ZRANGEBYSCORE', NODES, NOW_MS - live_ms, '+inf', 'LIMIT', 0, MEMBERS_MAX)) do
    local node, n, other = string.match(member, '^([^/]*)/(%d+)/(.*)$')
    if node and other ~= session then
      others[#others + 1] = { node = node, n = tonumber(n), session = other }
    end
  end
  return others
end

-- The list of pids of an application, as JumpScale keeps it; anything that is none counts as empty.
local function pids_of(app)
  local is_json, pids = pcall(cjson.decode, call('HGET', APPLICATION, app) or '[]')
  local list = {}
  if is_json and type(pids) == 'table' then
    for _, pid in ipairs(pids) do
      if type(pid) == 'number' then
        list[#list + 1] = pid
      end
    end
  end
  return list
end

local function write_pids(app, pids)
  if #pids == 0 then
    call('HDEL', APPLICATION, app)
    return
  end
  for n, pid in ipairs(pids) do
    pids[n] = string.format('%d', pid)
  end
  call('HSET', APPLICATION, app, '[' .. table.concat(pids, ', ') .. ']')
end
