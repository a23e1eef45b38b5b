-- Takes, renews or leaves the watch of other systems' lists. One call for all lists of a protocol: it is all that an
-- idle bridge costs.
--
-- KEYS     head.lua (without queues), then the lists
-- ARGV     head.lua, then: who asks (one word), `watch` or `leave`, number of lists
-- Returns  for each list: 1 when the caller watches it else 0, its length (1 when it is no list)

local session, word, n_lists = take(), take(), take_number()
local told, watch = {}, part('watch')
for n = 1, n_lists do
  local list = KEYS[#KEYS - n_lists + n]
  local is_ours = watch(list, session, word == 'watch')
  if word == 'leave' and is_ours then
    call('HDEL', PREFIX .. ':watchers', list)
  end
  local length = try('LLEN', list)
  told[2 * n - 1], told[2 * n] = is_ours and word == 'watch' and 1 or 0, type(length) == 'number' and length or 1
end
return told
