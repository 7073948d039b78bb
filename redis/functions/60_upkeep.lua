-- The sweep: bounded slices of whatever time brings about (leases that run out, jobs that become due or expire, retention, abandoned claims)
-- and of what purges and deletions left.

-- A job's lease has run out.
local function on_lease(T, member)
  local id = member:sub(2)
  local Q = queue(T, (id_parts(id)))
  local L = Q and lease_of(T, Q, id)
  local R = L and record(T, id)
  if not R then return remove_from(T, T.p .. 'timers', member) end
  -- A late finish under this token is refused, not taken for a repeated one.
  L.token = 0
  if L.hard > 0 and L.hard <= T.ms then
    end_attempt(T, Q, id, R, L, 'RunTimeout', 'run_timeout has passed')
  else
    end_attempt(T, Q, id, R, L, 'LeaseExpired', 'the lease ran out without being renewed')
  end
end

-- A job's expire_time has come.
local function on_expiry(T, member)
  local id = member:sub(2)
  remove_from(T, T.p .. 'timers', member)
  local Q = queue(T, (id_parts(id)))
  local R = Q and record(T, id)
  if not R then return end
  local L = lease_of(T, Q, id)
  if L then
    drop_lease(T, Q, id)
  elseif R.st ~= SUBMITTED or R.ep < Q.epoch then
    return
  else
    remove_from(T, Q.ready, id)
    remove_from(T, Q.delayed, id)
  end
  end_job(T, Q, id, R, L, FAILED, 'Expired', 'expire_time has passed')
end

-- Moves the timer of a queue or group to the next score of its set, plus `after`.
local function rearm(T, member, set, after)
  local head = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if head then call('ZADD', T.p .. 'timers', num(tonumber(head) + after), member)
  else call('ZREM', T.p .. 'timers', member) end
end

-- Delayed jobs of a queue have become leasable.
local function on_delayed(T, member)
  local Q = queue(T, tonumber(member:sub(2)))
  if not Q then return remove_from(T, T.p .. 'timers', member) end
  local ids = call('ZRANGEBYSCORE', Q.delayed, '-inf', num(T.ms), 'LIMIT', 0, SLICE)
  if #ids > 0 then
    call('ZREM', Q.delayed, unpack(ids))
    for _, id in ipairs(ids) do
      local head = call('GETRANGE', T.p .. 'j:' .. id, 0, HEAD_SIZE - 1)
      if #head == HEAD_SIZE then
        local _, _, _, priority, _, _, _, due = unpack_struct(HEAD, head)
        call('ZADD', Q.ready, num(score(Q, due, priority)), id)
      end
    end
    offer(Q)
  end
  rearm(T, member, Q.delayed, 0)
  return #ids
end

-- Forgets jobs that have ended long ago, or that are more than the queue keeps.
local function on_retention(T, member)
  local Q = queue(T, tonumber(member:sub(2)))
  if not Q then return remove_from(T, T.p .. 'timers', member) end
  local ended = T.p .. 'ended:' .. Q.number
  local excess = call('ZCARD', ended) - Q.keep_count
  local ids
  if excess > 0 then ids = call('ZRANGE', ended, 0, min(excess, SLICE) - 1)
  else ids = call('ZRANGEBYSCORE', ended, '-inf', num(T.ms - Q.keep_ms), 'LIMIT', 0, SLICE) end
  local keys, entries, gone = {}, {}, {}
  for _, id in ipairs(ids) do
    local R = record(T, id)
    if R and awaits_rendering(T, id, R) then
      -- Its callback still needs the record: looked at again in a minute.
      call('ZADD', ended, num(T.ms - Q.keep_ms + 60000), id)
    else
      if R then count_ended(Q, R.st, -1) end
      keys[#keys + 1] = T.p .. 'j:' .. id
      entries[#entries + 1] = stream_id(id)
      gone[#gone + 1] = id
      T.records[id] = false
    end
  end
  if #gone > 0 then
    call('UNLINK', unpack(keys))
    call('XDEL', T.p .. 'list:' .. Q.number, unpack(entries))
    call('ZREM', ended, unpack(gone))
  end
  if excess > SLICE and #gone > 0 then call('ZADD', T.p .. 'timers', num(T.ms), member)
  elseif excess > 0 and #gone == 0 then call('ZADD', T.p .. 'timers', num(T.ms + 1000), member)
  else rearm(T, member, ended, Q.keep_ms) end
  return #ids
end

-- Forgets deliveries that have ended long ago, or that are too many.
local function on_deliveries(T, member)
  local number = member:sub(2)
  local set = T.p .. 'dended:' .. number
  local excess = call('ZCARD', set) - DELIVERIES_KEPT
  local ids
  if excess > 0 then ids = call('ZRANGE', set, 0, min(excess, SLICE) - 1)
  else ids = call('ZRANGEBYSCORE', set, '-inf', num(T.ms - DELIVERIES_KEPT_MS), 'LIMIT', 0, SLICE) end
  if #ids > 0 then
    local keys = {}
    for k, id in ipairs(ids) do keys[2 * k - 1], keys[2 * k] = T.p .. 'd:' .. id, T.p .. 'body:' .. id end
    call('UNLINK', unpack(keys))
    call('ZREM', T.p .. 'dl:' .. number, unpack(ids))
    call('ZREM', set, unpack(ids))
  end
  if excess > SLICE then call('ZADD', T.p .. 'timers', num(T.ms), member)
  else rearm(T, member, set, DELIVERIES_KEPT_MS) end
  return #ids
end

-- Claims whose dispatcher is gone: the deliveries go back, without using up an attempt.
local function on_claims(T, member)
  local group = member:sub(2)
  local set = T.p .. 'claims:' .. group
  local ids = call('ZRANGEBYSCORE', set, '-inf', num(T.ms), 'LIMIT', 0, SLICE)
  fetch_deliveries(T, ids)
  for _, id in ipairs(ids) do
    local D = delivery(T, id)
    local Q = D and queue(T, D.q)
    if Q then
      D.ab = D.ab + 1
      if D.ab < ABANDONED_MAX then
        postpone_delivery(T, Q, id, D, T.ms)
      else
        give_up_delivery(T, Q, id, D, 'crash_loop', 'the dispatcher ended ' .. ABANDONED_MAX .. ' times in a row while this was under way')
      end
    end
  end
  if #ids > 0 then call('ZREM', set, unpack(ids)) end
  refresh_due(T, group) -- those that were set aside have left their places to others
  rearm(T, member, set, 0)
  return #ids
end

local ON_TIMER = {L = on_lease, E = on_expiry, D = on_delayed, R = on_retention, T = on_deliveries, C = on_claims}

-- A purge's sets: their jobs end as Cancel, calling nobody back. A job that was put back since has another epoch.
local function trash_jobs(T, number, epoch, key)
  local Q = queue(T, number)
  if not Q then
    call('UNLINK', key)
    return 0
  end
  local popped = call('ZPOPMIN', key, TRASH_SLICE)
  local ids = {}
  for k = 1, #popped, 2 do ids[#ids + 1] = popped[k] end
  if #ids == 0 then return 0 end
  fetch(T, ids)
  for _, id in ipairs(ids) do
    local R = T.records[id]
    if R and R.st == SUBMITTED and R.ep == epoch then
      R.tail = true
      R.st, R.finish, R.code, R.message = CANCEL, Q.purge_ms, 'Cancel', 'the queue was purged'
      save(T, id, R)
      count_ended(Q, CANCEL, 1)
      Q.ended_added = Q.ended_added + 1
      if R.exp > 0 then remove_from(T, T.p .. 'timers', 'E' .. id) end
      add_to(T, T.p .. 'ended:' .. Q.number, Q.purge_ms, id)
      log_change(T, Q, id, CANCEL, R.progress)
    end
  end
  mark(T, 'R' .. Q.number, Q.purge_ms + Q.keep_ms)
  return #ids
end

-- The outbox of a deleted rule: its deliveries are dead.
local function trash_outbox(T, number, _, key)
  local Q = queue(T, number)
  local popped = call('ZPOPMIN', key, TRASH_SLICE)
  for k = 1, #popped, 2 do
    local D = Q and delivery(T, popped[k])
    if D and D.s == PENDING then give_up_delivery(T, Q, popped[k], D, 'cancelled', 'the rule was deleted') end
  end
  return #popped / 2
end

-- A deleted queue: its jobs and deliveries by their lists, then its own keys.
local function trash_queue(T, number)
  local jobs = call('XRANGE', T.p .. 'list:' .. number, '-', '+', 'COUNT', TRASH_SLICE)
  local head = call('HGET', T.p .. 'q:' .. number, 'f')
  local keys, entries, timers = {}, {}, {}
  for _, entry in ipairs(jobs) do
    local ms, seq = entry[1]:match('^(%d+)-(%d+)$')
    local id = id_of({feature = tonumber(head), partition = T.partition, number = number}, tonumber(ms), tonumber(seq))
    keys[#keys + 1] = T.p .. 'j:' .. id
    entries[#entries + 1] = entry[1]
    timers[#timers + 1] = 'L' .. id
    timers[#timers + 1] = 'E' .. id
  end
  if #jobs > 0 then
    call('UNLINK', unpack(keys))
    call('ZREM', T.p .. 'timers', unpack(timers))
    call('XDEL', T.p .. 'list:' .. number, unpack(entries))
    return #jobs
  end
  local deliveries = call('ZRANGE', T.p .. 'dl:' .. number, 0, TRASH_SLICE - 1)
  fetch_deliveries(T, deliveries)
  for _, id in ipairs(deliveries) do
    local D = delivery(T, id)
    if D then
      for _, set in ipairs({'outbox:', 'claims:'}) do call('ZREM', T.p .. set .. D.g, id) end
      call('ZREM', T.p .. 'due', D.g)
      call('ZREM', T.p .. 'timers', 'C' .. D.g)
      call('UNLINK', T.p .. 'breaker:' .. D.g)
    end
    call('UNLINK', T.p .. 'd:' .. id, T.p .. 'body:' .. id)
    call('ZREM', T.p .. 'dl:' .. number, id)
  end
  if #deliveries > 0 then return #deliveries end
  for _, key in ipairs({'q:', 'ready:', 'delayed:', 'running:', 'ended:', 'dended:', 'list:', 'dl:', 'rule:', 'trust:', 'outbox:', 'claims:', 'breaker:'}) do
    call('UNLINK', T.p .. key .. number)
  end
  call('UNLINK', T.p .. 'req:' .. number .. ':0', T.p .. 'req:' .. number .. ':1')
  call('ZREM', T.p .. 'due', number)
  call('ZREM', T.p .. 'timers', 'D' .. number, 'R' .. number, 'T' .. number)
  return 0
end

local TRASH = {J = trash_jobs, O = trash_outbox, Q = trash_queue}

-- No arguments -> how much was done (0: nothing is due), the earliest timer (0: none).
register('sweep', {'allow-oom'}, function(T)
  local due = call('ZRANGEBYSCORE', T.p .. 'timers', '-inf', num(T.ms), 'LIMIT', 0, SLICE)
  local changed, heavy = 0, 0
  for _, member in ipairs(due) do
    local done = ON_TIMER[member:sub(1, 1)](T, member)
    changed, heavy = changed + 1, heavy + (done or 1)
    if heavy >= SLICE then break end
  end
  if heavy <= SLICE / 5 then  -- not both in full: a call stays short
    local first = call('LINDEX', T.p .. 'trash', 0)
    if first then
      local kind, number, epoch, key = first:match('^(%a) (%d+) ?(%d*) ?(.*)$')
      if TRASH[kind](T, tonumber(number), tonumber(epoch), key) == 0 then call('LPOP', T.p .. 'trash') end
      changed = changed + 1
    end
  end
  local head = call('ZRANGE', T.p .. 'timers', 0, 0, 'WITHSCORES')[2]
  return {0, changed, head and floor(tonumber(head)) or 0}
end)
