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

