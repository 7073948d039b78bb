-- Deliveries as operators see them, and the dispatcher's side of the outbox: claim, freeze, settle.
--
-- A group is what concurrency is counted for: a queue's rule (Q), its tests (Q:t), or a job's own endpoint (Q:HASH). `due` holds the groups
-- that have something; a group that was served moves behind the others, so that none starves; a group at its limit leaves and
-- is put back when one of its deliveries is settled.

-- A delivery as decode_delivery of store_callbacks.c reads it; nil when it is gone. Before the first attempt it has the rule's URL.
-- With `full` its attempts follow, until when the breaker of its endpoint is open while it waits (0: closed), and the kept answer.
local function delivery_values(T, Q, id, full)
  local D = delivery(T, id)
  if not D or D.q ~= Q.number then return nil end
  local url = D.u
  if url == '' and (D.t == 1 or not D.g:find(':', 1, true)) then url = rule_of(T, Q).url end
  return {id, Q.name, D.j, D.e, D.s, url, D.a, D.hs, D.ec, D.em, D.c, D.la, D.ld, D.nx, full and D.l or {},
    full and D.s == PENDING and D.t == 0 and open_until(T, D.g) or 0, full and D.rb or ''}
end

-- bucket, queue -> the test delivery.
register('test_callback', {}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  if rule_of(T, Q).url == '' then return {PRECONDITION, 'the rule has no URL'} end
  local id = 'cb_test_' .. Q.number .. '_' .. num(T.us) .. '_' .. call('HINCRBY', T.p .. 'rule:' .. Q.number, 'tn', 1)
  add_delivery(T, Q, id, '', Q.number .. ':t', PENDING, true)
  return {0, '', {delivery_values(T, Q, id, true)}}
end)

-- bucket, id -> the delivery with its attempts.
register('delivery_get', {'no-writes'}, function(T, A, i)
  local D = delivery(T, A[i + 2])
  local Q = D and queue(T, D.q)
  if not Q or Q.bucket ~= A[i + 1] then return {NOT_FOUND, 'there is no such delivery'} end
  return {0, '', {delivery_values(T, Q, A[i + 2], true)}}
end)

-- bucket, queue, states, job ('' : any), error classes (' a b ', '' : any), created from and before (0: any), count, position -> next
-- position, deliveries.
register('delivery_list', {'no-writes'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local states, job, classes, from, before = tonumber(A[i + 3]), A[i + 4], A[i + 5], tonumber(A[i + 6]), tonumber(A[i + 7])
  local count, position = tonumber(A[i + 8]), A[i + 9]
  local function wanted(values)
    return (states == 0 or floor(states / 2 ^ values[5]) % 2 == 1) and (job == '' or job == values[3]) and
      (classes == '' or classes:find(' ' .. values[9] .. ' ', 1, true) ~= nil) and
      values[11] >= from and (before == 0 or values[11] < before)
  end
  local found, examined = {}, 0
  while examined < EXAMINED_MAX do
    local ids = call('ZREVRANGEBYSCORE', T.p .. 'dl:' .. Q.number, position == '' and '+inf' or '(' .. position, '-inf', 'LIMIT', 0, SLICE)
    fetch_deliveries(T, ids)
    for _, id in ipairs(ids) do
      local values = delivery_values(T, Q, id)
      if T.deliveries[id] then position = num(T.deliveries[id].sq) end
      if values and wanted(values) then
        found[#found + 1] = values
        if #found >= count then return {0, position, found} end
      end
    end
    if #ids < SLICE then return {0, '', found} end
    examined = examined + #ids
  end
  return {0, position, found}
end)

-- Whether a delivery that has no body yet can still be rendered as it would have been.
local function can_render(T, id, D)
  local R = record(T, D.j)
  return R ~= nil and R.st >= SUCCESS and R.st ~= PAUSE and delivery_id(D.j, R.run) == id
end

-- Puts a delivery back to be sent at once. Returns what stands against it.
local function redeliver(T, Q, id, D)
  if D.t == 1 then return 'it was a test' end
  if D.s == SENDING then return 'an attempt is under way' end
  if D.s == SUPPRESSED then return 'it is suppressed: the rule was off when the job ended' end
  if not D.g:find(':', 1, true) and rule_of(T, Q).url == '' then return 'the rule has no URL' end
  if D.ct == '' and not can_render(T, id, D) then return 'its body was never rendered and its job is gone or has been retried' end
  if D.s ~= PENDING then
    count_open(Q, 1)
    remove_from(T, T.p .. 'dended:' .. Q.number, id)
  end
  D.s, D.nx, D.rs, D.ra, D.ab = PENDING, T.ms, T.ms, D.a, 0
  save_delivery(T, id, D)
  add_to(T, T.p .. 'outbox:' .. D.g, T.ms, id)
  make_due(T, D.g, T.ms)
end

-- bucket, ids -> how many were put back, '', code, reason and 0 of each.
register('redeliver', {}, function(T, A, i, n)
  local answer, count = {0, 0, ''}, 0
  for k = 2, n do
    local id = A[i + k]
    local D = delivery(T, id)
    local Q = D and queue(T, D.q)
    local code, reason = 0, ''
    if not Q or Q.bucket ~= A[i + 1] then
      code, reason = NOT_FOUND, 'there is no such delivery'
    else
      reason = redeliver(T, Q, id, D) or ''
      if reason ~= '' then code = PRECONDITION else count = count + 1 end
    end
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = code, reason, 0
  end
  answer[2] = count
  return answer
end, 2, 1)

-- bucket, queue, error classes, created from and before, position -> how many dead ones were put back, next position.
register('redeliver_dead', {}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local classes, from, before, position = A[i + 3], tonumber(A[i + 4]), tonumber(A[i + 5]), A[i + 6]
  local count, examined = 0, 0
  while examined < REDELIVER_EXAMINED_MAX do
    local ids = call('ZREVRANGEBYSCORE', T.p .. 'dl:' .. Q.number, position == '' and '+inf' or '(' .. position, '-inf', 'LIMIT', 0, SLICE)
    fetch_deliveries(T, ids)
    for _, id in ipairs(ids) do
      local D = delivery(T, id)
      if D then
        position = num(D.sq)
        if D.s == DEAD and D.c >= from and (before == 0 or D.c < before) and
            (classes == '' or classes:find(' ' .. D.ec .. ' ', 1, true)) and not redeliver(T, Q, id, D) then
          count = count + 1
          if count >= REDELIVERED_MAX then return {0, count, position} end
        end
      end
    end
    if #ids < SLICE then return {0, count, ''} end
    examined = examined + #ids
  end
  return {0, count, position}
end)

-- Takes a delivery of a group for one attempt. Returns what decode_claim of store_callbacks.c reads, and about how many bytes that is.
local function take(T, Q, group, id, grace)
  local D = delivery(T, id)
  if not D then return nil, 0 end
  local rule = rule_of(T, Q)
  local own = D.t == 0 and group:find(':', 1, true) ~= nil
  local timeout = own and 15000 or rule.timeout
  local expiry = T.ms + timeout + grace
  Q.token = max(T.us, Q.token + 1)
  Q.changed.tk = num(Q.token)
  D.s, D.tk = SENDING, Q.token
  if not own and D.ct ~= '' then D.u = rule.url end
  save_delivery(T, id, D)
  add_to(T, T.p .. 'claims:' .. group, expiry, id)
  mark(T, 'C' .. group, expiry)
  local job, body, bytes = {}, D.b, 0
  if D.ct ~= '' then body = call('GET', T.p .. 'body:' .. id) or body end
  if D.t == 1 then
    job = {Q.name, Q.id}
  elseif D.ct == '' then
    local R = record(T, D.j)
    if R then bytes = add_job(T, job, Q, D.j, R) end
  end
  local secrets = own and '' or select(2, valid_secrets(T, rule.secrets))
  return {id, group, D.tk, expiry, D.e, D.t, D.a - D.ra, max(D.rs, D.c), D.sq, Q.bucket, own and D.u or rule.url, own and 1 or 0, secrets,
    timeout, D.ct, body, D.tp, job, rule.format, D.rq,
    own and '' or rule.headers, own and '' or rule.schedule, own and 0 or rule.max_age, own and '' or rule.allowed, own and 0 or rule.store_response,
    own and '' or rule.trust}, bytes + #body
end

-- Whether a group may send: its queue is there, and its rule on unless it is of another kind.
local function group_queue(T, group)
  local number, kind = group:match('^(%d+):?(.*)$')
  local Q = queue(T, tonumber(number))
  if not Q or (kind == '' and not rule_of(T, Q).on) then return nil end
  return Q
end

local function group_limit(T, Q, group)
  return group:find(':', 1, true) and GROUP_CONCURRENCY or rule_of(T, Q).concurrency
end

-- count, grace_ms -> next due time, claims, certificates and keys of their rules.
register('claim', {'allow-oom'}, function(T, A, i)
  local count, grace = tonumber(A[i + 1]), tonumber(A[i + 2])
  local claims, turns, trusts, bytes = {}, {}, {}, 0
  local function add_trust(Q, id) -- of a claimed delivery's rule, once a reply
    if id == '' or trusts[id] then return end
    local h = call('HMGET', T.p .. 'trust:' .. Q.number, 'ca', 'crt', 'key')
    trusts[id] = true
    trusts[#trusts + 1] = {id, h[1] or '', h[2] or '', h[3] or ''}
  end
  local groups = call('ZRANGEBYSCORE', T.p .. 'due', '-inf', num(T.ms), 'LIMIT', 0, GROUPS_MAX)
  fetch_breakers(T, groups)
  -- Where few groups wait, each gets more at once.
  local turn = max(TURN_MAX, floor(count / #groups))
  for k, group in ipairs(groups) do
    if #claims >= count or bytes >= CLAIM_BYTES_MAX then break end
    local Q = group_queue(T, group)
    local outbox = T.p .. 'outbox:' .. group
    local room = Q and group_limit(T, Q, group) - call('ZCARD', T.p .. 'claims:' .. group) or 0
    local tries, again_at = breaker_room(T, group)
    room = min(room, tries)
    -- One more than is taken tells when the group is due next.
    local most = min(room, min(count - #claims, turn))
    local heads = room > 0 and call('ZRANGE', outbox, 0, most, 'WITHSCORES') or {}
    local ids = {}
    for h = 1, min(#heads / 2, most) do
      if tonumber(heads[2 * h]) > T.ms then break end
      ids[h] = heads[2 * h - 1]
    end
    if #ids > 0 then
      fetch_deliveries(T, ids)
      for h, id in ipairs(ids) do
        if bytes >= CLAIM_BYTES_MAX then
          for rest = #ids, h, -1 do ids[rest] = nil end
          break
        end
        local claimed, size = take(T, Q, group, id, grace)
        claims[#claims + 1], bytes = claimed, bytes + size
        if claimed then
          breaker_claimed(T, group, claimed[3], claimed[4])
          add_trust(Q, claimed[26])
        end
      end
      call('ZREM', outbox, unpack(ids))
    end
    local next_at = heads[2 * #ids + 2]
    if next_at and room > #ids then
      -- Behind every group that was due before this turn.
      turns[#turns + 1] = format('%.3f', max(tonumber(next_at), T.us / 1000 + k / 1000))
      turns[#turns + 1] = group
    elseif again_at and Q then
      turns[#turns + 1] = num(again_at)
      turns[#turns + 1] = group
    else
      call('ZREM', T.p .. 'due', group)
    end
  end
  if #turns > 0 then call('ZADD', T.p .. 'due', unpack(turns)) end
  local head = call('ZRANGE', T.p .. 'due', 0, 0, 'WITHSCORES')[2]
  if #claims < count then call('SET', T.p .. 'hungry', 1) end
  return {0, head and floor(tonumber(head)) or 0, claims, trusts}
end)

-- id, token, url, content type, traceparent, body -> 0.
register('freeze', {'allow-oom'}, function(T, A, i)
  local D = delivery(T, A[i + 1])
  if not D or D.s ~= SENDING or D.tk ~= tonumber(A[i + 2]) then return {PRECONDITION, 'the claim is no longer current'} end
  if D.ct ~= '' then return {0} end
  D.u, D.ct, D.tp = A[i + 3], A[i + 4], A[i + 5]
  write_pair(T, 'MSET', nil, T.p .. 'body:' .. A[i + 1], A[i + 6])
  save_delivery(T, A[i + 1], D)
  return {0}
end, 1, 6)

-- What an attempt says of its rule: gone switches it off, and so do failures for long enough.
local function judge_rule(T, Q, D, state)
  local rule, reason = rule_of(T, Q), nil
  if D.u ~= '' and D.u ~= rule.url then return end
  if state == DELIVERED then
    if rule.failures > 0 then rule.failures, rule.failing_since, rule.judged = 0, 0, true end
    return
  end
  if rule.failures == 0 then rule.failing_since = T.ms end
  rule.failures, rule.judged = rule.failures + 1, true
  if D.ec == 'gone' then
    reason = 'the receiver answered 410 Gone'
  elseif rule.failures >= FAILURES_MIN and T.ms - rule.failing_since >= FAILING_MS then
    reason = 'the receiver has accepted nothing for 120 hours; ' .. num(rule.failures) .. ' attempts failed'
  end
  if reason and rule.on then
    local key = T.p .. 'rule:' .. Q.number
    rule.on = false
    call('HSET', key, 'on', '0', 'or', reason, 'ut', num(T.ms))
    raise_epoch(T, Q)
    call('HINCRBY', key, 'en', 1)
  end
end

-- A delivery is claimed no more. Whoever waits for the rule to be drained is told of the last one.
local function unclaim(T, Q, id, D)
  remove_from(T, T.p .. 'claims:' .. D.g, id)
  if not D.g:find(':', 1, true) and not rule_of(T, Q).on then T.drains[Q.number] = true end
end

-- Gives a claimed or waiting delivery its last state.
local function end_delivery(T, Q, id, D, state)
  unclaim(T, Q, id, D)
  remove_from(T, T.p .. 'outbox:' .. D.g, id)
  D.s, D.nx = state, 0
  save_delivery(T, id, D)
  count_open(Q, -1)
  retire_delivery(T, Q, id)
end

-- Puts a delivery back for another attempt.
local function postpone_delivery(T, Q, id, D, at)
  unclaim(T, Q, id, D)
  add_to(T, T.p .. 'outbox:' .. D.g, at, id)
  D.s, D.nx = PENDING, at
  save_delivery(T, id, D)
  make_due(T, D.g, max(at, T.ms))
end

-- A slot of the group is free: dispatchers look again.
local function refresh_due(T, group)
  if T.refreshed[group] then return end
  T.refreshed[group] = true
  local head = call('ZRANGE', T.p .. 'outbox:' .. group, 0, 0, 'WITHSCORES')[2]
  if head then make_due(T, group, max(tonumber(head), T.ms)) end
end

-- Writes an attempt into the delivery's log: address, microseconds of five phases and why there is a next one come from A[k] on.
local function log_attempt(D, A, k)
  local log = D.l
  log[#log + 1] = {D.a, D.la, A[k], D.hs, D.ec, D.em, tonumber(A[k + 1]), tonumber(A[k + 2]), tonumber(A[k + 3]), tonumber(A[k + 4]),
    tonumber(A[k + 5]), D.nx, D.nx > 0 and tonumber(A[k + 6]) or 0}
  while #log > ATTEMPTS_KEPT do table.remove(log, 1) end
end

local RETRY_AFTER = 2 -- of ringback.v1.NextAttemptReason; those beyond too come of what the receiver asked for

-- id, token, state, http status, error class, error message, start, duration, next, address, microseconds of DNS, connect, TLS, first byte
-- and total, why there is a next attempt, the beginning of the answer if it is to be kept -> what became of the endpoint's breaker: 0, BREAKER_OPENED or BREAKER_CLOSED.
register('settle', {'allow-oom'}, function(T, A, i, n)
  local id, state = A[i + 1], tonumber(A[i + 3])
  local D = delivery(T, id)
  local Q = D and queue(T, D.q)
  if not Q then return {NOT_FOUND, 'there is no such delivery'} end
  if D.s ~= SENDING or D.tk ~= tonumber(A[i + 2]) then
    if state ~= DELIVERED then return {PRECONDITION, 'the claim is no longer current'} end
    if D.s == DELIVERED then return {0, 0} end
    if D.s == DEAD then count_open(Q, 1) end
  end
  D.a = D.a + 1
  D.hs, D.ec, D.em, D.la, D.ld = tonumber(A[i + 4]), A[i + 5], A[i + 6], tonumber(A[i + 7]), tonumber(A[i + 8])
  if state == PENDING and not D.g:find(':', 1, true) and rule_of(T, Q).url == '' then
    D.ec, D.em, state = 'cancelled', 'the rule was deleted', DEAD
  end
  D.rb = n >= 17 and A[i + 17] or ''
  D.nx, D.ab = state == PENDING and tonumber(A[i + 9]) or 0, 0
  if not D.g:find(':', 1, true) then judge_rule(T, Q, D, state) end
  log_attempt(D, A, i + 10)
  if state == PENDING then postpone_delivery(T, Q, id, D, tonumber(A[i + 9]))
  else end_delivery(T, Q, id, D, state) end
  if D.t == 1 then publish(T, 't ' .. id) end
  local breaker = 0
  if D.t == 0 then
    local asked = tonumber(A[i + 16]) >= RETRY_AFTER and tonumber(A[i + 9]) - T.ms or 0
    breaker = judge_endpoint(T, D.g, tonumber(A[i + 2]), state == DELIVERED, D.ec, asked)
  end
  refresh_due(T, D.g)
  return {0, breaker}
end, 1, 17)
