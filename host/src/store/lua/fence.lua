-- The fence before every write of a holder: its token, and the end of its lease by the server's clock.
-- The end of a lease is its score in `inflight`; the field `lease_expires_at_nano` is for people and other programs.

local REPEATED, NOT_INFLIGHT, EXPIRED, MISMATCH = 1, 2, 3, 4

-- Whether any lease of a queue has ended. Asked once per queue and call, it spares a question per job.
local function has_ended_leases(q)
  if q.has_ended == nil then
    q.has_ended = call('ZRANGEBYSCORE', q.inflight, '-inf', whole(now_ms), 'LIMIT', '0', '1')[1] ~= nil
  end
  return q.has_ended
end

-- How a caller does not hold a job, as a number, or as a text when the record is broken; nil when it does.
-- An ack is told of a foreign token before it is told of the time (TaskHarbor's order), the others the other way round.
local function lost(q, row, id, token, is_ack)
  local found = try('HMGET', row, 'lease_token', 'status', 'done_token')
  if found.err then
    return 'key `' .. row .. '` is not a hash'
  end
  local expiry = tonumber(call('ZSCORE', q.inflight, id) or 0)
  local is_over = expiry <= now_ms
  if found[1] == token and token ~= '' then
    return is_over and EXPIRED or nil
  elseif found[3] == token and token ~= '' then
    return REPEATED
  elseif found[2] ~= 'inflight' then
    return NOT_INFLIGHT
  end
  return is_over and not is_ack and EXPIRED or MISMATCH
end

-- The same, at the price of one read while no lease of the queue has ended.
local function fence(q, row, id, token, is_ack)
  if token == '' or try('HGET', row, 'lease_token') ~= token or has_ended_leases(q) then
    return lost(q, row, id, token, is_ack)
  end
end
