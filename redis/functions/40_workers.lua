-- Jobs as workers see them: lease, renew, finish, release.

do -- as in 30_jobs.lua

-- Reasons of ringback.v1.StopReason.
local STOP_CANCELLED, STOP_LEASE_LOST, STOP_TIMED_OUT, STOP_GONE = 1, 2, 3, 4

-- How a worker's call names a job, packed: its id, the fencing token; and what follows.
local NAMED = 16
local RENEWAL, RESULT = '>I7BI6', '>I7BI6BH'
local RESULT_SIZE = NAMED + 17

-- Leases a job that has left the line.
local function grant(T, Q, id, J, token, worker, lease_ms)
  local lease, hard, _ = Q.lease, 0, nil
  if has(J.fl, FLAG_LIMITS) then
    local own, run_timeout
    _, _, own, run_timeout = limits_of(J)
    if own > 0 then lease = own end
    if run_timeout > 0 then hard = T.ms + run_timeout end
  end
  if lease_ms > 0 then lease = lease_ms end
  J.st, J.at, J.progress, J.token, J.start, J.stop, J.mark, J.lease, J.worker = RUNNING, J.at + 1, 0, token, T.ms, hard, 0, lease, worker
  save(T, Q, id, J)
  add_to(T, T.timers, hard > 0 and min(T.ms + lease, hard) or T.ms + lease, id)
end

-- The state of a job that is leased for the first time and has no limits of its own, before and after its token: the same for all such
-- jobs of a call, most of what is leased.
local function first_lease(T, fl, worker, lease)
  local J = {raw = '', st = RUNNING, fl = fl, run = 0, at = 1, progress = 0, token = 0, last = 0, start = T.ms, stop = 0, due = 0, mark = 0, lease = lease,
    worker = worker, code = '', message = '', result = ''}
  local state = encode_state(J)
  return {sub(state, 1, TOKEN_AT - 1), sub(state, TOKEN_AT + TOKEN_SIZE)}
end

-- bucket, how many, worker, lease_ms (0: as the job or queue says), queues... -> number, name and id of each queue, then id, record and
-- state of each job.
register('lease', {'allow-oom'}, function(T, A, i, n)
  local bucket, want, worker, lease_ms = A[i + 1], tonumber(A[i + 2]), A[i + 3], tonumber(A[i + 4])
  local queues, named, jobs, count, bytes = {}, {}, {}, 0, 0
  for k = 5, n do
    local Q = queue_named(T, bucket, A[i + k])
    if not Q then return {NOT_FOUND, 'there is no queue ' .. A[i + k]} end
    queues[k - 4] = Q
    named[#named + 1], named[#named + 2], named[#named + 3] = Q.number, Q.name, Q.id
  end
  for _, Q in ipairs(queues) do
    while not Q.paused and count < want and bytes < ANSWER_BYTES_MAX do
      local room = min(min(want - count, Q.max_concurrent - Q.running), SLICE)
      if room <= 0 then break end
      local ids = call('ZRANGE', Q.ready, 0, room - 1)
      if #ids == 0 then break end
      local records, states = read(T, Q.number, ids)
      local taken, first, lease = 0, {}, lease_ms > 0 and lease_ms or Q.lease
      local expiry = num(T.ms + lease)
      for k = 1, #ids do
        if bytes >= ANSWER_BYTES_MAX then break end
        taken = k
        local id, rec, raw = ids[k], records[k], nil
        local fl = rec and byte(rec) % FLAGS
        local token = Q.token >= T.us and Q.token + 1 or T.us
        local parts = first[fl]
        if rec and not states[k] and (parts or not has(fl, FLAG_LIMITS)) then
          if not parts then
            parts = first_lease(T, fl, worker, lease)
            first[fl] = parts
          end
          raw = parts[1] .. pack(TOKEN, token) .. parts[2]
          write_pair(T, 'HSET', Q.states, id, raw)
          write_pair(T, 'ZADD', T.timers, expiry, id)
        elseif rec then
          local J = states[k] and decode_state(rec, states[k]) or new_job(rec)
          local _, expire = limits_of(J)
          if J.st == SUBMITTED and expire > 0 and expire <= T.ms then
            end_job(T, Q, id, J, FAILED, 'Expired', 'expire_time has passed')
          elseif J.st == SUBMITTED then
            grant(T, Q, id, J, token, worker, lease_ms)
            raw = J.raw
          end
        end
        if raw then
          local at = 3 * count
          jobs[at + 1], jobs[at + 2], jobs[at + 3] = id, rec, raw
          count, bytes = count + 1, bytes + #rec + #raw
          Q.token, Q.running, Q.changed = token, Q.running + 1, true
          log_change(T, Q, id, RUNNING, 0)
        end
      end
      call('ZREM', Q.ready, unpack(ids, 1, taken))
    end
  end
  if count < want then
    for _, Q in ipairs(queues) do
      if not Q.wanted then Q.wanted, Q.changed = true, true end
    end
  end
  return {0, named, jobs}
end)

-- The queue and the job, if the worker's lease is the current one; else the queue, nil, a code, a reason and why it must stop.
local function held(T, bucket, id, token)
  local Q = queue(T, number_of(id))
  if not Q or Q.bucket ~= bucket then return nil, nil, NOT_FOUND, NO_JOB, STOP_GONE end
  local J = job_at_hand(T, id) or read_job(T, id)
  if not J then return nil, nil, NOT_FOUND, NO_JOB, STOP_GONE end
  if J.st == RUNNING then
    if J.token == token then return Q, J end
    return Q, nil, PRECONDITION, 'the job has been leased again', STOP_LEASE_LOST
  end
  if J.st == CANCEL then return Q, nil, PRECONDITION, 'the job was cancelled', STOP_CANCELLED end
  if J.st == FAILED and (J.code == 'Expired' or J.code == 'RunTimeout') then
    return Q, nil, PRECONDITION, 'the job has timed out', STOP_TIMED_OUT
  end
  return Q, nil, PRECONDITION, 'the lease has run out', STOP_LEASE_LOST
end

-- bucket, then id, token, progress and extension of each, packed -> for each its new expiry, or code, reason and why to stop.
register('renew', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n do
    local id = sub(A[i + k], 1, NAMED)
    local token, progress, extension = unpack_struct(RENEWAL, A[i + k], NAMED + 1)
    local Q, J, code, reason, stop = held(T, A[i + 1], id, token)
    if not J then
      reply[k + 2] = {code, reason, stop}
    elseif J.stop > 0 and J.stop <= T.ms then
      reply[k + 2] = {PRECONDITION, 'run_timeout has passed', STOP_TIMED_OUT}
    else
      if extension > 0 then J.lease = extension end
      local expiry = J.stop > 0 and min(T.ms + J.lease, J.stop) or T.ms + J.lease
      if progress ~= J.progress and T.ms - J.mark >= 1000 then
        J.mark = T.ms
        log_change(T, Q, id, RUNNING, progress)
      end
      if progress ~= J.progress or extension > 0 then
        J.progress = progress
        save(T, Q, id, J)
      end
      add_to(T, T.timers, expiry, id)
      reply[k + 2] = expiry
    end
  end
  return reply
end, 2, 1, fetch_states)

local SUCCEEDED, COMPLETE = '\3', '\100' -- state and progress
local SIZES = {} -- lease, and lengths of worker, code and message, of what succeeded without one; by the worker's

-- The end of most: a job that is running under this token, and whose state is all that was read of it, succeeds. False, and nothing is done:
-- it is not that. What end_job() would write, without taking the state apart.
local function succeed_at_once(T, bucket, id, token, message, result)
  local raw, Q = T.states[id], queue(T, number_of(id))
  if not raw or T.jobs[id] or not Q or Q.bucket ~= bucket then return false end
  local state, flags, run, _, _, held = unpack_struct('>BBHHBI7', raw)
  if state ~= RUNNING or held ~= token then return false end
  local worker_size = byte(raw, 50)
  local sizes = message == '' and SIZES[worker_size]
  if not sizes then
    sizes = pack('>I4BBH', 0, worker_size, 7, #message)
    if message == '' then SIZES[worker_size] = sizes end
  end
  T.end_time = T.end_time or pack('>I6', T.ms)
  raw = SUCCEEDED .. sub(raw, 2, 6) .. COMPLETE .. sub(raw, TOKEN_AT, 27) .. T.end_time .. sub(raw, 34, 45) .. sizes ..
    sub(raw, 54, 53 + worker_size) .. 'Success' .. message .. result
  T.states[id] = raw
  write_pair(T, 'HSET', Q.states, id, raw)
  end_lease(T, Q, id)
  note_end(T, Q, id, SUCCESS, flags, run, 100)
  add_callback(T, Q, id, flags, run)
  return SUCCESS
end

-- Ends an attempt. Answers with the job's state afterwards, or code, reason and state (0: none).
local function finish(T, bucket, id, token, outcome, after, code, message, result)
  local Q, J, refusal, reason = held(T, bucket, id, token)
  if J and outcome == 's' then
    end_job(T, Q, id, J, SUCCESS, code, message, result)
    return SUCCESS
  elseif J then
    local wait = nil
    if outcome == 'n' then wait = false elseif outcome == 'a' then wait = after end
    local state = end_attempt(T, Q, id, J, code, message, result, wait)
    return state == SUBMITTED and Q.paused and PAUSE or state
  elseif not Q then
    return {refusal, reason, 0}
  end
  J = T.jobs[id]
  -- The same again: it ended the job with this code, or its failure put the job back.
  local repeated
  if has_ended(J) then repeated = J.st ~= CANCEL and J.token == token and J.code == code
  else repeated = J.last == token and outcome ~= 's' end
  if repeated and token > 0 then return view(Q, id, J) end
  return {refusal, reason, view(Q, id, J)}
end

-- bucket, then id, token, outcome (s success, without a code; d failure with the queue's backoff, n never again, a after), after_ms, code, message and
-- result of each, packed -> for each its state afterwards, or code, reason and state (0: none).
register('finish', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n do
    local packed = A[i + k]
    local id = sub(packed, 1, NAMED)
    local token, outcome, after, code_size, message_size = unpack_struct(RESULT, packed, NAMED + 1)
    local message_at = RESULT_SIZE + 1 + code_size
    local result_at = message_at + message_size
    local code = code_size > 0 and sub(packed, RESULT_SIZE + 1, message_at - 1) or ''
    local message = message_size > 0 and sub(packed, message_at, result_at - 1) or ''
    local result = result_at <= #packed and sub(packed, result_at) or ''
    if outcome == 115 then
      reply[k + 2] = succeed_at_once(T, A[i + 1], id, token, message, result) or finish(T, A[i + 1], id, token, 's', 0, 'Success', message, result)
    else
      reply[k + 2] = finish(T, A[i + 1], id, token, char(outcome), after, code, message, result)
    end
  end
  return reply
end, 2, 1, fetch_states)

-- bucket, then id and token of each, packed -> for each 0, or code, reason and 0. The attempt does not count; the job is back in its place.
register('release', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n do
    local id = sub(A[i + k], 1, NAMED)
    local token = unpack_struct(TOKEN, A[i + k], NAMED + 1)
    local Q, J, code, reason = held(T, A[i + 1], id, token)
    if J then
      read_job(T, id)
      end_lease(T, Q, id)
      J.at, J.progress, J.start, J.last = J.at - 1, 0, 0, token
      requeue(T, Q, id, J, due_of(id, J))
      log_change(T, Q, id, SUBMITTED, 0)
      reply[k + 2] = 0
    elseif Q and T.jobs[id].st == SUBMITTED and T.jobs[id].last == token and token > 0 then
      reply[k + 2] = 0
    else
      reply[k + 2] = {code, reason, 0}
    end
  end
  return reply
end, 2, 1, fetch_states)

end
