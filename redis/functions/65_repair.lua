-- The repair sweep: what a queue's list of deliveries says, and what the sets say that get them sent and forgotten, must belong together. A function
-- writes both at once, so nothing is found here, unless Redis came back with less than it had acknowledged: from an older copy, or from a file that somebody cut.

do -- as in 30_jobs.lua

-- Calls each(id, delivery) for those that their set lacks.
local function missing(T, key, ids, each)
  if #ids == 0 then return end
  local scores = call('ZMSCORE', key, unpack(ids))
  for k = 1, #ids do
    if not scores[k] then each(ids[k], delivery(T, ids[k])) end
  end
end

local function has_timer(T, member) return call('ZSCORE', T.timers, member) end

-- The group of a delivery that has no record, by its id and job.
local function group_named(T, Q, id)
  if #id ~= DELIVERY_ID_SIZE then return group_of(T, TO_TEST, Q.number) end
  local J = read_job(T, sub(id, 1, 16))
  if J and has(J.fl, FLAG_OWN_URL) then return group_of(T, TO_OWN, Q.number, endpoint_of(J)) end
  return group_of(T, TO_RULE, Q.number)
end

-- A delivery that is listed has no record: nobody can send it.
local function forget(T, Q, id)
  local group = group_named(T, Q, id)
  if call('ZREM', T.p .. 'outbox:' .. group, id) + call('ZREM', T.p .. 'claims:' .. group, id) > 0 then count_open(Q, -1) end
  call('ZREM', Q.ended_deliveries, id)
  call('ZREM', Q.deliveries, id)
  call('UNLINK', T.p .. 'body:' .. id)
end

-- Returns how many of these deliveries of a queue, and of their groups, were repaired.
local function repair(T, Q, ids)
  local repaired, ended, groups = 0, {}, {}
  fetch_deliveries(T, ids)
  for _, id in ipairs(ids) do
    local D = delivery(T, id)
    if D and (D.s == PENDING or D.s == SENDING) then
      local group = groups[D.g]
      if not group then
        group = {[PENDING] = {}, [SENDING] = {}}
        groups[D.g] = group
      end
      group[D.s][#group[D.s] + 1] = id
    elseif D then
      ended[#ended + 1] = id
    elseif not T.unreadable[id] then
      forget(T, Q, id)
      repaired = repaired + 1
    end
  end

  missing(T, Q.ended_deliveries, ended, function(id, D)
    add_to(T, Q.ended_deliveries, D.nx, id)
    repaired = repaired + 1
  end)
  if #ended > 0 and not has_timer(T, '.T' .. Q.number) then
    mark(T, 'T' .. Q.number, T.ms)
    repaired = repaired + 1
  end
  for group, of in pairs(groups) do
    local outbox, claims = T.p .. 'outbox:' .. group, T.p .. 'claims:' .. group
    missing(T, outbox, of[PENDING], function(id, D)
      add_to(T, outbox, D.nx, id)
      make_due(T, group, max(D.nx, T.ms))
      repaired = repaired + 1
    end)
    missing(T, claims, of[SENDING], function(id, D)
      postpone_delivery(T, Q, id, D, T.ms)
      repaired = repaired + 1
    end)
    local claim = call('ZRANGE', claims, 0, 0, 'WITHSCORES')
    if claim[1] and not has_timer(T, '.C' .. group) then
      mark(T, 'C' .. group, tonumber(claim[2]))
      repaired = repaired + 1
    end
    -- While one is claimed its end makes the group due.
    if #of[PENDING] > 0 and not claim[1] and not T.dues[group] and group_queue(T, group) and not call('ZSCORE', T.p .. 'due', group) then
      refresh_due(T, group)
      repaired = repaired + 1
    end
  end
  return repaired
end

-- Number of a queue and position in its deliveries to go on from (0 and '' : from the start) -> the next (0: all were seen), how many were
-- repaired. At most SLICE deliveries or queues a call. While there is trash nothing is done, since what lies there is not in the sets.
register('repair', {'allow-oom'}, function(T, A, i)
  local number, position, last = tonumber(A[i + 1]), A[i + 2], tonumber(call('GET', T.p .. 'seq') or 0)
  if call('EXISTS', T.p .. 'trash') == 1 then return {0, number, position, 0} end
  local Q
  for _ = 1, SLICE do
    if number > last then return {0, 0, '', 0} end
    Q = queue(T, number)
    if Q then break end
    number, position = number + 1, ''
  end
  if not Q then return {0, number, '', 0} end
  local found = call('ZRANGEBYSCORE', Q.deliveries, position == '' and '-inf' or '(' .. position, '+inf', 'WITHSCORES', 'LIMIT', 0, SLICE)
  local ids = {}
  for k = 1, #found, 2 do ids[#ids + 1] = found[k] end
  local repaired = repair(T, Q, ids)
  if #ids < SLICE then return {0, number + 1, '', repaired} end
  return {0, number, found[#found], repaired}
end)

end
