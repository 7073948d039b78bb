-- Jobs as producers see them: submit, read, list, cancel, retry, priority, explain, watch.

local NO_JOB = 'there is no such job'

-- A job as value_job of store_jobs.c reads it: id, state, end of a purged job, record, stored state ('' : none), queue's name and id.
local function add_job(T, reply, Q, id, J)
  local at = #reply
  reply[at + 1] = id
  reply[at + 2] = view(Q, id, J)
  reply[at + 3] = Q.purge_ms
  reply[at + 4] = J.rec
  reply[at + 5] = J.raw or ''
  reply[at + 6] = Q.name
  reply[at + 7] = Q.id
  return #J.rec + #reply[at + 5]
end

-- An entry of list:Q: ms and sequence of its first job, their number.
local function entry_parts(entry)
  local ms, seq = entry[1]:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq), tonumber(entry[2][2])
end

do -- what follows is used in this file only: the locals of the whole library, which is one chunk, may be 200 at most

local CHANGED_MAX = 250         -- jobs that one cancel or retry call changes

-- Remembers a request_id's outcome: two hashes, the older dropped whenever the window has passed, so an entry lives one to
-- two windows. Returns the two, the one that is filled first.
local function request_keys(T, Q)
  local first, second = T.p .. 'req:' .. Q.number .. ':' .. Q.request_slot, T.p .. 'req:' .. Q.number .. ':' .. 1 - Q.request_slot
  if T.ms < Q.rotate_at then return first, second end
  call('UNLINK', second)
  -- Nothing was submitted for a window or more: the other one is too old as well.
  if T.ms >= Q.rotate_at + Q.idempotency then call('UNLINK', first) end
  Q.rotate_at, Q.request_slot, Q.changed = T.ms + Q.idempotency, 1 - Q.request_slot, true
  return second, first
end

-- The state of a job that may have been submitted in this very unit; 0: it is gone.
local function state_of(T, Q, id, ms, seq)
  local J = read_job(T, id)
  if J then return view(Q, id, J) end
  local new = ms == Q.last_ms and seq > Q.last_seq - Q.new
  return new and (Q.paused and PAUSE or SUBMITTED) or 0
end

-- bucket, queue ('' : the default of feature), feature, request_id, digest (8 bytes), records...
-- -> repeated, queue name, queue id, state of the first, feature, number, ms and sequence of the first id, count.
register('submit', {}, function(T, A, i, n)
  local bucket, name, request_id, digest = A[i + 1], A[i + 2], A[i + 4], A[i + 5]
  if name == '' then
    name = call('HGET', T.p .. 'b:' .. bucket, '#' .. A[i + 3])
    if not name then return {NOT_FOUND, 'the feature has no default queue in this bucket: activate it first'} end
  end
  local Q = queue_named(T, bucket, name)
  if not Q then return NO_QUEUE end
  local count = n - 5
  local requests
  if request_id ~= '' then
    local older
    requests, older = request_keys(T, Q)
    local known = call('HGET', requests, request_id) or call('HGET', older, request_id)
    if known then
      if known:sub(1, 8) ~= digest then return {ALREADY_EXISTS, 'the request_id was used for another request'} end
      local ms, seq, size = unpack_struct('>I6I4H', known, 9)
      return {0, 1, Q.name, Q.id, state_of(T, Q, id_of(Q, ms, seq), ms, seq), Q.feature, Q.number, ms, seq, size}
    end
  end
  if not has_room(Q, count) then return {FULL, 'the queue is full', Q.max_size, Q.max_size - Q.room} end

  local ms = max(T.ms, Q.last_ms)
  local seq = ms == Q.last_ms and Q.last_seq + 1 or 0
  local prefix, scores = pack('>BI5I6', Q.feature * 64 + Q.partition, Q.number, ms), {} -- by priority
  for k = 1, count do
    local rec = A[i + 5 + k]
    local flags, priority = byte(rec, 1, 2)
    flags = flags % FLAGS
    local id = prefix .. pack('>I4', seq + k - 1)
    write_pair(T, 'MSET', nil, T.job_key .. id, rec)
    local due = ms
    if flags >= FLAG_LIMITS then
      local J = new_job(rec)
      due = due_of(id, J)
      if has(flags, FLAG_EXPIRES) then
        local _, expire = limits_of(J)
        add_to(T, T.timers, expire, '.E' .. id)
      end
    end
    if due > ms then
      enqueue(T, Q, id, due, priority)
    else
      local at = scores[priority]
      if not at then
        at = num(score(Q, ms, priority))
        scores[priority] = at
      end
      write_pair(T, 'ZADD', Q.ready, at, id)
      Q.room, Q.added = Q.room - 1, Q.added + 1
    end
    log_change(T, Q, id, SUBMITTED, 0)
  end
  offer(Q)
  Q.last_ms, Q.last_seq, Q.new, Q.changed = ms, seq + count - 1, Q.new + count, true
  if requests then call('HSET', requests, request_id, digest .. pack('>I6I4H', ms, seq, count)) end
  return {0, 0, Q.name, Q.id, Q.paused and PAUSE or SUBMITTED, Q.feature, Q.number, ms, seq, count}
end)

-- bucket, ids... -> how many were looked at, number missing, the missing, then jobs.
register('get', {'no-writes'}, function(T, A, i, n)
  local bucket, found, missing, bytes, looked = A[i + 1], {}, {}, 0, 0
  for k = 2, n do
    if bytes > ANSWER_BYTES_MAX then break end
    looked = looked + 1
    local id = A[i + k]
    local J, Q = job_of(T, bucket, id)
    if J then bytes = bytes + add_job(T, found, Q, id, J)
    else missing[#missing + 1] = id end
  end
  return {0, looked, missing, found}
end, 2, 1)

-- The ids of up to SLICE jobs of a queue behind `position` ('ms-seq' of a job; '' : from the start) in the order of creation.
local function page(T, Q, position, ascending, low, high)
  local ids, list = {}, T.p .. 'list:' .. Q.number
  local at_ms, at_seq = position:match('^(%d+)-(%d+)$')
  at_ms, at_seq = tonumber(at_ms or -1), tonumber(at_seq)
  local function add(entries)
    for _, entry in ipairs(entries) do
      local ms, seq, count = entry_parts(entry)
      local first, last, step = seq, seq + count - 1, 1
      if ascending then
        if ms == at_ms then first = max(first, at_seq + 1) end
      else
        if ms == at_ms then last = min(last, at_seq - 1) end
        first, last, step = last, first, -1
      end
      for s = first, last, step do
        if #ids == SLICE then return end
        ids[#ids + 1] = id_of(Q, ms, s)
      end
    end
  end
  if ascending then
    if position ~= '' then
      add(call('XREVRANGE', list, position, '-', 'COUNT', 1)) -- the entry that holds it
      low = '(' .. position
    end
  elseif position ~= '' then
    high = position
  end
  local chunk, entries = SLICE / 4, nil
  repeat
    if ascending then entries = call('XRANGE', list, low, high, 'COUNT', chunk)
    else entries = call('XREVRANGE', list, high, low, 'COUNT', chunk) end
    add(entries)
    local last = entries[#entries]
    if ascending then low = last and '(' .. last[1] else high = last and '(' .. last[1] end
  until #ids == SLICE or #entries < chunk
  return ids
end

-- Visits a queue's jobs in the order of creation, at most EXAMINED_MAX, from `position` on. visit(id, J) says false to stop after
-- this job. Returns the position to go on from, '' at the end.
local function scan(T, Q, filter, ascending, position, visit)
  local low, high = filter.start > 0 and num(filter.start) or '-', filter.stop > 0 and num(filter.stop - 1) or '+'
  local examined = 0
  while examined < EXAMINED_MAX do
    local ids = page(T, Q, position, ascending, low, high)
    if #ids == 0 then return '' end
    fetch(T, Q.number, ids)
    for k = 1, #ids do
      local id = ids[k]
      local J = T.jobs[id]
      if J then
        local state = view(Q, id, J)
        if (filter.states == 0 or floor(filter.states / 2 ^ state) % 2 == 1) and (filter.tag == '' or filter.tag == tag_of(J)) then
          if visit(id, J) == false then return stream_id(id) end
        end
      end
    end
    position = stream_id(ids[#ids])
    examined = examined + #ids
    if #ids < SLICE then return '' end
  end
  return position
end

local function filter_from(A, i)
  return {tag = A[i], states = tonumber(A[i + 1]), start = tonumber(A[i + 2]), stop = tonumber(A[i + 3])}
end

local function log_end(T, bucket)
  local last = call('XREVRANGE', T.p .. 'log:' .. bucket, '+', '-', 'COUNT', 1)
  return last[1] and last[1][1] or '0-0'
end

-- bucket, queue, tag, states, start, stop, ascending, count, position -> next position, watch cursor, jobs.
register('list', {'no-writes'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local found, count, bytes = {}, 0, 0
  local cursor = log_end(T, A[i + 1])
  local position = scan(T, Q, filter_from(A, i + 3), A[i + 7] == '1', A[i + 9], function(id, J)
    bytes = bytes + add_job(T, found, Q, id, J)
    count = count + 1
    return count < tonumber(A[i + 8]) and bytes < ANSWER_BYTES_MAX
  end)
  return {0, position, cursor, found}
end)

-- Ends a waiting or running job as Cancel. Returns code and reason; changed or not.
local function cancel(T, Q, id, J)
  local state = view(Q, id, J)
  if state == CANCEL then return 0, '', false end
  if has_ended(J) then return PRECONDITION, 'the job has ended', false end
  if state ~= RUNNING then
    remove_from(T, Q.ready, id)
    remove_from(T, Q.delayed, id)
  end
  end_job(T, Q, id, J, CANCEL, 'Cancel', '')
  return 0, '', true
end

-- Puts an ended job back in line as a new run.
local function retry(T, Q, id, J)
  local state = view(Q, id, J)
  if state ~= SUCCESS and state ~= FAILED and state ~= CANCEL then return PRECONDITION, 'the job has not ended', false end
  local _, expire = limits_of(J)
  if expire > 0 and expire <= T.ms then return PRECONDITION, 'the job has expired', false end
  if J.run >= 65535 then return PRECONDITION, 'the job has been retried 65,535 times', false end
  if awaits_rendering(T, id, J) then return PRECONDITION, 'its last callback is not yet rendered: try again', false end
  if not has_room(Q, 1) then return FULL, 'the queue is full', false end
  if has_ended(J) then count_ended(Q, J.st, -1) end
  J.at, J.run, J.progress, J.start, J.token, J.last = 0, J.run + 1, 0, 0, 0, 0
  J.worker, J.code, J.message, J.result = '', '', '', ''
  requeue(T, Q, id, J, T.ms)
  if expire > 0 then add_to(T, T.timers, expire, '.E' .. id) end
  log_change(T, Q, id, SUBMITTED, 0)
  return 0, '', true
end

-- By ids: bucket, 'i', ids... By filter: bucket, 'f', queue, tag, states, start, stop, position. -> changed, next position, then 0
-- for each id, or code, reason and 0.
local function register_change(name, change)
  register(name, {'allow-oom'}, function(T, A, i, n)
    local bucket, reply, changed = A[i + 1], {0, 0, ''}, 0
    if A[i + 2] == 'i' then
      for k = 3, n do
        local code, reason, done = NOT_FOUND, NO_JOB, false
        local J, Q = job_of(T, bucket, A[i + k])
        if J then code, reason, done = change(T, Q, A[i + k], J) end
        if done then changed = changed + 1 end
        reply[#reply + 1] = code == 0 and 0 or {code, reason, 0}
      end
    else
      local Q = queue_named(T, bucket, A[i + 3])
      if not Q then return NO_QUEUE end
      -- A queue that gets full ends the call before the job that found no room; one that is full from the start is an error.
      local before, full = A[i + 8], nil
      reply[3] = scan(T, Q, filter_from(A, i + 4), true, before, function(id, J)
        local code, reason, done = change(T, Q, id, J)
        if code == FULL then full = reason return false end
        before = stream_id(id)
        if done then changed = changed + 1 end
        return changed < CHANGED_MAX
      end)
      if full and changed == 0 then return {FULL, full, Q.max_size, waiting_count(Q)} end
      if full then reply[3] = before end
    end
    reply[2] = changed
    return reply
  end, 3, 1)
end

register_change('cancel', cancel)
register_change('retry', retry)

-- bucket, id, priority -> the job.
register('priority', {'allow-oom'}, function(T, A, i)
  local id, priority = A[i + 2], tonumber(A[i + 3])
  local J, Q = job_of(T, A[i + 1], id)
  if not J then return {NOT_FOUND, NO_JOB} end
  local state = view(Q, id, J)
  if state == RUNNING then return {PRECONDITION, 'the job is running'} end
  if state ~= SUBMITTED and state ~= PAUSE then return {PRECONDITION, 'the job has ended'} end
  J.rec = sub(J.rec, 1, 1) .. char(priority) .. sub(J.rec, 3)
  write_pair(T, 'MSET', nil, T.job_key .. id, J.rec)
  call('ZADD', Q.ready, 'XX', num(score(Q, due_of(id, J), priority)), id)
  local reply = {0, 1, {}, {}}
  add_job(T, reply[4], Q, id, J)
  return reply
end, 2, 99)

-- Reasons of ringback.v1.WaitReason.
local TURN, QUEUE_PAUSED, CONCURRENCY, NOT_BEFORE, BACKOFF, WORKER, ENDED = 1, 2, 3, 4, 5, 6, 7

-- bucket, id -> reason, position, waiting, running, max_concurrent, lease expiry, the job.
register('explain', {'no-writes'}, function(T, A, i)
  local id = A[i + 2]
  local J, Q = job_of(T, A[i + 1], id)
  if not J then return {NOT_FOUND, NO_JOB} end
  local state, reason, position, expiry = view(Q, id, J), ENDED, 0, 0
  if state == RUNNING then
    reason = WORKER
    expiry = tonumber(call('ZSCORE', T.timers, id) or 0)
  elseif state == SUBMITTED or state == PAUSE then
    local rank = call('ZRANK', Q.ready, id)
    position = rank and rank + 1 or 0
    if not rank then reason = J.at > 0 and BACKOFF or NOT_BEFORE
    elseif Q.paused then reason = QUEUE_PAUSED
    elseif Q.running >= Q.max_concurrent then reason = CONCURRENCY
    else reason = TURN end
  end
  local found = {}
  add_job(T, found, Q, id, J)
  return {0, reason, position, call('ZCARD', Q.ready), Q.running, Q.max_concurrent, expiry, found}
end, 2, 99)

-- bucket, cursor ('' : from now), count -> cursor, more, then time, changes (18 bytes each: id, state, progress) and by pairs; at the end the
-- queues' names: number and name by pairs.
register('watch', {'allow-oom'}, function(T, A, i)
  local bucket, cursor, count = A[i + 1], A[i + 2], tonumber(A[i + 3])
  local key = T.p .. 'log:' .. bucket
  local entries = {}
  if cursor == '' then
    cursor = log_end(T, bucket)
  else
    local first = call('XRANGE', key, '-', '+', 'COUNT', 1)
    if first[1] then
      local ms, seq = cursor:match('^(%d+)-(%d+)$')
      local first_ms, first_seq = first[1][1]:match('^(%d+)-(%d+)$')
      ms, seq, first_ms, first_seq = tonumber(ms), tonumber(seq), tonumber(first_ms), tonumber(first_seq)
      if ms < first_ms or (ms == first_ms and seq < first_seq) then
        local info, facts = call('XINFO', 'STREAM', key), {}
        for k = 1, #info, 2 do facts[info[k]] = info[k + 1] end
        if facts['entries-added'] ~= facts['length'] then
          return {OUT_OF_RANGE, 'the log no longer reaches back to the cursor'}
        end
      end
    elseif cursor ~= '0-0' then
      return {OUT_OF_RANGE, 'the log no longer reaches back to the cursor'}
    end
    entries = call('XRANGE', key, '(' .. cursor, '+', 'COUNT', count)
  end
  local reply, names, known = {0, cursor, #entries == count and 1 or 0, {}, {}}, {}, {}
  for _, entry in ipairs(entries) do
    reply[2] = entry[1]
    local changes = entry[2][2]
    reply[4][#reply[4] + 1] = tonumber((entry[1]:match('^%d+')))
    reply[4][#reply[4] + 1] = changes
    for at = 1, #changes, 18 do
      local number = number_of(changes:sub(at, at + 15))
      if not known[number] then
        known[number] = true
        local Q = queue(T, number)
        names[#names + 1] = number
        names[#names + 1] = Q and Q.name or ''
        names[#names + 1] = Q and Q.paused and 1 or 0
      end
    end
  end
  reply[5] = names
  if #entries == 0 and call('EXISTS', T.p .. 'b:' .. bucket) == 1 then call('HSET', T.p .. 'b:' .. bucket, '#w', 1) end
  return reply
end)

end
