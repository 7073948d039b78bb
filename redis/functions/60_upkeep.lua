-- The sweep: bounded slices of whatever time brings about (leases that run out, jobs that become due or expire, retention, abandoned claims)
-- and of what purges and deletions left.

do -- as in 30_jobs.lua

-- Of time's items or of trash that one sweep takes. Most are an ended job, about 20 us; so a slice has room to spare below 5 ms for a turn of Lua's
-- collector and for the pages that are copied while a fork rewrites the append-only file.
local SWEEP_SLICE = 40
local ABANDONED_MAX = 5         -- claims in a row that ran out under one delivery

-- A job's lease has run out.
local function on_lease(T, id)
  local Q = queue(T, number_of(id))
  local J = Q and read_job(T, id)
  if not J or J.st ~= RUNNING then return remove_from(T, T.timers, id) end
  -- A late finish under this token is refused, not taken for a repeated one.
  J.token = 0
  if J.stop > 0 and J.stop <= T.ms then
    end_attempt(T, Q, id, J, 'RunTimeout', 'run_timeout has passed')
  else
    end_attempt(T, Q, id, J, 'LeaseExpired', 'the lease ran out without being renewed')
  end
end

-- A job's expire_time has come.
local function on_expiry(T, id)
  local Q = queue(T, number_of(id))
  local J = Q and read_job(T, id)
  local state = J and view(Q, id, J)
  if not J or has_ended(J) or state == CANCEL then return remove_from(T, T.timers, '.E' .. id) end
  if state ~= RUNNING then
    remove_from(T, Q.ready, id)
    remove_from(T, Q.delayed, id)
  end
  end_job(T, Q, id, J, FAILED, 'Expired', 'expire_time has passed')
end

-- Moves the timer of a queue or group to the next score of its set, plus `after`.
local function rearm(T, member, set, after)
  local head = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if head then call('ZADD', T.timers, num(tonumber(head) + after), member)
  else call('ZREM', T.timers, member) end
end

-- Delayed jobs of a queue have become leasable.
local function on_delayed(T, number, most)
  local Q = queue(T, tonumber(number))
  if not Q then return remove_from(T, T.timers, '.D' .. number) end
  local heads = call('ZRANGEBYSCORE', Q.delayed, '-inf', num(T.ms), 'WITHSCORES', 'LIMIT', 0, most)
  for k = 1, #heads, 2 do
    local id = heads[k]
    local priority = call('GETRANGE', T.job_key .. id, 1, 1)
    local J = T.jobs[id]
    if priority ~= '' and not (J and has_ended(J)) then add_to(T, Q.ready, score(Q, tonumber(heads[k + 1]), byte(priority)), id) end
    remove_from(T, Q.delayed, id)
  end
  if #heads > 0 then offer(Q) end
  -- The set still has those that this unit takes out of it.
  local head = call('ZRANGE', Q.delayed, #heads / 2, #heads / 2, 'WITHSCORES')[2]
  if head then call('ZADD', T.timers, num(tonumber(head)), '.D' .. number) else call('ZREM', T.timers, '.D' .. number) end
  return #heads / 2
end

-- Takes jobs off their queue's listing: an entry goes with its last job.
local function unlist(T, number, ids)
  local list, gone = T.p .. 'list:' .. number, T.p .. 'gone:' .. number
  table.sort(ids) -- so that those of one entry are neighbours
  local k = 1
  while k <= #ids do
    local entry = call('XREVRANGE', list, stream_id(ids[k]), '-', 'COUNT', 1)[1]
    local first_ms, first, count = entry_parts(entry)
    local from = k
    repeat
      k = k + 1
      local ms, seq
      if ids[k] then ms, seq = place_of(ids[k]) end
    until ms ~= first_ms or seq >= first + count
    local taken = k - from
    if taken == count then
      call('XDEL', list, entry[1])
    elseif call('HINCRBY', gone, entry[1], taken) == count then
      call('XDEL', list, entry[1])
      call('HDEL', gone, entry[1])
    end
  end
end

-- Forgets jobs that have ended long ago, or that are more than the queue keeps.
local function on_retention(T, number, most)
  local member = '.R' .. number
  local Q = queue(T, tonumber(number))
  if not Q then return remove_from(T, T.timers, member) end
  local entries, ids, callbacks = call('LRANGE', Q.ended, 0, most - 1), {}, {}
  for k = 1, #entries do ids[k] = sub(entries[k], 1, 16) end
  fetch(T, Q.number, ids)
  for k = 1, #ids do
    local J = T.jobs[ids[k]]
    if J and not has(J.fl, FLAG_NO_CALLBACK) then callbacks[#callbacks + 1] = delivery_id(ids[k], J.run) end
  end
  fetch_deliveries(T, callbacks)
  local excess = Q[SUCCESS] + Q[FAILED] + Q[CANCEL] - Q.keep_count
  local taken, gone, keys, waiting = 0, {}, {}, {}
  for k = 1, #entries do
    local id, run, at = ids[k], unpack_struct(ENDED, entries[k], 17)
    local J = T.jobs[id]
    if J and has_ended(J) and J.run == run then
      if excess <= 0 and at > T.ms - Q.keep_ms then break end
      if awaits_rendering(T, id, J) then
        waiting[#waiting + 1] = entries[k]
      else
        count_ended(Q, J.st, -1)
        gone[#gone + 1], keys[#keys + 1] = id, T.job_key .. id
        excess = excess - 1
        T.jobs[id] = false
      end
    end
    taken = k
  end
  if #gone > 0 then
    call('UNLINK', unpack(keys))
    call('HDEL', Q.states, unpack(gone))
    unlist(T, Q.number, gone)
  end
  if taken > 0 then call('LTRIM', Q.ended, taken, -1) end
  -- Their callbacks still need the records: looked at again in their turn.
  if #waiting > 0 then call('RPUSH', Q.ended, unpack(waiting)) end
  local head = call('LINDEX', Q.ended, 0)
  if not head then call('ZREM', T.timers, member)
  elseif taken > 0 and #waiting == taken then call('ZADD', T.timers, num(T.ms + 1000), member)
  elseif excess > 0 then call('ZADD', T.timers, num(T.ms), member)
  else call('ZADD', T.timers, num(select(2, unpack_struct(ENDED, head, 17)) + Q.keep_ms), member) end
  return taken
end

-- Forgets deliveries that have ended long ago, or that are too many.
local function on_deliveries(T, number, most)
  local member = '.T' .. number
  local set = T.p .. 'dended:' .. number
  local excess = call('ZCARD', set) - DELIVERIES_KEPT
  local ids
  if excess > 0 then ids = call('ZRANGE', set, 0, min(excess, most) - 1)
  else ids = call('ZRANGEBYSCORE', set, '-inf', num(T.ms - DELIVERIES_KEPT_MS), 'LIMIT', 0, most) end
  if #ids > 0 then
    local keys = {}
    for k, id in ipairs(ids) do keys[2 * k - 1], keys[2 * k] = T.p .. 'd:' .. id, T.p .. 'body:' .. id end
    call('UNLINK', unpack(keys))
    call('ZREM', T.p .. 'dl:' .. number, unpack(ids))
    call('ZREM', set, unpack(ids))
  end
  if excess > most then call('ZADD', T.timers, num(T.ms), member)
  else rearm(T, member, set, DELIVERIES_KEPT_MS) end
  return #ids
end

-- Claims whose dispatcher is gone: the deliveries go back, without using up an attempt.
local function on_claims(T, group, most)
  local set = T.p .. 'claims:' .. group
  local ids = call('ZRANGEBYSCORE', set, '-inf', num(T.ms), 'LIMIT', 0, most)
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
  rearm(T, '.C' .. group, set, 0)
  return #ids
end

-- Each takes at most so many items, and says how many it took (nil: one).
local ON_TIMER = {E = on_expiry, D = on_delayed, R = on_retention, T = on_deliveries, C = on_claims}

-- A purge's sets: their jobs end as Cancel, calling nobody back. A job that was put back since is behind the boundary.
local function trash_jobs(T, number, boundary, key)
  local Q = queue(T, number)
  if not Q then
    call('UNLINK', key)
    return 0
  end
  local popped = call('ZPOPMIN', key, SWEEP_SLICE)
  local ids = {}
  for k = 1, #popped, 2 do ids[#ids + 1] = popped[k] end
  if #ids == 0 then return 0 end
  fetch(T, number, ids)
  for _, id in ipairs(ids) do
    local J = T.jobs[id]
    if J and J.st == SUBMITTED and (J.mark > 0 and J.mark or created_ms(id)) <= boundary then
      J.st, J.stop, J.code, J.message = CANCEL, Q.purge_ms, 'Cancel', 'the queue was purged'
      retire_job(T, Q, id, J)
    end
  end
  return #ids
end

-- The outbox of a deleted rule: its deliveries are dead.
local function trash_outbox(T, number, _, key)
  local Q = queue(T, number)
  local popped = call('ZPOPMIN', key, SWEEP_SLICE)
  for k = 1, #popped, 2 do
    local D = Q and delivery(T, popped[k])
    -- One that was put back since is in the outbox, or was claimed from there and gets another time in this very sweep.
    local is_trash = D and D.s == PENDING and D.nx == tonumber(popped[k + 1]) and not call('ZSCORE', Q.outbox, popped[k])
    if is_trash then give_up_delivery(T, Q, popped[k], D, 'cancelled', 'the rule was deleted') end
  end
  return #popped / 2
end

-- A deleted queue: its jobs and deliveries by their lists, then its own keys.
local function trash_queue(T, number)
  local jobs = call('XRANGE', T.p .. 'list:' .. number, '-', '+', 'COUNT', SWEEP_SLICE)
  if jobs[1] then
    local feature = floor(byte(call('HGET', T.p .. 'q:' .. number, 'id')) / 64)
    local keys, timers, entries = {}, {}, {}
    for _, entry in ipairs(jobs) do
      local ms, first, count = entry_parts(entry)
      for seq = first, first + count - 1 do
        local id = id_of({feature = feature, partition = T.partition, number = number}, ms, seq)
        keys[#keys + 1] = T.job_key .. id
        timers[#timers + 1], timers[#timers + 2] = id, '.E' .. id
      end
      entries[#entries + 1] = entry[1]
      if #keys >= SWEEP_SLICE then break end
    end
    call('UNLINK', unpack(keys))
    call('ZREM', T.timers, unpack(timers))
    call('XDEL', T.p .. 'list:' .. number, unpack(entries))
    return #keys
  end
  local deliveries = call('ZRANGE', T.p .. 'dl:' .. number, 0, SWEEP_SLICE - 1)
  fetch_deliveries(T, deliveries)
  for _, id in ipairs(deliveries) do
    local D = delivery(T, id)
    if D then
      for _, set in ipairs({'outbox:', 'claims:'}) do call('ZREM', T.p .. set .. D.g, id) end
      call('ZREM', T.p .. 'due', D.g)
      call('ZREM', T.timers, '.C' .. D.g)
      call('UNLINK', T.p .. 'breaker:' .. D.g)
    end
    call('UNLINK', T.p .. 'd:' .. id, T.p .. 'body:' .. id)
    call('ZREM', T.p .. 'dl:' .. number, id)
  end
  if #deliveries > 0 then return #deliveries end
  for _, key in ipairs({'q:', 'ready:', 'delayed:', 'state:', 'gone:', 'ended:', 'dended:', 'list:', 'dl:', 'rule:', 'trust:', 'outbox:', 'claims:', 'breaker:'}) do
    call('UNLINK', T.p .. key .. number)
  end
  call('UNLINK', T.p .. 'req:' .. number .. ':0', T.p .. 'req:' .. number .. ':1')
  call('ZREM', T.p .. 'due', number)
  call('ZREM', T.timers, '.D' .. number, '.R' .. number, '.T' .. number)
  return 0
end

local TRASH = {J = trash_jobs, O = trash_outbox, Q = trash_queue}

-- The jobs among the members of timers.
local function ids_due(due)
  local ids = {}
  for k = 1, #due do
    if byte(due[k]) ~= 46 then ids[#ids + 1] = due[k]
    elseif byte(due[k], 2) == 69 then ids[#ids + 1] = sub(due[k], 3) end -- .E
  end
  return ids
end

-- No arguments -> how much was done (0: nothing is due), the earliest timer (0: none).
register('sweep', {'allow-oom'}, function(T)
  local due = call('ZRANGEBYSCORE', T.timers, '-inf', num(T.ms), 'LIMIT', 0, SWEEP_SLICE)
  local changed, heavy = 0, 0
  by_queue(T, ids_due(due), fetch)
  for _, member in ipairs(due) do
    local done
    if sub(member, 1, 1) == '.' then done = ON_TIMER[sub(member, 2, 2)](T, sub(member, 3), SWEEP_SLICE - heavy) else on_lease(T, member) end
    changed, heavy = changed + 1, heavy + (done or 1)
    if heavy >= SWEEP_SLICE then break end
  end
  if heavy <= SWEEP_SLICE / 5 then  -- not both in full: a call stays short
    local first = call('LINDEX', T.p .. 'trash', 0)
    if first then
      local kind, number, boundary, key = first:match('^(%a) (%d+) ?(%d*) ?(.*)$')
      if TRASH[kind](T, tonumber(number), tonumber(boundary), key) == 0 then call('LPOP', T.p .. 'trash') end
      changed = changed + 1
    end
  end
  local head = call('ZRANGE', T.timers, 0, 0, 'WITHSCORES')[2]
  return {0, changed, head and floor(tonumber(head)) or 0}
end)

end
