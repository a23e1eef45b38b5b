-- The head of every script: the clock, the arguments, the queues, and what is done with a bad record.
--
-- KEYS     1 prefix of every key of ours (job hashes and idempotency keys are composed from it, they share its slot)
--          2 wake channel   3 set of queue names   4 jumpscript routes   5 jumpscript revision
--          6 keep times of digests   7 jumpscript records by name
--          (4 to 7 are the prefix again in a call that touches no jumpscripts, such as an enqueue without a pin)
--          then, for each queue: ready, scheduled, inflight, done, dlq, aside, counters, cancelled, settings, keys, slots
--          (composed from `ready`: the lists of priorities and of parked jobs)
-- ARGV     1 seconds now, or empty to ask the server   2 nanoseconds within the second, nine digits
--          3 number of queues, then their names, then what the script itself takes
--
-- Times with nanoseconds are text from end to end: a Lua number holds them only to 256 ns.

local call, try = redis.call, redis.pcall
local fmt, sub, find, match = string.format, string.sub, string.find, string.match

-- These limits are compared with the Rust constants by a test.
local DLQ_MAX = 10000
local DLQ_DAYS = 30
local DONE_MAX = 100000
local ASIDE_MAX = 1000
local CANCELLED_MAX = 10000
local CANCELLED_HOURS = 24
local ID_MAX = 1024
local NAME_MAX = 200
local PAYLOAD_MAX = 8388608
local ATTEMPTS_MAX = 1000
local ATTEMPTS_DEFAULT = 5
local DELIVERIES_MIN = 3
local IDEMPOTENCY_DAYS = 7
local SCAN_MAX = 100
local LAYOUT = '1'

local PREFIX, WAKE, QUEUES, ROUTE, REV, KEEP, NAMES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local JOB = PREFIX .. ':job:'
local KEYS_FIXED, KEYS_PER_QUEUE = 7, 11

local now_s, now_n = ARGV[1], ARGV[2]
if now_s == '' then
  local time = call('TIME')
  now_s, now_n = time[1], sub('00000' .. time[2], -6) .. '000'
end
local now_ms = tonumber(now_s) * 1000 + tonumber(sub(now_n, 1, 3))
local now_nano = now_s .. now_n

local at = 2
local function take()
  at = at + 1
  return ARGV[at]
end
local function take_number()
  at = at + 1
  return tonumber(ARGV[at])
end

local NOTHING = {}

-- What many calls do without. Making a function costs Redis more than calling it, so those of a part are made when the
-- first of them is wanted. A file adds its part as a function that makes it.
local parts, made = {}, {}
local function part(name)
  local one = made[name]
  if not one then
    one = parts[name]()
    made[name] = one
  end
  return one
end

local queues = {}
for n = 1, take_number() do
  local k = KEYS_FIXED + (n - 1) * KEYS_PER_QUEUE
  queues[n] = {
    index = n, name = take(),
    ready = KEYS[k + 1], scheduled = KEYS[k + 2], inflight = KEYS[k + 3], done = KEYS[k + 4],
    dlq = KEYS[k + 5], aside = KEYS[k + 6], counters = KEYS[k + 7], cancelled = KEYS[k + 8],
    settings = KEYS[k + 9], keys = KEYS[k + 10], slots = KEYS[k + 11],
    troubles = {}, kinds = {}, heads = NOTHING, n_heads = 0, tails = NOTHING, n_tails = 0,
  }
end

local function kind(key)
  return call('TYPE', key).ok
end

local function whole(number)
  return fmt('%.0f', number)
end

-- Why structures of a queue cannot be used, or nil: all of them, unless one is named. Whatever a call may write is
-- asked for once, before its first write; afterwards it is written blindly.
local TYPES = { ready = 'list', inflight = 'zset', scheduled = 'zset', done = 'list', dlq = 'list' }
local function trouble(q, what)
  if not what then
    return trouble(q, 'ready') or trouble(q, 'inflight') or trouble(q, 'scheduled') or trouble(q, 'done')
      or trouble(q, 'dlq')
  end
  local reason = q.troubles[what]
  if reason == nil then
    local found = kind(q[what])
    q.kinds[what] = found
    reason = found ~= 'none' and found ~= TYPES[what]
      and 'key `' .. q[what] .. '` is a ' .. found .. ', must be a ' .. TYPES[what]
    q.troubles[what] = reason
  end
  return reason or nil
end

-- A total since the queue was made (of `parked`: how many there are). Never worth stopping for.
local function count(q, what, by)
  if by ~= 0 then
    try('HINCRBY', q.counters, what, by)
  end
end

-- What people have set for a queue (set_queue.lua), as numbers where it is one. Read once a call.
local NUMBERS = { 'concurrency', 'key_concurrency', 'key_rate', 'key_rate_ms', 'capacity' }
local function settings(q)
  if not q.set then
    local found = try('HGETALL', q.settings)
    if not found[1] then
      q.set = { key_rate_ms = 1000 }
      return q.set
    end
    local set = {}
    for n = 1, #found, 2 do
      set[found[n]] = found[n + 1]
    end
    for _, name in ipairs(NUMBERS) do
      local number = tonumber(set[name] or '')
      set[name] = number and number >= 1 and number or nil
    end
    set.key_rate_ms = set.key_rate_ms or 1000
    q.set = set
  end
  return q.set
end

-- Why nothing of a queue is handed out now, or nil.
local function closed(q)
  local set = settings(q)
  if set.paused then
    return 'paused'
  elseif set.concurrency and call('ZCARD', q.inflight) >= set.concurrency then
    return 'full'
  end
end

-- Records that were not run (dead.lua): index of the queue, id, reason, '1' when it is in the DLQ.
local asides = {}
-- Tells those who wait for the end of a job. Mostly nobody does, and then it costs one question a call.
local ENDED, n_waiting = PREFIX .. ':ended', nil
local function tell_ended(ids, n)
  if not n_waiting then
    local found = try('PUBSUB', 'NUMSUB', ENDED)
    n_waiting = found[2] or 0
  end
  for i = 1, n_waiting > 0 and n or 0 do
    try('PUBLISH', ENDED, ids[i])
  end
end

-- Digests that some row may name until a time. Written with an hour to spare, so at most once an hour each.
local keep_until = {}
local function keep(digest, seconds)
  if digest and digest ~= '' and (keep_until[digest] or 0) < seconds then
    keep_until[digest] = seconds
  end
end
local function write_keeps()
  for digest, seconds in pairs(keep_until) do
    local known = try('HGET', KEEP, digest)
    if type(known) ~= 'table' and (tonumber(known or 0) or 0) < seconds then
      call('HSET', KEEP, digest, whole(seconds + 3600))
    end
  end
end

local function revision()
  local rev = try('GET', REV)
  return type(rev) == 'string' and rev or '0'
end

-- Gives back the slots of jobs that run no more (limits.lua). Mostly there are none: one question a queue and call.
local function release_slots(q, ids)
  if #ids == 0 then
    return
  elseif q.n_slots == nil then
    local n = try('HLEN', q.slots)
    q.n_slots = type(n) == 'number' and n or 0
  end
  if q.n_slots > 0 then
    part('limits').release(q, ids)
  end
end

-- Ids that go to the two ends of a list of their queue, written at the end of the script in one command each.
-- A job with a priority has a list of its own, which is served before `ready`, 9 first.
local function is_priority(text)
  return text and #text == 1 and find(text, '%d') and true or false
end
local function prio_list(q, priority)
  return sub(q.ready, 1, -6) .. 'prio:' .. priority
end
local function lane(q, priority)
  if not is_priority(priority) then
    return q
  end
  q.lanes = q.lanes or {}
  local known = q.lanes[priority]
  if not known then
    known = { ready = prio_list(q, priority), heads = NOTHING, n_heads = 0, tails = NOTHING, n_tails = 0 }
    q.lanes[priority] = known
  end
  return known
end
local function to_head(q, id, priority)
  local list = lane(q, priority)
  local n = list.n_heads + 1
  if n == 1 then
    list.heads = {}
  end
  list.heads[n], list.n_heads = id, n
end
local function to_tail(q, id, priority)
  local list = priority and lane(q, priority) or q
  local n = list.n_tails + 1
  if n == 1 then
    list.tails = {}
  end
  list.tails[n], list.n_tails = id, n
end
-- A job for later: due in whole seconds and nine digits of nanoseconds.
local function to_schedule(q, id, seconds, nanos)
  call('ZADD', q.scheduled, seconds, nanos .. ':' .. id)
  local due = tonumber(seconds) * 1000 + tonumber(sub(nanos, 1, 3)) + 1
  if not q.soonest or due < q.soonest then
    q.soonest = due
  end
end
-- Whether a queue has jobs that could be handed out now.
local function has_ready(q)
  if closed(q) then
    return false
  end
  for priority in string.gmatch(settings(q).priorities or '', '%d') do
    local length = try('LLEN', prio_list(q, priority))
    if type(length) == 'number' and length > 0 then
      return true
    end
  end
  return call('LLEN', q.ready) > 0
end
local function write_list(list)
  if list.n_heads > 0 then
    -- LPUSH turns the order round; the first one is to be the head.
    local turned, n = {}, list.n_heads
    for i = 1, n do
      turned[i] = list.heads[n + 1 - i]
    end
    call('LPUSH', list.ready, unpack(turned))
  end
  if list.n_tails > 0 then
    call('RPUSH', list.ready, unpack(list.tails, 1, list.n_tails))
  end
  list.n_heads, list.n_tails = 0, 0
end
local function write_ends()
  local soonest
  for _, q in ipairs(queues) do
    write_list(q)
    for priority, list in pairs(q.lanes or NOTHING) do
      if list.n_heads + list.n_tails > 0 then
        local used = settings(q).priorities or ''
        if not find(used, priority, 1, true) then
          settings(q).priorities = used .. priority
          call('HSET', q.settings, 'priorities', used .. priority)
        end
        write_list(list)
        -- Hosts block on `ready` only.
        q.is_to_wake = true
      end
    end
    if q.is_to_wake then
      q.is_to_wake = false
      call('PUBLISH', WAKE, 'push ' .. q.name)
    end
    if q.soonest and (not soonest or q.soonest < soonest) then
      local first = call('ZRANGE', q.scheduled, 0, 0, 'WITHSCORES')
      if first[2] and tonumber(first[2]) * 1000 + 1000 >= q.soonest then
        soonest = q.soonest
      end
    end
    q.soonest = nil
  end
  if soonest then
    call('PUBLISH', WAKE, 'due ' .. whole(soonest))
  end
end
