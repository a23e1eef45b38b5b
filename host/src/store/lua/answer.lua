-- Tells the system that a job was taken over from what becomes of it, whoever makes it so: a take-over, a worker, a
-- sweep, a person. Such a job is in a queue `word-...` and has an id `word:their id`. What is told at which moment stands
-- in `protocols` under the word, written by every take-over (take_over.lua), one write a line, tabs between words:
--   moment F key text time (field value) x n   sets fields of a hash: `text` to what became of the job in words, `time` to
--                                              now, and others; an empty name is left out
--   moment Q key milliseconds                  appends what became of the job to a list, and gives it a time to live
--   moment H key field x n                     removes fields of a hash
-- Keys end where the id belongs. Moments: started, again (it has ended before), done, failed.
--
-- What cannot be written holds nothing up: it is counted. A hash that is gone stays gone. A job of ours costs a look at
-- the name of its queue.
parts.answer = function()
  local PROTOCOLS = PREFIX .. ':protocols'
  local known = {}

  -- Now, as 2025-08-14T12:14:34.123Z.
  local function time_text()
    local seconds = tonumber(now_s)
    local day = math.floor(seconds / 86400)
    local second = seconds - day * 86400
    -- Years begin in March here, so that the day that comes every four years is the last one.
    local shifted = day + 719468
    local era = math.floor(shifted / 146097)
    local of_era = shifted - era * 146097
    local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
      - math.floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * of_year + 2) / 153)
    local date = of_year - math.floor((153 * month + 2) / 5) + 1
    month = month < 10 and month + 3 or month - 9
    return fmt('%04d-%02d-%02dT%02d:%02d:%02d.%sZ', year + era * 400 + (month <= 2 and 1 or 0), month, date,
      math.floor(second / 3600), math.floor(second / 60) % 60, second % 60, sub(now_n, 1, 3))
  end

  -- One write from its words; nil when it is none that is known here.
  local function write_of(words)
    local write = { op = words[2], key = words[3], args = {} }
    local args = write.args
    if write.op == 'F' and #words >= 5 then
      for n = 6, #words do
        args[#args + 1] = words[n]
      end
      if words[5] ~= '' then
        args[#args + 1], args[#args + 2] = words[5], time_text()
      end
      if words[4] ~= '' then
        args[#args + 1] = words[4]
        write.text_at = #args + 1
      end
      write.n_fields = math.ceil(#args / 2)
    elseif write.op == 'Q' and words[4] then
      write.milliseconds = words[4]
    elseif write.op == 'H' and words[4] then
      for n = 4, #words do
        args[n - 3] = words[n]
      end
    else
      return nil
    end
    return write
  end

  -- What a system is told, by moment; false when nobody has said.
  local function moments_of(word)
    if known[word] == nil then
      local text, moments = try('HGET', PROTOCOLS, word), false
      for line in string.gmatch(type(text) == 'string' and text or '', '[^\n]+') do
        local words = {}
        for one in string.gmatch(line .. '\t', '([^\t]*)\t') do
          words[#words + 1] = one
        end
        local write = write_of(words)
        moments = moments or {}
        moments[words[1]] = moments[words[1]] or {}
        table.insert(moments[words[1]], write)
      end
      known[word] = moments
    end
    return known[word]
  end

  -- What the system is told that the jobs of a queue are from; false for a queue of ours.
  local function of(q)
    if q.told == nil then
      local word = match(q.name, '^(%l+)%-')
      q.told = word and moments_of(word) or false
      q.mark = word and word .. ':'
    end
    return q.told
  end

  -- Sets fields of a hash. Whether it was there.
  local function set_fields(write, key, text)
    local args = write.args
    if write.text_at then
      args[write.text_at] = text
    end
    local n_new = try('HSET', key, unpack(args))
    if n_new == write.n_fields and call('HLEN', key) == n_new then
      call('DEL', key)
      return false
    end
    return type(n_new) == 'number'
  end

  -- Makes the writes of a moment for a job, by the id that it has there.
  local function write(q, theirs, writes, text)
    local is_told = true
    for n = 1, #writes do
      local write = writes[n]
      local key = write.key .. theirs
      if write.op == 'F' then
        is_told = set_fields(write, key, text) and is_told
      elseif write.op == 'Q' then
        if type(try('RPUSH', key, text)) == 'number' then
          try('PEXPIRE', key, write.milliseconds)
        else
          is_told = false
        end
      else
        try('HDEL', key, unpack(write.args))
      end
    end
    if not is_told then
      count(q, 'unanswered', 1)
    end
  end

  -- Tells what has become of a job, in words.
  local function tell(q, id, moment, text)
    local told = of(q)
    if told and told[moment] and sub(id, 1, #q.mark) == q.mark then
      write(q, sub(id, #q.mark + 1), told[moment], text)
    end
  end

  -- Keeps what a system is to be told. Whether that could be written.
  local function learn(q, word, text)
    if try('HGET', PROTOCOLS, word) ~= text then
      if type(try('HSET', PROTOCOLS, word, text)) ~= 'number' then
        return false
      end
      known[word], q.told = nil, nil
    end
    return true
  end

  return { of = of, write = write, tell = tell, learn = learn }
end
