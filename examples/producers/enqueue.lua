-- The enqueue script for producers of any language: contract 1, described in docs/producers.md.
-- Enqueues a batch of jobs, all or none, and looks at everything that it is given before it writes anything.
--
-- KEYS     1 prefix (normally `wasmhost`)
-- ARGV     1 the contract: `1`   2 number of jobs, 1 to 256
--          then each job: id, queue, type, payload, number of options, name and value of each
-- Returns  for each job its id and 1; or, when it was there already, the id of the first one and 0
--
-- Not to be changed in what it takes and gives back: programs of other people have copies of it. What it writes may
-- change with the layout (`{prefix}:meta`), which it compares first.
local CONTRACT = '1'
local JOBS_MAX = 256
local NAME_BYTES_MAX = 200
local PAYLOAD_BYTES_MAX = 8388608
local OPTION_BYTES_MAX = 65536
local TIMEOUT_MAX_MS = 86400000
local RETRY_BASE_MAX_MS = 3600000
local RETRY_CAP_MAX_MS = 86400000
local RUN_AT_MAX_S = 3162240000

local given, next_given = ARGV, 1
local function take_given()
  next_given = next_given + 1
  return given[next_given]
end

-- Why a text cannot be a name, or nil. The last patterns are marks that turn or hide text on a screen.
local function misnamed(name)
  if not string.find(name, '%S') then
    return 'must not be empty'
  elseif #name > NAME_BYTES_MAX then
    return 'has ' .. #name .. ' bytes, at most ' .. NAME_BYTES_MAX .. ' are allowed'
  elseif string.find(name, ':', 1, true) then
    return 'must not contain `:`'
  elseif string.find(name, '[%z\1-\31\127]') or string.find(name, '\194[\128-\159]')
    or string.find(name, '\226\128[\139-\143\168-\174]') or string.find(name, '\226\129[\160-\175]')
    or string.find(name, '\239\187\191', 1, true) then
    return 'must not contain control characters'
  end
end

-- A rule for a whole number between two others.
local function between(least, most)
  return function(value)
    local is_number = string.find(value, '^%d+$') and #value <= 15
    if not is_number or tonumber(value) < least or tonumber(value) > most then
      return string.format('must be a whole number from %.0f to %.0f', least, most)
    end
  end
end

local function anything(value)
  return #value > OPTION_BYTES_MAX and 'has ' .. #value .. ' bytes, at most ' .. OPTION_BYTES_MAX .. ' are allowed' or nil
end

local time = redis.call('TIME')
local now_given_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- What may be said of a job: its rule, the field it becomes, and how its value is written.
local function nanos_of(value)
  return string.format('%.0f', tonumber(value)) .. '000000'
end
local function plainly(value)
  return value
end
local function number_of(value)
  return string.format('%.0f', tonumber(value))
end
local OPTIONS = {
  delay_ms = { between(0, RUN_AT_MAX_S * 1000), 'run_at_nano', function(value)
    return nanos_of(now_given_ms + tonumber(value))
  end },
  run_at_ms = { between(1, (tonumber(time[1]) + RUN_AT_MAX_S) * 1000), 'run_at_nano', nanos_of },
  timeout_ms = { between(1, TIMEOUT_MAX_MS), 'timeout_nano', nanos_of },
  max_attempts = { between(1, 1000), 'max_attempts', number_of },
  retry_base_ms = { between(1, RETRY_BASE_MAX_MS), 'retry_base_ms', number_of },
  retry_cap_ms = { between(1, RETRY_CAP_MAX_MS), 'retry_cap_ms', number_of },
  priority = { between(0, 9), 'priority', number_of },
  idempotency_key = { misnamed, 'idempotency_key', plainly },
  limit_key = { misnamed, 'limit_key', plainly },
  supersede_key = { misnamed, 'supersede_key', plainly },
  content_type = { anything, 'content_type', plainly },
  metadata = { anything, 'metadata', plainly },
}

-- One job as write_job.lua reads it, into `args`; or what is wrong with it.
local function read_job(args, places, names)
  local id, queue, job_type, payload = take_given(), take_given(), take_given(), take_given()
  local n_options = tonumber(take_given() or '')
  if not payload or not n_options or n_options < 0 or n_options > 100 or n_options % 1 ~= 0 then
    return 'has no number of options behind its payload'
  end
  for what, name in pairs({ id = id, queue = queue, type = job_type }) do
    local why = misnamed(name)
    if why then
      return 'has the ' .. what .. ' `' .. string.sub(name, 1, 40) .. '`, which ' .. why
    end
  end
  if #payload > PAYLOAD_BYTES_MAX then
    return 'has a payload of ' .. #payload .. ' bytes, at most ' .. PAYLOAD_BYTES_MAX .. ' are allowed'
  end
  if not places[queue] then
    names[#names + 1] = queue
    places[queue] = #names
  end
  local fields, known = {}, {}
  for _ = 1, n_options do
    local name, value = take_given(), take_given()
    local option = name and OPTIONS[name]
    if not option then
      return 'has the unknown option `' .. string.sub(name or '', 1, 40) .. '`'
    elseif not value then
      return 'has no value for its option `' .. name .. '`'
    end
    local why = option[1](value)
    if why then
      return 'has `' .. string.sub(value, 1, 40) .. '` for option `' .. name .. '`, which ' .. why
    elseif known[option[2]] then
      return 'says twice what `' .. name .. '` says'
    end
    known[option[2]] = value
    fields[#fields + 1], fields[#fields + 2] = option[2], option[3](value)
  end
  for _, value in ipairs({ places[queue], id, job_type, payload, #fields / 2, unpack(fields) }) do
    args[#args + 1] = tostring(value)
  end
  return nil, id
end

local PREFIX_GIVEN, n_jobs = KEYS[1], tonumber(given[2] or '')
if given[1] ~= CONTRACT then
  return redis.error_reply('REFUSED this script speaks contract ' .. CONTRACT .. ', it was called with contract `'
    .. string.sub(given[1] or '', 1, 40) .. '`: load the script that your client was made for')
elseif #KEYS ~= 1 or PREFIX_GIVEN == '' then
  return redis.error_reply('REFUSED one key is needed: the prefix, such as `wasmhost`')
elseif not n_jobs or n_jobs < 1 or n_jobs > JOBS_MAX or n_jobs % 1 ~= 0 then
  return redis.error_reply('REFUSED the number of jobs is `' .. string.sub(given[2] or '', 1, 40)
    .. '`, must be 1 to ' .. JOBS_MAX)
end
next_given = 2
local given_ids, given_jobs, given_places, given_names = {}, {}, {}, {}
for n = 1, n_jobs do
  local why, id = read_job(given_jobs, given_places, given_names)
  if why then
    return redis.error_reply('REFUSED job ' .. n .. ' ' .. why)
  end
  given_ids[n] = id
end
if given[next_given + 1] then
  return redis.error_reply('REFUSED there are ' .. #given - next_given .. ' arguments behind the last job')
end
local layout = redis.pcall('HGET', PREFIX_GIVEN .. ':meta', 'layout')
if type(layout) == 'table' or layout and layout ~= '1' then
  return redis.error_reply('REFUSED the keys under `' .. PREFIX_GIVEN .. '` have another layout than this script writes: '
    .. 'load the script of the wasmhost that runs there')
end

-- The keys and arguments of enqueue.lua, in the place of those that were given. The four without a name are those of
-- the published jumpscripts, which a producer has nothing to do with.
local KEYS = { PREFIX_GIVEN, PREFIX_GIVEN .. ':wake', PREFIX_GIVEN .. ':queues', '', '', '', '' }
local ARGV = { time[1], string.sub('00000' .. time[2], -6) .. '000', tostring(#given_names) }
for _, name in ipairs(given_names) do
  ARGV[#ARGV + 1] = name
  for _, part in ipairs({ 'ready', 'scheduled', 'inflight', 'done', 'dlq', 'aside', 'counters', 'cancelled', 'settings',
    'keys', 'slots' }) do
    KEYS[#KEYS + 1] = PREFIX_GIVEN .. ':queue:' .. name .. ':' .. part
  end
end
ARGV[#ARGV + 1] = tostring(n_jobs)
for _, value in ipairs(given_jobs) do
  ARGV[#ARGV + 1] = value
end
-- Behind this line: what the hosts' own enqueue is made of.

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
local enqueued = (function()
-- Limits by key: how many jobs of one key run at once, and how many begin in a time.
--
-- A job that would be one too many is parked: it waits in a list of its key, outside `ready`, and goes to the head of
-- its queue when a job of its key ends. A job that would be too early waits in `scheduled`; its place in time is taken.
--
-- `keys`   key -> running, parked, and the time in milliseconds at which a steady stream would have its next begin
-- `slots`  id -> key, for every job that counts as running; what is in it and does not run is given back by the sweep
-- Both have a long value under the empty name, while they are in use: Redis searches a small hash from end to end, which
-- would cost more than all the rest, but keeps one with a long value as a table.
--
-- Nothing here is asked for in a queue without limits by key.
parts.limits = function()
  local PAD, PAD_VALUE = '', string.rep('-', 100)

  local function parked_list(q, key)
    return sub(q.ready, 1, -6) .. 'parked:' .. key
  end

  -- How many are parked for a key, from its state as it is written.
  local function parked_of(text)
    return tonumber(match(text, '^%d+ (%d+) ') or 0)
  end

  -- The state of a key from how it is written; false when it has none.
  local function state_of(text)
    if not text then
      return { running = 0, parked = 0, next_ms = 0 }
    end
    local running, parked, next_ms = match(text, '^(%d+) (%d+) (%d+)$')
    return { running = tonumber(running) or 0, parked = tonumber(parked) or 0, next_ms = tonumber(next_ms) or 0 }
  end

  -- The states of keys, from one read; `order` keeps the keys in the order in which they were first asked for.
  local function key_states(q, keys)
    local states, order = {}, {}
    local found = #keys > 0 and try('HMGET', q.keys, unpack(keys)) or NOTHING
    for n = 1, #keys do
      local key = keys[n]
      if not states[key] then
        states[key] = state_of(found[n])
        order[#order + 1] = key
      end
    end
    return states, order
  end

  local function write_key_states(q, states, order)
    local values, gone, n_values, n_gone = {}, {}, 0, 0
    for _, key in ipairs(order) do
      local state = states[key]
      if state.running == 0 and state.parked == 0 and state.next_ms <= now_ms then
        n_gone = n_gone + 1
        gone[n_gone] = key
      else
        local is_plain = state.running == 1 and state.parked == 0 and state.next_ms == 0
        values[n_values + 1] = key
        values[n_values + 2] = is_plain and '1 0 0'
          or whole(state.running) .. ' ' .. whole(state.parked) .. ' ' .. whole(state.next_ms)
        n_values = n_values + 2
      end
    end
    if n_gone > 0 then
      call('HDEL', q.keys, unpack(gone))
    end
    if n_values > 0 then
      call('HSET', q.keys, unpack(values))
    end
  end

  local function write_slots(q, slots)
    if #slots > 0 then
      call('HSET', q.slots, unpack(slots))
    end
  end

  -- Whether keys are limited in a queue, and can be: a structure of the wrong type limits nothing.
  local function has_key_limits(q)
    if q.is_limited == nil then
      local set = settings(q)
      q.is_limited = (set.key_concurrency or set.key_rate) and true or false
      for _, name in ipairs({ q.keys, q.slots }) do
        local found = q.is_limited and kind(name) or 'none'
        q.is_limited = q.is_limited and (found == 'none' or found == 'hash')
        if q.is_limited and found == 'none' then
          try('HSET', name, PAD, PAD_VALUE)
        end
      end
    end
    return q.is_limited
  end

  -- Puts a job that may not run yet where it waits, or lets it run. `held` is the key for which it counts already.
  -- Returns whether it may run, and whether it counts from now on.
  local function admit_one(q, id, state, held, is_paid, parked)
    local set = settings(q)
    if held then
      -- It has counted since it was let in: a lost worker had it, or its turn came while it was parked.
      return true, false
    elseif set.key_concurrency and (state.running >= set.key_concurrency or state.parked > 0) then
      parked[#parked + 1] = id
      state.parked = state.parked + 1
      return false, false
    end
    local start_ms = now_ms
    if set.key_rate and not is_paid then
      local every_ms = set.key_rate_ms / set.key_rate
      -- As many as the rate says may begin at once; after that they keep their distance.
      start_ms = math.max(now_ms, state.next_ms - set.key_rate_ms + every_ms)
      state.next_ms = math.max(state.next_ms, now_ms) + every_ms
    end
    if start_ms > now_ms then
      local due_ms = math.ceil(start_ms)
      local seconds, nanos = whole(math.floor(due_ms / 1000)), fmt('%03d000000', due_ms % 1000)
      call('HSET', JOB .. id, 'status', 'scheduled', 'run_at_nano', seconds .. nanos, 'limit_paid', '1')
      to_schedule(q, id, seconds, nanos)
      return false, false
    end
    if set.key_concurrency then
      state.running = state.running + 1
    end
    return true, set.key_concurrency ~= nil
  end

  -- The keys for which jobs count already, by id. A job that nobody has touched since it was enqueued counts for none.
  local function held_slots(q, waiting)
    local asked, held = {}, {}
    for n = 1, waiting.n do
      asked[#asked + 1] = waiting.is_checked[n] and waiting.ids[n] or nil
    end
    local found = #asked > 0 and call('HMGET', q.slots, unpack(asked)) or NOTHING
    for n = 1, #asked do
      held[asked[n]] = found[n]
    end
    return held
  end

  -- Jobs that have a key and are about to be handed out. Returns which of them may run, by their place; the others are
  -- parked or scheduled. `waiting`: n, and by place ids, keys, rows, and whether a row was checked field by field.
  local function admit(q, waiting)
    local ids, keys, is_checked = waiting.ids, waiting.keys, waiting.is_checked
    local found, held, has_rate = call('HMGET', q.keys, unpack(keys)), held_slots(q, waiting), settings(q).key_rate
    local plain, values, n_values, slots, n_slots, may_run = {}, {}, 0, {}, 0, {}
    local states, order, parked = {}, {}, {}
    for n = 1, waiting.n do
      local id, key = ids[n], keys[n]
      if not (found[n] or plain[key] or has_rate or is_checked[n]) then
        -- By far the most: nothing of its key runs or waits. No state is made for it, which would cost more than Redis.
        plain[key], may_run[n] = true, true
        values[n_values + 1], values[n_values + 2] = key, '1 0 0'
        slots[n_slots + 1], slots[n_slots + 2] = id, key
        n_values, n_slots = n_values + 2, n_slots + 2
      else
        local state = states[key]
        if not state then
          state = state_of(plain[key] and '1 0 0' or found[n])
          states[key], order[#order + 1], parked[key] = state, key, {}
        end
        local is_counted
        local is_paid = is_checked[n] and waiting.rows[n].limit_paid == '1'
        may_run[n], is_counted = admit_one(q, id, state, held[id] == key, is_paid, parked[key])
        if is_counted then
          slots[n_slots + 1], slots[n_slots + 2] = id, key
          n_slots = n_slots + 2
        end
      end
    end
    if n_values > 0 then
      call('HSET', q.keys, unpack(values))
    end
    -- Behind the plain ones: a key may be in both.
    write_key_states(q, states, order)
    write_slots(q, slots)
    local n_parked = 0
    for key, list in pairs(parked) do
      if #list > 0 then
        call('RPUSH', parked_list(q, key), unpack(list))
        n_parked = n_parked + #list
      end
    end
    count(q, 'parked', n_parked)
    return may_run
  end

  -- Lets in who is parked for a key, as far as its limit goes. Some that were cancelled while they were parked may come
  -- before the next one that can run; eight a call are looked at.
  local function let_in(q, key, state, slots)
    local most, n_out = settings(q).key_concurrency, 0
    while n_out < 8 and state.parked > 0 and (not most or state.running < most) do
      local id = try('LPOP', parked_list(q, key))
      if type(id) ~= 'string' then
        state.parked = 0
        break
      end
      state.parked, n_out = state.parked - 1, n_out + 1
      local row = try('HMGET', JOB .. id, 'status', 'priority')
      if row[1] == 'ready' then
        if most then
          state.running = state.running + 1
          slots[#slots + 1], slots[#slots + 2] = id, key
          -- Its row is no longer that of a job which nobody has touched.
          call('HSET', JOB .. id, 'limit_slot', '1')
        end
        to_head(q, id, row[2])
      elseif row[1] == 'cancelled' then
        call('EXPIRE', JOB .. id, CANCELLED_HOURS * 3600)
      end
    end
    count(q, 'parked', -n_out)
  end

  -- Gives back the slots of jobs that run no more; whoever is parked for one takes it and goes to the head of its queue.
  local function release(q, ids)
    local found, gone, keys, n_gone = call('HMGET', q.slots, unpack(ids)), {}, {}, 0
    for n = 1, #ids do
      if found[n] then
        n_gone = n_gone + 1
        gone[n_gone], keys[n_gone] = ids[n], found[n]
      end
    end
    if n_gone == 0 then
      return
    end
    call('HDEL', q.slots, unpack(gone))
    local texts, free, n_free, is_free = call('HMGET', q.keys, unpack(keys)), {}, 0, {}
    local states, order, slots = {}, {}, {}
    for n = 1, n_gone do
      local key = keys[n]
      if texts[n] == '1 0 0' and not is_free[key] then
        -- By far the most: it was the only one of its key, and nobody waits.
        n_free = n_free + 1
        free[n_free], is_free[key] = key, true
      else
        local state = states[key]
        if not state then
          state = state_of(not is_free[key] and texts[n])
          states[key], order[#order + 1] = state, key
        end
        state.running = math.max(0, state.running - 1)
        let_in(q, key, state, slots)
      end
    end
    if n_free > 0 then
      call('HDEL', q.keys, unpack(free))
    end
    write_key_states(q, states, order)
    write_slots(q, slots)
  end

  -- Counts keys anew and lets in who is parked for them, as far as their limit goes. `running`: jobs that run, by key;
  -- without it what is counted of them is believed.
  local function mend_keys(q, keys, running)
    local states, order = key_states(q, keys)
    local slots = {}
    for _, key in ipairs(order) do
      local state, length = states[key], try('LLEN', parked_list(q, key))
      state.parked = type(length) == 'number' and length or 0
      state.running = running and (running[key] or 0) or state.running
      let_in(q, key, state, slots)
    end
    write_key_states(q, states, order)
    write_slots(q, slots)
  end

  -- A parked job was taken out of the list of its key.
  local function unpark(q, key)
    local states, order = key_states(q, { key })
    states[key].parked = math.max(0, states[key].parked - 1)
    write_key_states(q, states, order)
    count(q, 'parked', -1)
  end

  -- Looks at some slots and keys by chance: what counts as running and does not is given back, and a key whose limit was
  -- raised or taken away lets more in. So a lost count heals, whatever lost it.
  local function mend(q)
    local some, gone = try('HRANDFIELD', q.slots, 20, 'WITHVALUES'), {}
    for n = 1, some.err and 0 or #some, 2 do
      local status = try('HGET', JOB .. some[n], 'status')
      if some[n] ~= PAD and status ~= 'inflight' and status ~= 'ready' and status ~= 'scheduled' then
        gone[#gone + 1] = some[n]
      end
    end
    release_slots(q, gone)
    some = try('HRANDFIELD', q.keys, 20)
    if some.err or #some == 0 then
      return
    elseif #some == 1 and some[1] == PAD and try('HLEN', q.slots) == 1 and try('HEXISTS', q.slots, PAD) == 1 then
      -- Nothing is limited now.
      call('DEL', q.keys, q.slots)
      return
    end
    local keys = {}
    for _, key in ipairs(some) do
      keys[#keys + 1] = key ~= PAD and key or nil
    end
    -- Few slots are counted anew; many are taken as they are.
    local running, n_slots = nil, try('HLEN', q.slots)
    if n_slots == 0 or type(n_slots) == 'number' and n_slots <= 1000 then
      running = {}
      for _, key in ipairs(call('HVALS', q.slots)) do
        running[key] = (running[key] or 0) + 1
      end
    end
    mend_keys(q, keys, running)
  end

  return { parked_list = parked_list, parked_of = parked_of, key_states = key_states, write_key_states = write_key_states,
    has_key_limits = has_key_limits, admit = admit, release = release, mend = mend,
    mend_keys = mend_keys, unpark = unpark }
end
-- Takes a job out before it has ended: it is cancelled, and listed as such for a day.
parts.withdraw = function()
  -- In a list longer than this an id is left where it is: its row says that it is cancelled, and whoever takes the id from
  -- the list drops it.
  local SEARCH_MAX = 10000

  -- Whether an id was taken out of a list.
  local function remove_from(list, id)
    local length = try('LLEN', list)
    return type(length) == 'number' and length > 0 and length <= SEARCH_MAX and call('LREM', list, 1, id) > 0
  end

  -- Removes a waiting or running job from the structure that its row speaks of. Whether no structure names it any more.
  local function remove(q, id, status, row)
    if status == 'dropped' then
      return true
    elseif status == 'inflight' then
      return call('ZREM', q.inflight, id) > 0
    elseif status == 'scheduled' then
      local nanos = row.run_at_nano and #row.run_at_nano > 9 and sub(row.run_at_nano, -9) or '000000000'
      return call('ZREM', q.scheduled, nanos .. ':' .. id, id) > 0
    elseif row.limit_key and row.limit_key ~= '' and remove_from(part('limits').parked_list(q, row.limit_key), id) then
      part('limits').unpark(q, row.limit_key)
      return true
    end
    return remove_from(is_priority(row.priority) and prio_list(q, row.priority) or q.ready, id)
  end

  -- Cancels a job that is scheduled, ready or in flight, or was taken from its list already (`dropped`). The structures of the queue must have been looked at (trouble).
  local function withdraw(q, id, status, row, reason)
    local is_gone = remove(q, id, status, row)
    release_slots(q, { id })
    call('HSET', JOB .. id, 'status', 'cancelled', 'lease_token', '', 'lease_expires_at_nano', '0', 'run_at_nano', '0',
      'last_error', reason, 'error_kind', 'cancelled', 'finished_at_nano', now_nano)
    if is_gone then
      call('EXPIRE', JOB .. id, CANCELLED_HOURS * 3600)
    end
    call('RPUSH', q.cancelled, id)
    call('LTRIM', q.cancelled, -CANCELLED_MAX, -1)
    call('EXPIRE', q.cancelled, CANCELLED_HOURS * 3600)
    count(q, 'cancelled', 1)
    part('answer').tell(q, id, 'failed', reason)
    tell_ended({ id }, 1)
  end

  return withdraw
end
-- Jobs that are to be written: by a producer (enqueue.lua) or as an effect of another job (effects.lua).
-- First every job of a call is looked at, then every job is written.
--
-- ARGV of one job: index of its queue, id, type, payload, number of further fields, name and value of each. The further
-- fields are those of the job's hash (docs/keys.md): run_at_nano timeout_nano max_attempts retry_base_ms
-- retry_cap_ms idempotency_key content_type pin metadata priority limit_key supersede_key. A time or a count is digits,
-- and none begins with a 0 (a priority is one digit). An empty value means not given.
parts.jobs = function()
  local function take_job()
    local job = { q = queues[tonumber(ARGV[at + 1])], id = ARGV[at + 2], type = ARGV[at + 3], payload = ARGV[at + 4],
      n_more = 2 * tonumber(ARGV[at + 5]), first = at + 6 }
    at = at + 5 + job.n_more
    for n = job.first, at, 2 do
      if ARGV[n] == 'idempotency_key' and ARGV[n + 1] ~= '' then
        job.idempotency = PREFIX .. ':idem:' .. job.q.name .. ':' .. ARGV[n + 1]
      end
    end
    return job
  end

  -- Ids and idempotency keys that earlier jobs of this call will take.
  local planned = {}

  -- The id of the job that is there already, or nil; and why it cannot be told. `is_free`: the row is known not to be.
  local function existing(job, row, is_free)
    if job.idempotency then
      local known = planned[job.idempotency] or try('GET', job.idempotency)
      if type(known) == 'table' then
        return nil, 'key `' .. job.idempotency .. '` is not a string'
      elseif known then
        return known
      end
    end
    if planned[row] or not is_free and call('EXISTS', row) == 1 then
      return job.id
    end
    planned[row] = true
    if job.idempotency then
      planned[job.idempotency] = job.id
    end
  end

  local function is_later(seconds, nanos)
    local difference = tonumber(seconds) - tonumber(now_s)
    return difference > 0 or difference == 0 and nanos > now_n
  end

  -- Why a queue takes no `n` further jobs, or nil. Asked before anything is written: a full queue that drops its oldest
  -- jobs has room, as far as `ready` has jobs to drop.
  local function full(q, n)
    local set = settings(q)
    if not set.capacity then
      return nil
    end
    local reason = trouble(q)
    if reason then
      return reason
    end
    local waiting = 0
    for _, list in ipairs({ q.ready, prio_list(q, 0), prio_list(q, 1), prio_list(q, 2), prio_list(q, 3), prio_list(q, 4),
      prio_list(q, 5), prio_list(q, 6), prio_list(q, 7), prio_list(q, 8), prio_list(q, 9) }) do
      local length = try('LLEN', list)
      waiting = waiting + (type(length) == 'number' and length or 0)
    end
    waiting = waiting + call('ZCARD', q.scheduled) + math.max(0, tonumber(try('HGET', q.counters, 'parked') or 0) or 0)
    q.n_over = waiting + n - set.capacity
    if q.n_over > 0 and (set.on_full ~= 'drop_oldest' or n > set.capacity or q.n_over > call('LLEN', q.ready)) then
      return 'queue `' .. q.name .. '` is full: ' .. whole(waiting) .. ' jobs wait, ' .. whole(set.capacity) .. ' may'
    end
  end

  -- Makes the room that `full` has promised.
  local function make_room(q)
    if not q.n_over or q.n_over <= 0 then
      return
    end
    for _, id in ipairs(call('LPOP', q.ready, q.n_over) or {}) do
      local status = try('HGET', JOB .. id, 'status')
      if status == 'ready' or status == 'scheduled' then
        part('withdraw')(q, id, 'dropped', {}, 'dropped: its queue was full and it was the oldest')
      end
    end
    count(q, 'dropped', q.n_over)
    q.n_over = 0
  end

  -- The newest job of a key stands for all before it that still wait.
  local function supersede(q, key, id)
    local latest = PREFIX .. ':latest:' .. q.name .. ':' .. key
    local old = try('GET', latest)
    if type(old) == 'string' and old ~= id then
      local found = try('HMGET', JOB .. old, 'status', 'queue', 'run_at_nano', 'limit_key', 'priority')
      if (found[1] == 'ready' or found[1] == 'scheduled') and found[2] == q.name then
        part('withdraw')(q, old, found[1], { run_at_nano = found[3], limit_key = found[4], priority = found[5] },
          'superseded by job `' .. id .. '` of the same key')
      end
    end
    call('SET', latest, id, 'EX', IDEMPOTENCY_DAYS * 86400)
  end

  local function write_job(job, row)
    local q, id = job.q, job.id
    if job.n_more == 0 then
      call('HSET', row, 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready',
        'created_at_nano', now_nano)
      return to_tail(q, id)
    end
    local fields = { 'type', job.type, 'queue', q.name, 'payload', job.payload, 'status', 'ready', 'created_at_nano', now_nano }
    local n, run_s, run_n, pin, priority = 10, nil, nil, nil, nil
    for m = job.first, job.first + job.n_more - 1, 2 do
      local name, value = ARGV[m], ARGV[m + 1]
      if value ~= '' then
        if name == 'run_at_nano' then
          run_s, run_n = sub(value, 1, -10), sub(value, -9)
          if #value < 10 or not is_later(run_s, run_n) then
            run_s, value = nil, nil
          end
        elseif name == 'pin' then
          pin = value
        elseif name == 'priority' then
          priority = value
        elseif name == 'supersede_key' then
          supersede(q, value, id)
        end
        if value then
          fields[n + 1], fields[n + 2] = name, value
          n = n + 2
        end
      end
    end
    if run_s then
      fields[8] = 'scheduled'
    end
    call('HSET', row, unpack(fields, 1, n))
    if job.idempotency then
      call('SET', job.idempotency, id, 'EX', IDEMPOTENCY_DAYS * 86400)
    end
    if run_s then
      to_schedule(q, id, run_s, run_n)
    else
      to_tail(q, id, priority)
    end
    if pin then
      keep(pin, math.max(tonumber(now_s), tonumber(run_s) or 0) + DLQ_DAYS * 86400)
    end
  end

  return { take = take_job, existing = existing, full = full, make_room = make_room, write = write_job }
end
-- Tells the system that a job was taken over from what becomes of it, whoever makes it so: a take-over, a worker, a
-- sweep, a person. Such a job is in a queue `word-...` and has an id `word:their id`. What is told at which moment stands
-- in `protocols` under the word, written by every take-over (take_over.lua), one write a line, tabs between words:
--   moment F key text time (field value) x n   sets fields of a hash: `text` to what became of the job in words, `time` to
--                                              now, and others; an empty name is left out
--   moment Q key milliseconds                  appends what became of the job to a list, and gives it a time to live
--   moment H key field x n                     removes fields of a hash
-- Keys end where the id belongs. Moments: started, again (it has ended before), done, failed.
--
-- What cannot be written holds nothing up: it is counted. A hash that is gone stays gone. A job of ours costs a look at
-- the name of its queue.
parts.answer = function()
  local PROTOCOLS = PREFIX .. ':protocols'
  local known = {}

  -- Now, as 2025-08-14T12:14:34.123Z.
  local function time_text()
    local seconds = tonumber(now_s)
    local day = math.floor(seconds / 86400)
    local second = seconds - day * 86400
    -- Years begin in March here, so that the day that comes every four years is the last one.
    local shifted = day + 719468
    local era = math.floor(shifted / 146097)
    local of_era = shifted - era * 146097
    local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
      - math.floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * of_year + 2) / 153)
    local date = of_year - math.floor((153 * month + 2) / 5) + 1
    month = month < 10 and month + 3 or month - 9
    return fmt('%04d-%02d-%02dT%02d:%02d:%02d.%sZ', year + era * 400 + (month <= 2 and 1 or 0), month, date,
      math.floor(second / 3600), math.floor(second / 60) % 60, second % 60, sub(now_n, 1, 3))
  end

  -- One write from its words; nil when it is none that is known here.
  local function write_of(words)
    local write = { op = words[2], key = words[3], args = {} }
    local args = write.args
    if write.op == 'F' and #words >= 5 then
      for n = 6, #words do
        args[#args + 1] = words[n]
      end
      if words[5] ~= '' then
        args[#args + 1], args[#args + 2] = words[5], time_text()
      end
      if words[4] ~= '' then
        args[#args + 1] = words[4]
        write.text_at = #args + 1
      end
      write.n_fields = math.ceil(#args / 2)
    elseif write.op == 'Q' and words[4] then
      write.milliseconds = words[4]
    elseif write.op == 'H' and words[4] then
      for n = 4, #words do
        args[n - 3] = words[n]
      end
    else
      return nil
    end
    return write
  end

  -- What a system is told, by moment; false when nobody has said.
  local function moments_of(word)
    if known[word] == nil then
      local text, moments = try('HGET', PROTOCOLS, word), false
      for line in string.gmatch(type(text) == 'string' and text or '', '[^\n]+') do
        local words = {}
        for one in string.gmatch(line .. '\t', '([^\t]*)\t') do
          words[#words + 1] = one
        end
        local write = write_of(words)
        moments = moments or {}
        moments[words[1]] = moments[words[1]] or {}
        table.insert(moments[words[1]], write)
      end
      known[word] = moments
    end
    return known[word]
  end

  -- What the system is told that the jobs of a queue are from; false for a queue of ours.
  local function of(q)
    if q.told == nil then
      local word = match(q.name, '^(%l+)%-')
      q.told = word and moments_of(word) or false
      q.mark = word and word .. ':'
    end
    return q.told
  end

  -- Sets fields of a hash. Whether it was there.
  local function set_fields(write, key, text)
    local args = write.args
    if write.text_at then
      args[write.text_at] = text
    end
    local n_new = try('HSET', key, unpack(args))
    if n_new == write.n_fields and call('HLEN', key) == n_new then
      call('DEL', key)
      return false
    end
    return type(n_new) == 'number'
  end

  -- Makes the writes of a moment for a job, by the id that it has there.
  local function write(q, theirs, writes, text)
    local is_told = true
    for n = 1, #writes do
      local write = writes[n]
      local key = write.key .. theirs
      if write.op == 'F' then
        is_told = set_fields(write, key, text) and is_told
      elseif write.op == 'Q' then
        if type(try('RPUSH', key, text)) == 'number' then
          try('PEXPIRE', key, write.milliseconds)
        else
          is_told = false
        end
      else
        try('HDEL', key, unpack(write.args))
      end
    end
    if not is_told then
      count(q, 'unanswered', 1)
    end
  end

  -- Tells what has become of a job, in words.
  local function tell(q, id, moment, text)
    local told = of(q)
    if told and told[moment] and sub(id, 1, #q.mark) == q.mark then
      write(q, sub(id, #q.mark + 1), told[moment], text)
    end
  end

  -- Keeps what a system is to be told. Whether that could be written.
  local function learn(q, word, text)
    if try('HGET', PROTOCOLS, word) ~= text then
      if type(try('HSET', PROTOCOLS, word, text)) ~= 'number' then
        return false
      end
      known[word], q.told = nil, nil
    end
    return true
  end

  return { of = of, write = write, tell = tell, learn = learn }
end
-- Enqueues a batch of jobs, all or none.
--
-- A job whose idempotency key is known, or whose id is there already, is not written; the answer names the one that is.
-- A full Redis refuses the first write, so nothing is left half done. A full queue takes none of the batch.
--
-- KEYS     head.lua
-- ARGV     head.lua, then: number of jobs, and each job as write_job.lua says
-- Returns  for each job that was not written: its place in the call, and the id of the one that is there

local part_jobs = part('jobs')
local take_job, existing, write_job = part_jobs.take, part_jobs.existing, part_jobs.write
local jobs, answers, rows = {}, {}, {}
local n_jobs = take_number()
for n = 1, n_jobs do
  local job = take_job()
  jobs[n], rows[n] = job, JOB .. job.id
end
-- One question for the whole batch: ids are fresh, unless the answer to an earlier call was lost.
local is_free = n_jobs > 0 and call('EXISTS', unpack(rows)) == 0
for n = 1, n_jobs do
  local job = jobs[n]
  -- A job without further fields is written to `ready` only.
  local reason = trouble(job.q, job.n_more == 0 and 'ready' or nil)
  if not reason then
    job.known, reason = existing(job, rows[n], is_free)
  end
  if reason then
    return redis.error_reply('REFUSED ' .. reason)
  end
end
local new = {}
for n = 1, n_jobs do
  local q = jobs[n].q
  new[q] = (new[q] or 0) + (jobs[n].known and 0 or 1)
end
for q, n in pairs(new) do
  local reason = n > 0 and part_jobs.full(q, n)
  if reason then
    return redis.error_reply('QUEUEFULL ' .. reason)
  end
end
for q, n in pairs(new) do
  if n > 0 then
    part_jobs.make_room(q)
    try('SADD', QUEUES, q.name)
  end
end
for n = 1, n_jobs do
  local job = jobs[n]
  if job.known then
    answers[#answers + 1], answers[#answers + 2] = n, job.known
  else
    write_job(job, rows[n])
  end
end
write_ends()
write_keeps()
return answers
end)()
-- Answers as the contract of producer.lua says: every job, and not only those that were there already.
--
-- Returns  for each job its id and 1; or, when it was there already, the id of the first one and 0

if enqueued.err then
  return enqueued
end
local told = {}
for n = 1, n_jobs do
  told[2 * n - 1], told[2 * n] = given_ids[n], 1
end
for n = 1, #enqueued, 2 do
  told[2 * enqueued[n] - 1], told[2 * enqueued[n]] = enqueued[n + 1], 0
end
return told
