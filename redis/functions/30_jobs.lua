-- Jobs as producers see them: submit, read, list, cancel, retry, priority, explain, watch.

local NO_JOB = 'there is no such job'

-- Remembers a request_id's outcome: two hashes, the older dropped whenever the window has passed, so an entry lives one to
-- two windows.
local function rotate_requests(T, Q)
  local h = call('HMGET', Q.key, 'rr', 'rc')
  local current = tonumber(h[2])
  if T.ms >= tonumber(h[1]) then
    current = 1 - current
    call('UNLINK', T.p .. 'req:' .. Q.number .. ':' .. current)
    -- Nothing was submitted for a window or more: the other one is too old as well.
    if T.ms >= tonumber(h[1]) + Q.idempotency then call('UNLINK', T.p .. 'req:' .. Q.number .. ':' .. (1 - current)) end
    call('HSET', Q.key, 'rr', num(T.ms + Q.idempotency), 'rc', current)
  end
  return current
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
    local current = rotate_requests(T, Q)
    requests = T.p .. 'req:' .. Q.number .. ':' .. current
    local known = call('HGET', requests, request_id) or call('HGET', T.p .. 'req:' .. Q.number .. ':' .. (1 - current), request_id)
    if known then
      if known:sub(1, 8) ~= digest then return {ALREADY_EXISTS, 'the request_id was used for another request'} end
      local ms, seq, size = unpack_struct('>I6I4H', known, 9)
      local id = id_of(Q, ms, seq)
      local R = record(T, id)
      return {0, 1, Q.name, Q.id, R and view(Q, R, lease_of(T, Q, id)) or 0, Q.feature, Q.number, ms, seq, size}
    end
  end
  if not has_room(Q, count) then return {FULL, 'the queue is full', Q.max_size, Q.max_size - Q.room} end

  local ms = max(T.ms, Q.last_ms)
  local seq = ms == Q.last_ms and Q.last_seq + 1 or 0
  local list = T.p .. 'list:' .. Q.number
  for k = 1, count do
    local bytes = A[i + 5 + k]
    local id = id_of(Q, ms, seq + k - 1)
    local version, state, flags, priority, attempts, limit, _, due, expire, lease, run_timeout, tag_size, spec_size =
      unpack_struct(HEAD, bytes)
    due = max(due, ms)
    write_pair(T, 'MSET', nil, T.p .. 'j:' .. id, pack(HEAD, version, state, flags, priority, attempts, limit, Q.epoch, due, expire, lease,
      run_timeout, tag_size, spec_size) .. bytes:sub(HEAD_SIZE + 1))
    enqueue(T, Q, id, due, priority)
    if expire > 0 then add_to(T, T.p .. 'timers', expire, 'E' .. id) end
    call('XADD', list, format('%d-%d', ms, seq + k - 1), '', '')
    log_change(T, Q, id, SUBMITTED, 0)
  end
  Q.last_ms, Q.last_seq = ms, seq + count - 1
  Q.changed.lm, Q.changed.ls = num(ms), num(Q.last_seq)
  if requests then call('HSET', requests, request_id, digest .. pack('>I6I4H', ms, seq, count)) end
  return {0, 0, Q.name, Q.id, Q.paused and PAUSE or SUBMITTED, Q.feature, Q.number, ms, seq, count}
end)

-- A job as decode_job of store_jobs.c reads it: id, state, end of a purged job, record, lease, queue's name and id.
local function add_job(T, reply, Q, id, R, L)
  local at = #reply
  reply[at + 1] = id
  reply[at + 2] = view(Q, R, L)
  reply[at + 3] = Q.purge_ms
  reply[at + 4] = record_encode(R)
  reply[at + 5] = L and L.raw or ''
  reply[at + 6] = Q.name
  reply[at + 7] = Q.id
  return #reply[at + 4]
end

-- bucket, ids... -> how many were looked at, number missing, the missing, then jobs.
register('get', {'no-writes'}, function(T, A, i, n)
  local bucket, found, missing, bytes, looked = A[i + 1], {}, {}, 0, 0
  for k = 2, n do
    if bytes > ANSWER_BYTES_MAX then break end
    looked = looked + 1
    local id = A[i + k]
    local R, Q = job_of(T, bucket, id)
    if R then bytes = bytes + add_job(T, found, Q, id, R, lease_of(T, Q, id))
    else missing[#missing + 1] = id end
  end
  return {0, looked, missing, found}
end, 2, 1)

-- Visits a queue's jobs in the order of creation, at most EXAMINED_MAX, from `position` on. visit(id, R, L) says false to stop after
-- this job. Returns the position to go on from, '' at the end.
local function scan(T, Q, filter, ascending, position, visit)
  local low, high = filter.start > 0 and num(filter.start) or '-', filter.stop > 0 and num(filter.stop - 1) or '+'
  local command, from, to = 'XREVRANGE', high, low
  if ascending then command, from, to = 'XRANGE', low, high end
  if position ~= '' then from = '(' .. position end
  local examined, chunk = 0, SLICE
  while examined < EXAMINED_MAX do
    local entries = call(command, T.p .. 'list:' .. Q.number, from, to, 'COUNT', chunk)
    local ids = {}
    for k = 1, #entries do
      local ms, seq = entries[k][1]:match('^(%d+)-(%d+)$')
      ids[k] = id_of(Q, tonumber(ms), tonumber(seq))
    end
    if #ids == 0 then return '' end
    fetch(T, ids)
    fetch_leases(T, Q, ids)
    for k = 1, #ids do
      local R = T.records[ids[k]]
      position = entries[k][1]
      if R then
        local L = lease_of(T, Q, ids[k])
        local state = view(Q, R, L)
        if (filter.states == 0 or floor(filter.states / 2 ^ state) % 2 == 1) and (filter.tag == '' or filter.tag == record_tag(R)) then
          if visit(ids[k], R, L) == false then return position end
        end
      end
    end
    examined = examined + #ids
    if #entries < chunk then return '' end
    from = '(' .. position
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
  local position = scan(T, Q, filter_from(A, i + 3), A[i + 7] == '1', A[i + 9], function(id, R, L)
    bytes = bytes + add_job(T, found, Q, id, R, L)
    count = count + 1
    return count < tonumber(A[i + 8]) and bytes < ANSWER_BYTES_MAX
  end)
  return {0, position, cursor, found}
end)

-- Ends a waiting or running job as Cancel. Returns code and reason; changed or not.
local function cancel(T, Q, id, R)
  local L = lease_of(T, Q, id)
  local state = view(Q, R, L)
  if state == CANCEL then return 0, '', false end
  if state == SUCCESS or state == FAILED then return PRECONDITION, 'the job has ended', false end
  if L then
    drop_lease(T, Q, id)
  else
    remove_from(T, Q.ready, id)
    remove_from(T, Q.delayed, id)
  end
  end_job(T, Q, id, R, L, CANCEL, 'Cancel', '')
  return 0, '', true
end

-- Puts an ended job back in line as a new run.
local function retry(T, Q, id, R)
  local state = view(Q, R, lease_of(T, Q, id))
  if state ~= SUCCESS and state ~= FAILED and state ~= CANCEL then return PRECONDITION, 'the job has not ended', false end
  if R.exp > 0 and R.exp <= T.ms then return PRECONDITION, 'the job has expired', false end
  if R.run >= 65535 then return PRECONDITION, 'the job has been retried 65,535 times', false end
  if awaits_rendering(T, id, R) then return PRECONDITION, 'its last callback is not yet rendered: try again', false end
  if not has_room(Q, 1) then return FULL, 'the queue is full', false end
  if R.st ~= SUBMITTED then
    remove_from(T, T.p .. 'ended:' .. Q.number, id)
    count_ended(Q, R.st, -1)
  end
  R.tail = true
  R.st, R.at, R.run, R.progress, R.start, R.finish, R.token = SUBMITTED, 0, R.run + 1, 0, 0, 0, 0
  R.worker, R.code, R.message, R.result = '', '', '', ''
  R.due, R.ep = T.ms, Q.epoch
  save(T, id, R)
  enqueue(T, Q, id, R.due, R.pr)
  if R.exp > 0 then add_to(T, T.p .. 'timers', R.exp, 'E' .. id) end
  log_change(T, Q, id, SUBMITTED, 0)
  return 0, '', true
end

-- By ids: bucket, 'i', ids... By filter: bucket, 'f', queue, tag, states, start, stop, position. -> changed, next position, then code,
-- reason and a number for each id.
local function register_change(name, change)
  register(name, {'allow-oom'}, function(T, A, i, n)
    local bucket, reply, changed = A[i + 1], {0, 0, ''}, 0
    if A[i + 2] == 'i' then
      for k = 3, n do
        local code, reason, done = NOT_FOUND, NO_JOB, false
        local R, Q = job_of(T, bucket, A[i + k])
        if R then code, reason, done = change(T, Q, A[i + k], R) end
        if done then changed = changed + 1 end
        reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = code, reason, 0
      end
    else
      local Q = queue_named(T, bucket, A[i + 3])
      if not Q then return NO_QUEUE end
      -- A queue that gets full ends the call before the job that found no room; one that is full from the start is an error.
      local before, full = A[i + 8], nil
      reply[3] = scan(T, Q, filter_from(A, i + 4), true, before, function(id, R)
        local code, reason, done = change(T, Q, id, R)
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
  local R, Q = job_of(T, A[i + 1], id)
  if not R then return {NOT_FOUND, NO_JOB} end
  local state = view(Q, R, lease_of(T, Q, id))
  if state == RUNNING then return {PRECONDITION, 'the job is running'} end
  if state ~= SUBMITTED and state ~= PAUSE then return {PRECONDITION, 'the job has ended'} end
  R.pr = priority
  save(T, id, R)
  call('ZADD', Q.ready, 'XX', num(score(Q, R.due, R.pr)), id)
  local reply = {0, 1, {}, {}}
  add_job(T, reply[4], Q, id, R)
  return reply
end, 2, 99)

-- Reasons of ringback.v1.WaitReason.
local TURN, QUEUE_PAUSED, CONCURRENCY, NOT_BEFORE, BACKOFF, WORKER, ENDED = 1, 2, 3, 4, 5, 6, 7

-- bucket, id -> reason, position, waiting, running, max_concurrent, lease expiry, the job.
register('explain', {'no-writes'}, function(T, A, i)
  local id = A[i + 2]
  local R, Q = job_of(T, A[i + 1], id)
  if not R then return {NOT_FOUND, NO_JOB} end
  local L = lease_of(T, Q, id)
  local state, reason, position, expiry = view(Q, R, L), ENDED, 0, 0
  if L then
    reason = WORKER
    expiry = tonumber(call('ZSCORE', T.p .. 'timers', 'L' .. id) or 0)
  elseif state == SUBMITTED or state == PAUSE then
    local rank = call('ZRANK', Q.ready, id)
    position = rank and rank + 1 or 0
    if not rank then reason = R.at > 0 and BACKOFF or NOT_BEFORE
    elseif Q.paused then reason = QUEUE_PAUSED
    elseif running_count(T, Q) >= Q.max_concurrent then reason = CONCURRENCY
    else reason = TURN end
  end
  local job = {}
  add_job(T, job, Q, id, R, L)
  return {0, reason, position, call('ZCARD', Q.ready), running_count(T, Q), Q.max_concurrent, expiry, job}
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
      local number = id_parts(changes:sub(at, at + 15))
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
