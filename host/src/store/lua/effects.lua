-- The one interpreter of effects: typed writes that commit with the end of an attempt.
-- take_effects reads them, obstacle looks whether all of them can be made, apply makes them.
--
-- ARGV of a list: number of effects, then each:
--   F key n (field value) x n    sets fields of a hash
--   S key value                  sets a string
--   P key value cap              appends to a list; cap 0 keeps all
--   U channel message            publishes
--   X key milliseconds           gives a time to live
--   D key                        removes
--   E job                        enqueues (write_job.lua)
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

  local NEEDS = { F = 'hash', P = 'list' }
  -- What keys will be once the effects accepted so far are made.
  local will_be = {}

  -- Why these effects cannot be made, or nil. Nothing has been written when it answers.
  local function obstacle(list)
    if list == NO_EFFECTS then
      return nil
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
    for _, effect in ipairs(list) do
      if effect.op == 'E' then
        local reason
        effect.job.known, reason = part('jobs').existing(effect.job, JOB .. effect.job.id)
        reason = reason or not effect.job.known and part('jobs').full(effect.job.q, 1) or nil
        if reason then
          return 'an effect enqueues a job: ' .. reason
        end
      end
    end
    for key, found in pairs(trial) do
      will_be[key] = found
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
      elseif not effect.job.known then
        part('jobs').make_room(effect.job.q)
        part('jobs').write(effect.job, JOB .. effect.job.id)
        try('SADD', QUEUES, effect.job.q.name)
      end
    end
  end

  return { take = take_effects, obstacle = obstacle, apply = apply }
end
