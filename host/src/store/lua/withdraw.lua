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
