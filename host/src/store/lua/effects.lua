-- The one interpreter of effects: typed writes that commit with the end of an attempt, and what they rest on.
-- take_effects reads them, obstacle looks whether all of them can be made, apply makes them.
--
-- A bucket is a hash. Its field without a name changes whenever a key is added or removed: who has listed the keys has
-- read that field.
--
-- ARGV of a list: number of effects, then each:
--   F key n (field value) x n    sets fields of a hash
--   S key value                  sets a string
--   P key value cap              appends to a list; cap 0 keeps all
--   U channel message            publishes
--   X key milliseconds           gives a time to live
--   D key                        removes
--   E job                        enqueues (write_job.lua)
--   T key milliseconds n (field value) x n m field x m
--                                sets and removes values of a bucket; 0 milliseconds leave its life as it is
--   R key n field x n seen x n   no write: what the attempt has read of a bucket. Seen is `-` (no value), `=` and the
--                                value, or for one of more than 64 bytes `#` and its SHA-1

-- The answer for an attempt that has read what has changed since.
local CONFLICT = 5

parts.effects = function()
  local NO_EFFECTS = {}

  local function take_effects()
    local n_effects = take_number()
    if n_effects == 0 then
      return NO_EFFECTS
    end
    local list = {}
    for n = 1, n_effects do
      local effect = { op = take() }
      if effect.op == 'E' then
        effect.job = part('jobs').take()
      elseif effect.op == 'R' then
        effect.key = take()
        local fields = take_number()
        effect.first, effect.last = at + 1, at + fields
        at = at + 2 * fields
      elseif effect.op == 'T' then
        effect.key, effect.ttl = take(), take_number()
        local sets = take_number() * 2
        effect.first, effect.last = at + 1, at + sets
        at = at + sets
        local removals = take_number()
        effect.removed_first, effect.removed_last = at + 1, at + removals
        at = at + removals
      else
        effect.key = take()
        if effect.op == 'F' then
          local fields = take_number() * 2
          effect.first, effect.last = at + 1, at + fields
          at = at + fields
        elseif effect.op ~= 'D' then
          effect.value = take()
          if effect.op == 'P' then
            effect.cap = take_number()
          end
        end
      end
      list[n] = effect
    end
    return list
  end

  local NEEDS = { F = 'hash', P = 'list', T = 'hash' }
  -- What keys will be once the effects accepted so far are made.
  local will_be = {}
  -- Jobs that they will write, by queue.
  local accepted_jobs = {}
  -- And values of buckets: key -> field -> value, false for none, true for one that is not known yet.
  local planned = {}

  local function plan(effect)
    local fields = planned[effect.key] or { [''] = true }
    planned[effect.key] = fields
    for n = effect.first, effect.last, 2 do
      fields[ARGV[n]] = ARGV[n + 1]
    end
    for n = effect.removed_first, effect.removed_last do
      fields[ARGV[n]] = false
    end
  end

  -- Whether what was read of a bucket is not what is there; or why that cannot be told, as a text.
  local function has_changed(effect)
    local found = try('HMGET', effect.key, unpack(ARGV, effect.first, effect.last))
    if found.err then
      return 'key `' .. effect.key .. '` is a ' .. kind(effect.key) .. ', must be a hash'
    end
    local plans = planned[effect.key] or NOTHING
    for n = 1, #found do
      local value, seen = plans[ARGV[effect.first + n - 1]], ARGV[effect.last + n]
      if value == nil then
        value = found[n]
      end
      local now = '-'
      if value == true then
        return true
      elseif value then
        now = #value > 64 and '#' .. redis.sha1hex(value) or '=' .. value
      end
      if now ~= seen then
        return true
      end
    end
    return false
  end

  -- Why these effects cannot be made (CONFLICT or a text), or nil. Nothing has been written when it answers.
  local function obstacle(list)
    if list == NO_EFFECTS then
      return nil
    end
    for _, effect in ipairs(list) do
      local changed = effect.op == 'R' and has_changed(effect)
      if changed then
        return changed == true and CONFLICT or changed
      end
    end
    local trial = setmetatable({}, { __index = will_be })
    for _, effect in ipairs(list) do
      local key, need = effect.key, NEEDS[effect.op]
      if need then
        local found = trial[key] or kind(key)
        if found ~= 'none' and found ~= need then
          return 'an effect writes to key `' .. key .. '` as a ' .. need .. ', but it is a ' .. found
        end
        trial[key] = need
      elseif effect.op == 'S' then
        trial[key] = 'string'
      elseif effect.op == 'D' then
        trial[key] = 'none'
      elseif effect.op == 'E' then
        local reason = trouble(effect.job.q)
        if reason then
          return 'an effect enqueues a job: ' .. reason
        end
      end
    end
    -- New jobs by queue; and how many a queue was to drop before they were asked for.
    local new, before = {}, {}
    for _, effect in ipairs(list) do
      if effect.op == 'E' then
        local job, q, reason = effect.job, effect.job.q, nil
        job.known, reason = part('jobs').existing(job, JOB .. job.id)
        if not reason and not job.known then
          before[q] = before[q] or q.n_over or 0
          new[q] = (new[q] or 0) + 1
          reason = part('jobs').full(q, (accepted_jobs[q] or 0) + new[q])
        end
        if reason then
          for other, n_over in pairs(before) do
            other.n_over = n_over
          end
          return 'an effect enqueues a job: ' .. reason
        end
      end
    end
    for q, n in pairs(new) do
      accepted_jobs[q] = (accepted_jobs[q] or 0) + n
    end
    for key, found in pairs(trial) do
      will_be[key] = found
    end
    for _, effect in ipairs(list) do
      if effect.op == 'T' then
        plan(effect)
      end
    end
  end

  local n_versions = 0
  local function apply_to_bucket(effect)
    local key, changed = effect.key, 0
    if effect.removed_first <= effect.removed_last then
      changed = call('HDEL', key, unpack(ARGV, effect.removed_first, effect.removed_last))
    end
    if effect.first <= effect.last then
      changed = changed + call('HSET', key, unpack(ARGV, effect.first, effect.last))
    end
    if changed > 0 and effect.first > effect.last and call('HLEN', key) == 1 then
      call('DEL', key)
    elseif changed > 0 then
      n_versions = n_versions + 1
      call('HSET', key, '', now_nano .. '-' .. n_versions)
    end
    if effect.ttl > 0 then
      call('PEXPIRE', key, effect.ttl)
    end
  end

  local function apply(list)
    for _, effect in ipairs(list) do
      local op, key = effect.op, effect.key
      if op == 'F' then
        call('HSET', key, unpack(ARGV, effect.first, effect.last))
      elseif op == 'S' then
        call('SET', key, effect.value)
      elseif op == 'P' then
        call('RPUSH', key, effect.value)
        if effect.cap > 0 then
          call('LTRIM', key, -effect.cap, -1)
        end
      elseif op == 'U' then
        call('PUBLISH', key, effect.value)
      elseif op == 'X' then
        call('PEXPIRE', key, effect.value)
      elseif op == 'D' then
        call('DEL', key)
      elseif op == 'T' then
        apply_to_bucket(effect)
      elseif op == 'E' and not effect.job.known then
        part('jobs').make_room(effect.job.q)
        part('jobs').write(effect.job, JOB .. effect.job.id)
        try('SADD', QUEUES, effect.job.q.name)
      end
    end
  end

  return { take = take_effects, obstacle = obstacle, apply = apply }
end
