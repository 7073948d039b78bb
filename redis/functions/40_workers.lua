-- Jobs as workers see them: lease, renew, finish, release.

-- Reasons of ringback.v1.StopReason.
local STOP_CANCELLED, STOP_LEASE_LOST, STOP_TIMED_OUT, STOP_GONE = 1, 2, 3, 4

-- Grants a lease on a job that has left the line.
local function grant(T, Q, id, R, worker, lease_ms)
  Q.token = max(T.us, Q.token + 1)
  Q.changed.tk = num(Q.token)
  local lease = lease_ms > 0 and lease_ms or R.lease > 0 and R.lease or Q.lease
  local hard = R.rt > 0 and T.ms + R.rt or 0
  local L = {token = Q.token, start = T.ms, hard = hard, lease = lease, progress = 0, logged = 0, at = R.at + 1, worker = worker}
  local expiry = T.ms + lease
  if hard > 0 then expiry = min(expiry, hard) end
  set_lease(T, Q, id, L)
  add_to(T, T.p .. 'timers', expiry, 'L' .. id)
  log_change(T, Q, id, RUNNING, 0)
  return L, expiry
end

-- bucket, how many, worker, lease_ms (0: as the job or queue says), queues... -> queue numbers, then token, expiry and a job for each.
register('lease', {'allow-oom'}, function(T, A, i, n)
  local bucket, want, worker, lease_ms = A[i + 1], tonumber(A[i + 2]), A[i + 3], tonumber(A[i + 4])
  local numbers, jobs, count, bytes = {}, {}, 0, 0
  for k = 5, n do
    local Q = queue_named(T, bucket, A[i + k])
    if not Q then return {NOT_FOUND, 'there is no queue ' .. A[i + k]} end
    numbers[#numbers + 1] = Q.number
  end
  for _, number in ipairs(numbers) do
    local Q = queue(T, number)
    while not Q.paused and count < want and bytes < ANSWER_BYTES_MAX do
      local room = min(min(want - count, Q.max_concurrent - running_count(T, Q)), SLICE)
      if room <= 0 then break end
      local ids = call('ZRANGE', Q.ready, 0, room - 1)
      if #ids == 0 then break end
      fetch(T, ids)
      local taken = {}
      for _, id in ipairs(ids) do
        if bytes >= ANSWER_BYTES_MAX then break end
        taken[#taken + 1] = id
        local R = T.records[id]
        if R and R.exp > 0 and R.exp <= T.ms then
          end_job(T, Q, id, R, nil, FAILED, 'Expired', 'expire_time has passed')
        elseif R and R.st == SUBMITTED then
          local L, expiry = grant(T, Q, id, R, worker, lease_ms)
          jobs[#jobs + 1] = Q.token
          jobs[#jobs + 1] = expiry
          bytes = bytes + add_job(T, jobs, Q, id, R, L)
          count = count + 1
        end
      end
      call('ZREM', Q.ready, unpack(taken))
    end
  end
  if count < want then
    for _, number in ipairs(numbers) do
      local Q = queue(T, number)
      if not Q.wanted then
        Q.wanted = true
        Q.changed.w = '1'
      end
    end
  end
  return {0, numbers, jobs}
end)

-- The lease that a worker names, if it is the current one; else a code, a reason and why it must stop.
local function held(T, bucket, id, token)
  local Q = queue(T, (id_parts(id)))
  if not Q or Q.bucket ~= bucket then return nil, nil, NOT_FOUND, NO_JOB, STOP_GONE end
  local L = lease_of(T, Q, id)
  if L and L.token == token then return Q, L end
  local R = record(T, id)
  if not R then return nil, nil, NOT_FOUND, NO_JOB, STOP_GONE end
  if L then return Q, nil, PRECONDITION, 'the job has been leased again', STOP_LEASE_LOST end
  if R.st == CANCEL then return Q, nil, PRECONDITION, 'the job was cancelled', STOP_CANCELLED end
  if R.st == FAILED and (R.code == 'Expired' or R.code == 'RunTimeout') then
    return Q, nil, PRECONDITION, 'the job has timed out', STOP_TIMED_OUT
  end
  return Q, nil, PRECONDITION, 'the lease has run out', STOP_LEASE_LOST
end

local function add_item(reply, code, reason, number)
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3] = code, reason, number
end

-- bucket, then id, token, progress and extension by fours -> for each code, reason, and new expiry or why to stop.
register('renew', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n, 4 do
    local id, token, progress, extension = A[i + k], tonumber(A[i + k + 1]), tonumber(A[i + k + 2]), tonumber(A[i + k + 3])
    local Q, L, code, reason, stop = held(T, A[i + 1], id, token)
    if not L then
      add_item(reply, code, reason, stop)
    elseif L.hard > 0 and L.hard <= T.ms then
      add_item(reply, PRECONDITION, 'run_timeout has passed', STOP_TIMED_OUT)
    else
      if extension > 0 then L.lease = extension end
      local expiry = T.ms + L.lease
      if L.hard > 0 then expiry = min(expiry, L.hard) end
      if progress ~= L.progress then
        L.progress = progress
        if T.ms - L.logged >= 1000 then
          L.logged = T.ms
          log_change(T, Q, id, RUNNING, progress)
        end
      end
      set_lease(T, Q, id, L)
      add_to(T, T.p .. 'timers', expiry, 'L' .. id)
      add_item(reply, 0, '', expiry)
    end
  end
  return reply
end, 2, 4)

-- bucket, then id, token, outcome (s success, d failure with the queue's backoff, n never again, a after), after_ms, code, message,
-- result by sevens -> for each code, reason, state.
register('finish', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n, 7 do
    local id, token, outcome, after = A[i + k], tonumber(A[i + k + 1]), A[i + k + 2], tonumber(A[i + k + 3])
    local code, message, result = A[i + k + 4], A[i + k + 5], A[i + k + 6]
    local Q, L, refusal, reason = held(T, A[i + 1], id, token)
    local R = Q and record(T, id)
    -- The same again: it ended the job with this code, or its failure put the job back.
    local repeated = not L and R and R.tail and R.token == token and
      (R.st == SUBMITTED and outcome ~= 's' or R.st ~= SUBMITTED and R.st ~= CANCEL and R.code == code)
    if repeated then
      add_item(reply, 0, '', view(Q, R, lease_of(T, Q, id)))
    elseif not L then
      add_item(reply, refusal, reason, R and view(Q, R, lease_of(T, Q, id)) or 0)
    elseif outcome == 's' then
      drop_lease(T, Q, id)
      end_job(T, Q, id, R, L, SUCCESS, 'Success', message, result)
      add_item(reply, 0, '', SUCCESS)
    else
      local wait = nil
      if outcome == 'n' then wait = false elseif outcome == 'a' then wait = after end
      local state = end_attempt(T, Q, id, R, L, code, message, result, wait)
      if state == SUBMITTED and Q.paused then state = PAUSE end
      add_item(reply, 0, '', state)
    end
  end
  return reply
end, 2, 7)

-- bucket, then id and token by pairs -> for each code, reason, 0. The attempt does not count; the job is back in its place.
register('release', {'allow-oom'}, function(T, A, i, n)
  local reply = {0, 0, ''}
  for k = 2, n, 2 do
    local id, token = A[i + k], tonumber(A[i + k + 1])
    local Q, L, code, reason = held(T, A[i + 1], id, token)
    local R = Q and record(T, id)
    if L then
      drop_lease(T, Q, id)
      R.tail = true
      R.token, R.worker, R.ep = token, L.worker, Q.epoch
      save(T, id, R)
      enqueue(T, Q, id, R.due, R.pr)
      log_change(T, Q, id, SUBMITTED, 0)
      add_item(reply, 0, '', 0)
    elseif R and R.st == SUBMITTED and R.token == token and not lease_of(T, Q, id) then
      add_item(reply, 0, '', 0)
    else
      add_item(reply, code, reason, 0)
    end
  end
  return reply
end, 2, 2)
