-- Removes rows by hand: what a row held for others goes with it.

-- The row of a job of a queue, and its idempotency key as far as it means this job: the same key may be used again.
local function forget(q, id, idempotency_key)
  if idempotency_key and idempotency_key ~= '' then
    local name = PREFIX .. ':idem:' .. q.name .. ':' .. idempotency_key
    if try('GET', name) == id then
      call('DEL', name)
    end
  end
  call('UNLINK', JOB .. id)
end
