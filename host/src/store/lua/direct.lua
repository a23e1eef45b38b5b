-- Takes jobs straight from another system's list, under a lease from the start: nobody looks at them before, and no row
-- of theirs waits. Part of turn.lua: a reserve does it when a queue has nothing else to give.
--
-- Only plain messages are taken: those from which the words below make the very job that the system's codec would make
-- (protocol/mod.rs, `Plain`). The first one that is not ends it, and is for take_over.lua, as all of them are while the
-- queue is not open, one of its keys is broken, or Redis is full.
--
-- KEYS     the lists, behind the queues
-- ARGV     of each source: index of its queue, the system's word and what it is told (answer.lua), type of the jobs, what
--          the keys of records begin with; number of fields, how many of them must be empty, and their names: state,
--          payload, seconds of one attempt, number of further attempts, those that must be empty, those that travel as
--          metadata; number of states that make no job, and these; number of payloads that make none, and these

parts.direct = function()
  local LEFT, EMPTY, MORE = 0, 1, 2
  -- Bytes of payloads and metadata after which no further record is read.
  local BYTES_MAX = 1048576
  -- Fields of a record that is read: it has some twenty.
  local FIELDS_MAX = 64
  local encode = cjson.encode

  local function take_set()
    local set = {}
    for _ = 1, take_number() do
      set[take()] = true
    end
    return set
  end

  -- What the fields of a record are for, by name.
  local STATE, PAYLOAD, SECONDS, FURTHER, EMPTY_FIELD, METADATA = 1, 2, 3, 4, 5, 6
  local function take_roles()
    local roles, n_fields, n_empty = {}, take_number(), take_number()
    for n = 1, n_fields do
      roles[take()] = n <= FURTHER and n or n <= FURTHER + n_empty and EMPTY_FIELD or METADATA
    end
    return roles
  end

  -- Reads what is said of the lists, and asks before all else whether Redis takes writes: after the first write of a
  -- script nothing is refused any more.
  local function take_sources(n_sources)
    for n = 1, n_sources do
      local q = queues[take_number()]
      local s = { list = KEYS[KEYS_FIXED + #queues * KEYS_PER_QUEUE + n], word = take(), told = take(), type = take(),
        before = take() }
      s.roles = take_roles()
      s.ended, s.answered = take_set(), take_set()
      s.mark = s.word .. ':'
      s.metadata = {}
      s.length = try('LLEN', s.list)
      if s.length ~= 0 then
        s.may_write = type(s.length) == 'number' and type(try('SADD', QUEUES, q.name)) == 'number'
      end
      q.source, q.drawn = s, LEFT
    end
  end

  -- Numbers as they are mostly written; false when that is for the codec to read.
  local nanos_of, attempts_of = { [''] = '', ['0'] = '' }, { [''] = '1', ['0'] = '1' }
  local function nanos(seconds)
    local known = nanos_of[seconds]
    if known == nil then
      known = #seconds <= 4 and find(seconds, '^[1-9]%d*$') and seconds .. '000000000' or false
      nanos_of[seconds] = known
    end
    return known
  end
  local function attempts(further)
    local known = attempts_of[further]
    if known == nil then
      known = #further <= 2 and find(further, '^[1-9]%d?$') and whole(tonumber(further) + 1) or false
      attempts_of[further] = known
    end
    return known
  end

  -- Reads the record of a message. Returns payload, nanoseconds, attempts and metadata of the job; nothing when it is
  -- not plain.
  local function read(s, id)
    local key = s.before .. id
    local n_fields = try('HLEN', key)
    if id == '' or #id + #s.mark > ID_MAX or type(n_fields) ~= 'number' or n_fields > FIELDS_MAX then
      return nil
    end
    local record, roles, metadata = call('HGETALL', key), s.roles, s.metadata
    local state, payload, seconds, further = '', '', '', ''
    for name in pairs(metadata) do
      metadata[name] = nil
    end
    metadata.protocol, metadata.id = s.word, id
    for n = 1, #record, 2 do
      local name, value = record[n], record[n + 1]
      local role = roles[name]
      if role == METADATA then
        if value ~= '' then
          metadata[name] = value
        end
      elseif role == PAYLOAD then
        payload = value
      elseif role == STATE then
        state = value
      elseif role == SECONDS then
        seconds = value
      elseif role == FURTHER then
        further = value
      elseif role and value ~= '' then
        return nil
      end
    end
    seconds, further = nanos(seconds), attempts(further)
    if payload == '' or #payload > PAYLOAD_MAX or s.answered[payload] or s.ended[state] or not seconds or not further then
      return nil
    end
    return payload, seconds, further, encode(metadata)
  end

  -- The plain messages at the head of a list: of each its id, payload, nanoseconds, attempts and metadata. Also returns
  -- how many they are, how many were looked for, and how many there were to look for.
  local function plain_head(s, most)
    local ids = call('LRANGE', s.list, '0', whole(most - 1))
    local rows, seen, before, n_ids = {}, {}, JOB .. s.mark, #ids
    local head = { ids = ids, rows = rows, payloads = {}, nanos = {}, attempts = {}, metadata = {} }
    for n = 1, n_ids do
      rows[n] = before .. ids[n]
    end
    -- A job that is known here already is not plain.
    local is_free, bytes = call('EXISTS', unpack(rows)) == 0, 0
    for n = 1, n_ids do
      local id = ids[n]
      if seen[id] or not is_free and call('EXISTS', rows[n]) == 1 then
        return head, n - 1, n, n_ids
      end
      local payload, seconds, further, metadata = read(s, id)
      if not payload then
        return head, n - 1, n, n_ids
      end
      head.payloads[n], head.nanos[n], head.attempts[n], head.metadata[n] = payload, seconds, further, metadata
      seen[id], bytes = true, bytes + #payload + #metadata
      if bytes >= BYTES_MAX then
        s.is_spent = true
        return head, n, n, n_ids
      end
    end
    return head, n_ids, n_ids, n_ids
  end

  -- Writes rows and leases of jobs, and how they are told to the host (reserve.lua).
  local function lease(r, q, s, head, n_found)
    local write, started = part('answer').write, part('answer').of(q)
    started = started and started.started or NOTHING
    local place, digest = r.kind_of_job(r, q, s.type, '')
    local row = { 'type', s.type, 'queue', q.name, 'payload', '', 'status', 'inflight', 'created_at_nano', now_nano,
      'max_attempts', '', 'metadata', '', 'lease_token', r.token, 'lease_expires_at_nano', r.expires, 'node', r.node,
      'deliveries', '1' }
    local n_fixed = 22
    if digest ~= '' then
      row[23], row[24], n_fixed = 'digest', digest, 24
    end
    row[n_fixed + 1] = 'timeout_nano'
    local jobs, extras, handed, leases, n, e = r.jobs, r.extras, r.handed, {}, #r.jobs, #r.extras
    for m = 1, n_found do
      local id, payload, nano = head.ids[m], head.payloads[m], head.nanos[m]
      local here, further, metadata = s.mark .. id, head.attempts[m], head.metadata[m]
      row[6], row[12], row[14], row[n_fixed + 2] = payload, further, metadata, nano
      call('HSET', head.rows[m], unpack(row, 1, nano == '' and n_fixed or n_fixed + 2))
      write(q, id, started, '')
      handed[here] = true
      leases[2 * m - 1], leases[2 * m] = r.score, here
      jobs[n + 1], jobs[n + 2], jobs[n + 3], jobs[n + 4], jobs[n + 5] = place, here, payload, now_nano, e / 8 + 1
      extras[e + 1], extras[e + 2], extras[e + 3], extras[e + 4] = '0', further, nano == '' and '0' or nano, '1'
      extras[e + 5], extras[e + 6], extras[e + 7], extras[e + 8] = '', metadata, '', ''
      n, e = n + 5, e + 8
    end
    call('ZADD', q.inflight, unpack(leases))
    r.n_jobs = r.n_jobs + n_found
  end

  -- Takes up to `most` from the list that belongs to a share's queue.
  local function draw(r, share, most)
    local q, s = share.q, share.q.source
    if s.length == 0 then
      q.drawn = EMPTY
      return
    end
    if s.is_spent then
      -- A reserve asks a second time for what others left over.
      share.is_empty = false
      return
    end
    q.drawn = LEFT
    if most < 1 or not s.may_write or trouble(q) then
      return
    end
    local head, n_found, n_looked, n_there = plain_head(s, most)
    if n_found > 0 then
      if not part('answer').learn(q, s.word, s.told) then
        return
      end
      call('LPOP', s.list, whole(n_found))
      lease(r, q, s, head, n_found)
      r.taken[share.place] = r.taken[share.place] + n_found
      share.room = share.room - n_found
    end
    if n_found == n_looked then
      q.drawn = (n_found == most or n_found < n_there) and MORE or EMPTY
      share.is_empty = q.drawn == EMPTY
    end
  end

  return { take_sources = take_sources, draw = draw }
end
