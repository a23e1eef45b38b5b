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
