-- What tells whether a job has moved since it was looked at: its state, and everything that a transition changes.

local MARKS = { 'status', 'queue', 'run_at_nano', 'attempts', 'deliveries', 'failed_at_nano', 'lease_token',
  'lease_expires_at_nano', 'dlq_failed_at_nano', 'finished_at_nano', 'done_token', 'created_at_nano' }

-- The values by name and as one text; nil when there is no such hash.
local function marks(id)
  local row = try('HMGET', JOB .. id, unpack(MARKS))
  if row.err then
    return nil
  end
  local named, parts = {}, {}
  for n, name in ipairs(MARKS) do
    named[name], parts[n] = row[n] or '', row[n] or ''
  end
  return named, table.concat(parts, '\n')
end

-- Whether a row that waits or runs will vanish although it must not. One that never ran may have got its time to live
-- from a producer who wants just that.
local function lives_too_short(id, row)
  local has_ended = row.done_token ~= '' or (row.finished_at_nano ~= '' and row.finished_at_nano ~= '0')
  return (has_ended or row.status == 'inflight') and call('TTL', JOB .. id) >= 0
end
