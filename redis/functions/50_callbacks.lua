-- Callback rules, deliveries as operators see them, and the dispatcher's side of the outbox: claim, freeze, settle.
--
-- A group is what concurrency is counted for: a queue's rule (Q), its tests (Q:t), or a job's own endpoint (Q:HASH). `due` holds the groups
-- that have something; a group that was served moves behind the others, so that none starves; a group at its limit leaves and
-- is put back when one of its deliveries is settled.

local RULE_DEFAULTS = {on = '0', url = '', ev = '0', se = '', to = '15000', ut = '0'}

-- A rule as decode_rule of store_callbacks.c reads it: on, url, events, timeout, etag, update time, secrets.
local function rule_values(T, Q)
  local h = call('HMGET', T.p .. 'rule:' .. Q.number, 'on', 'url', 'ev', 'to', 'en', 'ut', 'se')
  return {0, tonumber(h[1] or 0), h[2] or '', tonumber(h[3] or 0), tonumber(h[4] or 15000), Q.number .. '.' .. (h[5] or '0'),
    tonumber(h[6] or 0), h[7] or ''}
end

-- bucket, queue -> the rule.
register('rule_get', function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  return rule_values(T, Q)
end, 'no-writes')

-- bucket, queue, etag, then field and value by pairs -> the rule.
register('rule_update', function(T, A, i, n)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local key = T.p .. 'rule:' .. Q.number
  local now = rule_values(T, Q)
  if A[i + 3] ~= '' and A[i + 3] ~= now[6] then return {CONFLICT, 'the etag is not the current one'} end
  local after = {on = num(now[2]), url = now[3]}
  for k = 4, n, 2 do after[A[i + k]] = A[i + k + 1] end
  if after.on == '1' and after.url == '' then return {PRECONDITION, 'a rule without an URL cannot be switched on'} end
  for field, value in pairs(after) do call('HSET', key, field, value) end
  call('HSET', key, 'ut', num(T.ms))
  call('HINCRBY', key, 'en', 1)
  T.rules[Q.number] = nil
  if after.on == '1' and call('EXISTS', T.p .. 'outbox:' .. Q.number) == 1 then make_due(T, num(Q.number), T.ms) end
  return rule_values(T, Q)
end)

-- bucket, queue -> the rule as it was at the queue's creation. Deliveries that wait go to the trash.
register('rule_delete', function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local key, outbox = T.p .. 'rule:' .. Q.number, T.p .. 'outbox:' .. Q.number
  for field, value in pairs(RULE_DEFAULTS) do call('HSET', key, field, value) end
  call('HINCRBY', key, 'en', 1)
  T.rules[Q.number] = nil
  call('ZREM', T.p .. 'due', Q.number)
  if call('EXISTS', outbox) == 1 then
    local trash = T.p .. 'trash:outbox:' .. Q.number .. ':' .. num(T.us)
    call('RENAME', outbox, trash)
    call('RPUSH', T.p .. 'trash', 'O ' .. Q.number .. ' 0 ' .. trash)
  end
  return rule_values(T, Q)
end, 'allow-oom')

local DELIVERY_FIELDS = {'s', 'q', 'j', 'e', 'u', 'a', 'hs', 'ec', 'em', 'c', 'la', 'ld', 'nx', 't'}

-- A delivery as decode_delivery of store_callbacks.c reads it; nil when it is gone.
local function delivery_values(T, Q, id)
  local h = call('HMGET', T.p .. 'd:' .. id, unpack(DELIVERY_FIELDS))
  if not h[1] or tonumber(h[2]) ~= Q.number then return nil end
  local url = h[5] or (h[14] == '1' or not h[3]) and rule_of(T, Q).url or ''
  return {id, Q.name, h[3] or '', tonumber(h[4]), tonumber(h[1]), url, tonumber(h[6]), tonumber(h[7] or 0), h[8] or '', h[9] or '',
    tonumber(h[10]), tonumber(h[11] or 0), tonumber(h[12] or 0), tonumber(h[13] or 0)}
end

-- bucket, queue -> the test delivery.
register('test_callback', function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  if rule_of(T, Q).url == '' then return {PRECONDITION, 'the rule has no URL'} end
  local id = 'cb_test_' .. Q.number .. '_' .. num(T.us) .. '_' .. call('HINCRBY', T.p .. 'rule:' .. Q.number, 'tn', 1)
  add_delivery(T, Q, id, '', Q.number .. ':t', PENDING, true)
  return {0, '', {delivery_values(T, Q, id)}}
end)

-- bucket, queue, id -> the delivery.
register('delivery_get', function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local values = delivery_values(T, Q, A[i + 3])
  if not values then return {NOT_FOUND, 'there is no such delivery'} end
  return {0, '', {values}}
end, 'no-writes')

-- bucket, queue, states, job ('' : any), count, position -> next position, deliveries.
register('delivery_list', function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local states, job, count, position = tonumber(A[i + 3]), A[i + 4], tonumber(A[i + 5]), A[i + 6]
  local found, examined = {}, 0
  while examined < EXAMINED_MAX do
    local entries = call('XREVRANGE', T.p .. 'dl:' .. Q.number, position == '' and '+' or '(' .. position, '-', 'COUNT', SLICE)
    for _, entry in ipairs(entries) do
      position = entry[1]
      local values = delivery_values(T, Q, entry[2][2])
      if values and (states == 0 or floor(states / 2 ^ values[5]) % 2 == 1) and (job == '' or job == values[3]) then
        found[#found + 1] = values
        if #found >= count then return {0, position, found} end
      end
    end
    if #entries < SLICE then return {0, '', found} end
    examined = examined + #entries
  end
  return {0, position, found}
end, 'no-writes')

-- Takes a delivery of a group for one attempt. Returns what decode_claim of store_callbacks.c reads.
local function take(T, Q, group, id, grace)
  local key = T.p .. 'd:' .. id
  local h = call('HMGET', key, 'j', 'e', 'a', 'c', 'sq', 't', 'ct', 'b', 'u', 'tp')
  if not h[2] then return nil end
  local rule = call('HMGET', T.p .. 'rule:' .. Q.number, 'url', 'se', 'to')
  local own = group:find(':', 1, true) ~= nil and h[6] ~= '1'
  local timeout = own and 15000 or tonumber(rule[3] or 15000)
  local expiry = T.ms + timeout + grace
  local token = call('HINCRBY', T.p .. 'q:' .. Q.number, 'dk', 1)
  call('HSET', key, 's', SENDING, 'tk', token)
  call('ZADD', T.p .. 'claims:' .. group, num(expiry), id)
  mark(T, 'C' .. group, expiry)
  local job = {}
  if h[6] == '1' then
    job = {Q.name, Q.id}
  elseif not h[7] then
    local R = record(T, h[1])
    if R then add_job(T, job, Q, h[1], R) end
  end
  return {id, group, token, expiry, tonumber(h[2]), h[6] == '1' and 1 or 0, tonumber(h[3]), tonumber(h[4]), tonumber(h[5]), Q.bucket,
    own and (h[9] or '') or rule[1] or '', own and 1 or 0, own and '' or rule[2] or '', timeout, h[7] or '', h[8] or '', h[10] or '', job}
end

-- Whether a group may send: its queue is there, and its rule on unless it is of another kind.
local function group_queue(T, group)
  local number, kind = group:match('^(%d+):?(.*)$')
  local Q = queue(T, tonumber(number))
  if not Q or (kind == '' and not rule_of(T, Q).on) then return nil end
  return Q
end

-- count, grace_ms -> next due time, claims.
register('claim', function(T, A, i)
  local count, grace = tonumber(A[i + 1]), tonumber(A[i + 2])
  local claims, now = {}, T.us / 1000
  for _ = 1, 64 do
    if #claims >= count then break end
    local group = call('ZRANGEBYSCORE', T.p .. 'due', '-inf', num(T.ms), 'LIMIT', 0, 1)[1]
    if not group then break end
    local Q = group_queue(T, group)
    local outbox = T.p .. 'outbox:' .. group
    local room = Q and GROUP_CONCURRENCY - call('ZCARD', T.p .. 'claims:' .. group) or 0
    local ids = room > 0 and call('ZRANGEBYSCORE', outbox, '-inf', num(T.ms), 'LIMIT', 0, min(min(room, count - #claims), 8)) or {}
    for _, id in ipairs(ids) do
      claims[#claims + 1] = take(T, Q, group, id, grace)
    end
    if #ids > 0 then call('ZREM', outbox, unpack(ids)) end
    local head = room > #ids and call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2]
    if head then
      now = now + 0.001
      call('ZADD', T.p .. 'due', string.format('%.3f', max(tonumber(head), now)), group)
    else
      call('ZREM', T.p .. 'due', group)
    end
  end
  local head = call('ZRANGE', T.p .. 'due', 0, 0, 'WITHSCORES')[2]
  if #claims < count then call('SET', T.p .. 'hungry', 1) end
  return {0, head and floor(tonumber(head)) or 0, claims}
end, 'allow-oom')

-- id, token, url, content type, traceparent, body -> 0.
register('freeze', function(T, A, i)
  local key = T.p .. 'd:' .. A[i + 1]
  local h = call('HMGET', key, 's', 'tk', 'ct')
  if tonumber(h[1] or 0) ~= SENDING or h[2] ~= A[i + 2] then return {PRECONDITION, 'the claim is no longer current'} end
  if h[3] then return {0} end
  call('HSET', key, 'u', A[i + 3], 'ct', A[i + 4], 'tp', A[i + 5], 'b', A[i + 6])
  return {0}
end, 'allow-oom')

-- Gives a claimed or waiting delivery its last state.
local function end_delivery(T, Q, group, id, state)
  call('ZREM', T.p .. 'claims:' .. group, id)
  call('ZREM', T.p .. 'outbox:' .. group, id)
  call('HSET', T.p .. 'd:' .. id, 's', state, 'nx', 0)
  count_open(Q, -1)
  retire_delivery(T, Q, id)
end

-- Puts a delivery back for another attempt.
local function postpone_delivery(T, group, id, at)
  call('ZREM', T.p .. 'claims:' .. group, id)
  call('ZADD', T.p .. 'outbox:' .. group, num(at), id)
  call('HSET', T.p .. 'd:' .. id, 's', PENDING, 'nx', num(at))
end

-- A slot of the group is free, or its head has changed: dispatchers look again.
local function refresh_due(T, group)
  local head = call('ZRANGE', T.p .. 'outbox:' .. group, 0, 0, 'WITHSCORES')[2]
  if head then make_due(T, group, max(tonumber(head), T.ms)) end
end

-- id, token, state, http status, error class, error message, start, duration, next -> 0.
register('settle', function(T, A, i)
  local id, state = A[i + 1], tonumber(A[i + 3])
  local key = T.p .. 'd:' .. id
  local h = call('HMGET', key, 's', 'tk', 'g', 'q', 't')
  local Q = h[1] and queue(T, tonumber(h[4]))
  if not Q then return {NOT_FOUND, 'there is no such delivery'} end
  local now, current = tonumber(h[1]), h[2] == A[i + 2]
  if now ~= SENDING or not current then
    if state ~= DELIVERED then return {PRECONDITION, 'the claim is no longer current'} end
    if now == DELIVERED then return {0} end
    if now == DEAD then
      count_open(Q, 1)
    end
  end
  call('HINCRBY', key, 'a', 1)
  call('HSET', key, 'hs', A[i + 4], 'ec', A[i + 5], 'em', A[i + 6], 'la', A[i + 7], 'ld', A[i + 8])
  local group = h[3]
  if state == PENDING and not group:find(':', 1, true) and rule_of(T, Q).url == '' then
    call('HSET', key, 'ec', 'cancelled', 'em', 'the rule was deleted')
    state = DEAD
  end
  if state == PENDING then postpone_delivery(T, group, id, tonumber(A[i + 9]))
  else end_delivery(T, Q, group, id, state) end
  if h[5] == '1' then publish(T, 't ' .. id) end
  refresh_due(T, group)
  return {0}
end, 'allow-oom')
