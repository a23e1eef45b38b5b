-- The fence before every write of a holder: its token, and the end of its lease by the server's clock.

local REPEATED, NOT_INFLIGHT, EXPIRED, MISMATCH = 1, 2, 3, 4

-- nil when the caller holds the job; else how it does not, or a text when the record is broken.
-- An ack is told of a foreign token before it is told of the time (TaskHarbor's order), the others the other way round.
local function fence(key, token, is_ack)
  local row = try('HMGET', key, 'lease_token', 'lease_expires_at_nano')
  if row.err then
    return 'key `' .. key .. '` is not a hash'
  end
  -- Milliseconds are enough, and fit a Lua number; a text that is no number counts as expired.
  local is_over = (tonumber(sub(row[2] or '', 1, -7)) or 0) <= now_ms
  if row[1] == token and token ~= '' then
    return is_over and EXPIRED or nil
  end
  local past = call('HMGET', key, 'status', 'done_token')
  -- A requeue empties `done_token`: an empty token has ended nothing.
  if past[2] == token and token ~= '' then
    return REPEATED
  elseif past[1] ~= 'inflight' then
    return NOT_INFLIGHT
  end
  return is_over and not is_ack and EXPIRED or MISMATCH
end
