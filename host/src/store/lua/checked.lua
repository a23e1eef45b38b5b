-- Records with other fields than those of a fresh job of ours: checked field by field before they are handed out.

parts.checked = function()
  -- Fields that hold a count, in the order in which they are checked.
  local COUNTS = { 'attempts', 'max_attempts', 'timeout_nano', 'retry_base_ms', 'retry_cap_ms' }

  -- A count with a cap; digits only, any length.
  local function capped(text, most)
    return #text > 15 and most or math.min(tonumber(text), most)
  end

  -- Why a record cannot be run: the first field that is wrong.
  local function fault(row)
    if not row.type or row.type == '' then
      return 'field `type` is missing'
    elseif #row.type > NAME_MAX then
      return 'field `type` has ' .. #row.type .. ' bytes, at most ' .. NAME_MAX .. ' are allowed'
    elseif not row.queue then
      return 'field `queue` is missing'
    elseif row.payload and #row.payload > PAYLOAD_MAX then
      return 'field `payload` has ' .. #row.payload .. ' bytes, at most ' .. PAYLOAD_MAX .. ' are allowed'
    end
    for _, name in ipairs(COUNTS) do
      local value = row[name]
      if value and (value == '' or find(value, '%D')) then
        return 'field `' .. name .. '` is `' .. sub(value, 1, 40) .. '`, must be a number from 0'
      end
    end
    if row.attempts and (#row.attempts > 15 or tonumber(row.attempts) > 2147483647) then
      return 'field `attempts` is `' .. sub(row.attempts, 1, 40) .. '`, which is no count of attempts'
    elseif row.run_at_nano and not match(row.run_at_nano, '^-?%d+$') then
      return 'field `run_at_nano` is `' .. sub(row.run_at_nano, 1, 40) .. '`, must be a number'
    end
  end

  -- Why an id must not be run at all, whatever its record says; nil when it may.
  local function misfit(q, id, row)
    local status = row.status
    if status == 'ready' then
      return nil
    elseif not status or status == '' then
      if not (row.type or row.queue or row.payload) and call('EXISTS', JOB .. id) == 0 then
        return 'there is no record of it'
      end
    elseif status == 'inflight' then
      if call('ZSCORE', q.inflight, id) then
        return 'it is in flight already (its id stood twice in the queue)'
      end
    elseif status ~= 'scheduled' then
      return 'its status is `' .. sub(status, 1, NAME_MAX) .. '`, so it is not to be run'
    end
  end

  -- Leases a record that was checked. Returns how it is told to the host.
  local function lease(r, q, id, row)
    local deliveries = row.deliveries and whole((tonumber(row.deliveries) or 0) + 1) or '1'
    local place, digest = r.kind_of_job(r, q, row.type, row.pin or '')
    local fields = { 'status', 'inflight', 'lease_token', r.token, 'lease_expires_at_nano', r.expires, 'node', r.node,
      'deliveries', deliveries }
    if digest ~= '' then
      fields[11], fields[12] = 'digest', digest
    end
    if row.run_at_nano and row.run_at_nano ~= '0' then
      fields[#fields + 1], fields[#fields + 2] = 'run_at_nano', '0'
    end
    if row.limit_paid then
      fields[#fields + 1], fields[#fields + 2] = 'limit_paid', ''
    end
    if row.queue ~= q.name then
      -- The list was renamed, or the producer pushed to another queue: the list is what counts.
      fields[#fields + 1], fields[#fields + 2] = 'queue', q.name
    end
    call('HSET', JOB .. id, unpack(fields))
    local e = #r.extras
    r.extras[e + 1] = row.attempts and tonumber(row.attempts) or 0
    -- 0 is TaskHarbor's word for "not given", where a worker without a policy runs it once.
    r.extras[e + 2] = row.max_attempts and math.max(1, capped(row.max_attempts, ATTEMPTS_MAX)) or 0
    r.extras[e + 3], r.extras[e + 4] = row.timeout_nano or '0', deliveries
    r.extras[e + 5], r.extras[e + 6] = row.content_type or '', row.metadata or ''
    r.extras[e + 7], r.extras[e + 8] = row.retry_base_ms or '', row.retry_cap_ms or ''
    return place, row.payload or '', row.created_at_nano or '0', e / 8 + 1
  end

  -- A record with other fields than those of a fresh job of ours: checked field by field. Returns how it is told to
  -- the host, or nil when it is not handed out; jobs with a key gather in `waiting`.
  local function hand_out(r, q, id, found, waiting)
    local row, reason = {}, nil
    if id == '' then
      reason = 'its id is empty'
    elseif #id > ID_MAX then
      reason = 'its id has ' .. #id .. ' bytes, at most ' .. ID_MAX .. ' are allowed'
    elseif r.handed[id] then
      reason = 'it is in flight already (its id stood twice in the queue)'
    elseif found.err then
      reason = 'key `' .. JOB .. id .. '` is not a hash'
    else
      for n = 1, #found, 2 do
        row[found[n]] = found[n + 1]
      end
      reason = misfit(q, id, row)
    end
    if reason and row.status == 'cancelled' then
      return call('EXPIRE', JOB .. id, CANCELLED_HOURS * 3600) and nil
    elseif reason then
      return part('dead').set_aside(q, id, reason)
    end
    reason = fault(row)
    if reason and trouble(q, 'dlq') then
      return part('dead').set_aside(q, id, reason)
    elseif reason then
      part('dead').letter(q, id, reason, { 'error_kind', 'rejected', 'finished_at_nano', now_nano })
      return part('dead').report(q, id, reason, true)
    end
    if row.limit_key and row.limit_key ~= '' and part('limits').has_key_limits(q) then
      local n = waiting.n + 1
      waiting.n, waiting.ids[n], waiting.keys[n], waiting.rows[n] = n, id, row.limit_key, row
      waiting.is_checked[n], r.handed[id] = true, true
      return nil
    end
    return lease(r, q, id, row)
  end

  return { lease = lease, hand_out = hand_out }
end
