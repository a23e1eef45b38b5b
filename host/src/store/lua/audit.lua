-- Notes who did what. The entry is written by the script that does it, so that neither is there without the other.

local AUDIT, AUDIT_MAX = PREFIX .. ':audit', 10000
-- `count`, `detail`: how many it was done to, and what else there is to say; nil or empty when there is nothing.
local function note(who, act, target, n, detail)
  local entry = { 'who', who, 'act', act, 'target', target }
  if n then
    entry[#entry + 1], entry[#entry + 2] = 'n', n
  end
  if detail and detail ~= '' then
    entry[#entry + 1], entry[#entry + 2] = 'detail', detail
  end
  -- Never worth stopping for: the act itself has been done.
  try('XADD', AUDIT, 'MAXLEN', '~', AUDIT_MAX, '*', unpack(entry))
end
