-- Records that are not run, or not again: told to the host, kept in the DLQ or set aside.

parts.dead = function()
  -- Tells the host of a record.
  local function report(q, id, reason, is_dead)
    local n = #asides
    asides[n + 1], asides[n + 2], asides[n + 3], asides[n + 4] = q.index, sub(id, 1, ID_MAX), reason, is_dead and '1' or '0'
  end

  -- Keeps an id that has no record fit to be run, without touching that record.
  local function set_aside(q, id, reason)
    report(q, id, reason, false)
    try('RPUSH', q.aside, reason .. '\n' .. sub(id, 1, ID_MAX))
    try('LTRIM', q.aside, -ASIDE_MAX, -1)
    try('EXPIRE', q.aside, DLQ_DAYS * 86400)
    count(q, 'set_aside', 1)
  end

  -- Drops the oldest dead row.
  local function drop_dead(q)
    local oldest = call('LPOP', q.dlq)
    if oldest then
      if try('HGET', JOB .. oldest, 'status') == 'dlq' then
        call('DEL', JOB .. oldest)
      end
      count(q, 'dlq_dropped', 1)
    end
  end

  -- Makes a job dead, and tells the system that it was adopted from. It must have left every other structure before.
  local function dead_letter(q, id, reason, fields)
    call('HSET', JOB .. id, 'status', 'dlq', 'queue', q.name, 'lease_token', '', 'lease_expires_at_nano', '0',
      'run_at_nano', '0', 'dlq_reason', reason, 'dlq_failed_at_nano', now_nano, unpack(fields))
    local length = call('RPUSH', q.dlq, id)
    count(q, 'dead', 1)
    part('answer').tell(q, id, 'failed', reason)
    tell_ended({ id }, 1)
    -- Two, so that a list that another program filled shrinks.
    for _ = 1, math.min(2, length - DLQ_MAX) do
      drop_dead(q)
    end
  end

  return { report = report, set_aside = set_aside, letter = dead_letter }
end
