-- The dispatcher's side of the outbox: claim, freeze, settle.
--
-- A group is what concurrency is counted for: a queue's rule (Q), its tests (Q:t), or a job's own endpoint (Q:HASH). `due` holds the groups
-- that have something; a group that was served moves behind the others, so that none starves; a group at its limit leaves and
-- is put back when one of its deliveries is settled.

-- The queue of a group and its kind; nil when it may not send: the queue is gone, or the rule off.
local function group_queue(T, group)
  local number, kind = group:match('^(%d+):?(.*)$')
  local Q = queue(T, tonumber(number))
  if not Q or (kind == '' and not rule_of(T, Q).on) then return nil end
  return Q, kind == '' and TO_RULE or kind == 't' and TO_TEST or TO_OWN
end

local function group_limit(T, Q, kind) return kind == TO_RULE and rule_of(T, Q).concurrency or GROUP_CONCURRENCY end

-- A delivery is claimed no more. Whoever waits for the rule to be drained is told of the last one.
local function unclaim(T, Q, id, D)
  remove_from(T, T.p .. 'claims:' .. D.g, id)
  if D.kind == TO_RULE and not rule_of(T, Q).on then T.drains[Q.number] = true end
end

-- Gives a claimed or waiting delivery its last state.
local function end_delivery(T, Q, id, D, state)
  if D.s == SENDING then unclaim(T, Q, id, D) else remove_from(T, T.p .. 'outbox:' .. D.g, id) end
  D.s, D.nx = state, T.ms
  save_delivery(T, id, D)
  count_open(Q, -1)
  retire_delivery(T, Q, id)
end

-- The same without an attempt.
local function give_up_delivery(T, Q, id, D, class, message)
  open_texts(D)
  D.class, D.message = class, message
  end_delivery(T, Q, id, D, DEAD)
end

do -- claim
  local CLAIM_CHUNK = 16 -- deliveries whose jobs and bodies a claim reads at once
  local AGE_MAX_MS = 72 * 3600 * 1000 -- of a rule that says nothing, as in schedule.h
  local TOO_OLD_MAX = 50 -- deliveries that a claim ends for their age
  local LOOK_MS = 1000 -- between two looks for such

  -- What all claims of a group have in common, as decode_group of store_outbox.c reads it; deliveries are added to [1]. A job's own
  -- endpoint has nothing of the rule.
  local function group_values(T, Q, kind, group, expiry, timeout)
    local values = {{}, Q.purge_ms, group, kind, Q.bucket, Q.name, Q.id, expiry, timeout}
    if kind ~= TO_OWN then
      local rule = rule_of(T, Q)
      local trust = rule.trust ~= '' and call('HMGET', T.p .. 'trust:' .. Q.number, 'ca', 'crt', 'key') or {}
      for _, value in ipairs({rule.url, select(2, valid_secrets(T, rule.secrets)), rule.format, rule.headers, rule.schedule, rule.max_age,
          rule.allowed, rule.store_response, rule.trust, trust[1] or '', trust[2] or '', trust[3] or ''}) do
        values[#values + 1] = value
      end
    end
    return values
  end

  -- The bodies, and jobs' records and states, that claims of these deliveries answer with: bodies of those that have been claimed before,
  -- else jobs.
  local function read_ahead(T, Q, ids, first, last)
    local jobs, bodies, keys, records, states = {}, {}, {}, {}, {}
    for k = first, last do
      local kind, _, token = peek_delivery(T, ids[k])
      if kind and token > 0 then keys[#keys + 1], bodies[#bodies + 1] = T.p .. 'body:' .. ids[k], ids[k]
      elseif kind and kind ~= TO_TEST then jobs[#jobs + 1] = sub(ids[k], 1, 16) end
    end
    local got = #keys > 0 and call('MGET', unpack(keys)) or {}
    for k = 1, #keys do
      bodies[bodies[k]] = got[k]
      if not got[k] and #bodies[k] == DELIVERY_ID_SIZE then jobs[#jobs + 1] = sub(bodies[k], 1, 16) end
    end
    if #jobs > 0 then
      local got_records, got_states = read(T, Q.number, jobs)
      for k = 1, #jobs do records[jobs[k]], states[jobs[k]] = got_records[k], got_states[k] end
    end
    return bodies, records, states
  end

  -- What a reader sees of a job: most have ended, which needs nothing but the first byte of their state.
  local function state_seen(Q, job, record, state)
    local seen = state and byte(state) or SUBMITTED
    return seen == SUBMITTED and view(Q, job, state and decode_state(record, state) or new_job(record)) or seen
  end

  -- Claims the deliveries of a group that are due, as many as `most` and `room_bytes` allow. Returns how many were taken from the outbox, how many
  -- of them are claimed, about how many bytes these are, and the answer: per delivery id, token, attempts, since when it is tried,
  -- number, body; its job's state as a reader sees it, record and state as they are stored ('' where there is no job, or a body).
  local function take(T, Q, kind, group, ids, grace, room_bytes)
    local timeout = kind == TO_OWN and 15000 or rule_of(T, Q).timeout
    local expiry = T.ms + timeout + grace
    local values = group_values(T, Q, kind, group, expiry, timeout)
    local claims, claims_key = values[1], T.p .. 'claims:' .. group
    local n, bytes, taken, count, token, bodies, records, states = 0, 0, 0, 0, Q.token, nil, nil, nil
    fetch_deliveries(T, ids)
    for k = 1, #ids do
      if bytes >= room_bytes then break end
      if k % CLAIM_CHUNK == 1 then bodies, records, states = read_ahead(T, Q, ids, k, min(k + CLAIM_CHUNK - 1, #ids)) end
      local id = ids[k]
      taken = k
      if T.deliveries[id] then
        local body, seen, record, state = bodies[id] or '', 0, '', ''
        token = max(T.us, token + 1)
        local attempts, since, number = claim_delivery(T, id, token)
        add_to(T, claims_key, expiry, id)
        if body == '' and kind ~= TO_TEST then
          local job = sub(id, 1, 16)
          if records[job] then
            record, state, seen = records[job], states[job] or '', state_seen(Q, job, records[job], states[job])
          end
        end
        claims[n + 1], claims[n + 2], claims[n + 3], claims[n + 4], claims[n + 5], claims[n + 6], claims[n + 7], claims[n + 8], claims[n + 9] =
          id, token, attempts, since, number, body, seen, record, state
        n, count, bytes = n + 9, count + 1, bytes + #body + #record + #state
      elseif T.unreadable[id] then
        redis.log(redis.LOG_WARNING, 'ringback: a delivery of queue ' .. Q.number .. ' was written by another version and is set aside')
      end
    end
    if count > 0 then
      Q.token, Q.changed = token, true
      mark(T, 'C' .. group, expiry)
      breaker_claimed(T, group, token, expiry)
    end
    return taken, count, bytes, values
  end

  -- Ends deliveries that are past their age, at most so many, from the head of an outbox whose breaker lets none through or only the probe: their
  -- own turn would come one by one. Returns how many, and when the first that is left will be past it (nil: not known).
  local function end_too_old(T, Q, kind, outbox, most)
    local age = kind == TO_RULE and rule_of(T, Q).max_age or 0
    if age == 0 then age = AGE_MAX_MS end
    local ids, ended, ends_at = call('ZRANGEBYSCORE', outbox, '-inf', num(T.ms), 'LIMIT', 0, most), {}, nil
    for k = 1, #ids do
      local id = ids[k]
      if k == 2 then fetch_deliveries(T, ids) end -- the first was
      local D = delivery(T, id)
      if D then
        ends_at = max(D.rs, D.c) + age
        if ends_at >= T.ms then
          T.deliveries[id] = D.raw -- as take wants it
          break
        end
        ends_at = nil
        ended[#ended + 1] = id
        give_up_delivery(T, Q, id, D, 'too_old', 'given up at its maximum age, after ' .. num(D.a - D.ra) ..
          ' attempts; the breaker of its endpoint let no other through')
      end
    end
    if #ended > 0 then call('ZREM', outbox, unpack(ended)) end
    return #ended, ends_at
  end

  -- count, grace_ms -> next due time, the groups of which something was claimed, how many deliveries were ended for their age.
  register('claim', {'allow-oom'}, function(T, A, i)
    local count, grace = tonumber(A[i + 1]), tonumber(A[i + 2])
    local answer, turns, bytes, left, too_old = {}, {}, 0, count, 0
    local groups = call('ZRANGEBYSCORE', T.p .. 'due', '-inf', num(T.ms), 'LIMIT', 0, GROUPS_MAX)
    fetch_breakers(T, groups)
    -- Where few groups wait, each gets more at once.
    local turn = max(TURN_MAX, floor(count / #groups))
    for k, group in ipairs(groups) do
      if left == 0 or bytes >= CLAIM_BYTES_MAX then break end
      local Q, kind = group_queue(T, group)
      local outbox = T.p .. 'outbox:' .. group
      local room = Q and group_limit(T, Q, kind) - call('ZCARD', T.p .. 'claims:' .. group) or 0
      local tries, again_at = breaker_room(T, group)
      room = min(room, tries)
      local taken, next_at = 0, nil
      if room > 0 then
        local ids = call('ZRANGEBYSCORE', outbox, '-inf', num(T.ms), 'LIMIT', 0, min(room, min(left, turn)))
        if #ids > 0 then
          local claimed, size, values
          taken, claimed, size, values = take(T, Q, kind, group, ids, grace, CLAIM_BYTES_MAX - bytes)
          -- They are the first of the set.
          call('ZREMRANGEBYRANK', outbox, 0, taken - 1)
          if claimed > 0 then answer[#answer + 1] = values end
          left, bytes = left - claimed, bytes + size
        end
        next_at = call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2]
      end
      local behind = T.us / 1000 + k / 1000 -- every group that was due before this turn
      local look_at = next_at and room > taken and max(tonumber(next_at), behind) or Q and again_at
      if Q and tries < math.huge then
        local most = TOO_OLD_MAX - too_old
        local ended, ends_at = end_too_old(T, Q, kind, outbox, most)
        too_old = too_old + ended
        if ended == most then look_at = behind -- there may be more
        elseif again_at and ends_at then look_at = min(again_at, max(ends_at + 1, T.ms + LOOK_MS)) end
      end
      if look_at then
        turns[#turns + 1] = format('%.3f', look_at)
        turns[#turns + 1] = group
      else
        call('ZREM', T.p .. 'due', group)
      end
    end
    if #turns > 0 then call('ZADD', T.p .. 'due', unpack(turns)) end
    local head = call('ZRANGE', T.p .. 'due', 0, 0, 'WITHSCORES')[2]
    if left > 0 then call('SET', T.p .. 'hungry', 1) end
    return {0, head and floor(tonumber(head)) or 0, answer, too_old}
  end)
end

-- Puts a claimed delivery back for another attempt.
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

do -- freeze and settle
  -- Reads the deliveries that the calls of a unit name, each in its first argument, at the first of them.
  local function prefetch_deliveries(T, A, i)
    if i > 1 then return end
    local ids, n = {}, 0
    while i <= #A do
      n = n + 1
      ids[n] = A[i + 1]
      i = i + A[i] + 1
    end
    fetch_deliveries(T, ids)
  end

  local NO_CLAIM, DONE = {PRECONDITION, 'the claim is no longer current'}, {0}

  -- id, token, body with what belongs to it, packed -> 0. Only who holds the claim gets here, and a body that is there came with the claim: so
  -- one that is there was written by this very call, made again.
  register('freeze', {'allow-oom'}, function(T, A, i)
    prefetch_deliveries(T, A, i)
    local id = A[i + 1]
    local _, state, token = peek_delivery(T, id)
    if state ~= SENDING or token ~= tonumber(A[i + 2]) then return unreadable(T, id) or NO_CLAIM end
    write_pair(T, 'MSET', nil, T.p .. 'body:' .. id, A[i + 3])
    return DONE
  end)

  -- What an attempt at this URL says of its rule: gone switches it off, and so do failures for long enough.
  local function judge_rule(T, Q, url, class, delivered)
    local rule, reason = rule_of(T, Q), nil
    if delivered and rule.failures == 0 or url ~= rule.url then return end
    rule.judged = true
    if delivered then
      rule.failures, rule.failing_since = 0, 0
      return
    end
    if rule.failures == 0 then rule.failing_since = T.ms end
    rule.failures = rule.failures + 1
    if class == 'gone' then
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

  -- Of ringback.v1.NextAttemptReason. Both come of what the receiver asked for; the second, where there is no next attempt, of the delivery's age.
  local RETRY_AFTER, AGE_LIMIT = 2, 3
  local SAME = {0, 0}

  -- The shortest way, where nothing has failed lately. False, and nothing is done: it is not that.
  local function settle_at_once(T, id, token, entry)
    if #id ~= DELIVERY_ID_SIZE then return false end
    local Q = queue(T, number_of(id))
    local rule = Q and rule_of(T, Q)
    if not rule or rule.failures > 0 or not rule.on then return false end
    local group = group_of(T, TO_RULE, Q.number)
    if breaker_room(T, group) < math.huge or not deliver_at_once(T, id, token, entry) then return false end
    remove_from(T, Q.claims, id)
    count_open(Q, -1)
    retire_delivery(T, Q, id)
    judge_endpoint(T, group, token, true, '', 0)
    refresh_due(T, group)
    return true
  end

  -- id, attempt (15_deliveries.lua), the beginning of the answer if it is to be kept -> what became of the endpoint's breaker: 0, BREAKER_OPENED or
  -- BREAKER_CLOSED.
  register('settle', {'allow-oom'}, function(T, A, i, n)
    prefetch_deliveries(T, A, i)
    local id, entry = A[i + 1], A[i + 2]
    local state, _, reason, token, _, next_at = unpack_struct(SETTLEMENT, entry)
    local delivered = state == DELIVERED
    if delivered and n == 2 and settle_at_once(T, id, token, entry) then return SAME end
    local D = delivery(T, id)
    local Q = D and queue(T, D.q)
    if not Q then return unreadable(T, id) or NO_DELIVERY end
    if D.s ~= SENDING or D.tk ~= token then
      if not delivered then return NO_CLAIM end
      if D.s == DELIVERED then return SAME end
      if D.s == DEAD then count_open(Q, 1) end
    end
    D.a, D.ab = D.a + 1, 0
    add_attempt(D, entry, n > 2 and A[i + 3] or '')
    local class, url = '', nil
    if not delivered or D.kind == TO_RULE and rule_of(T, Q).failures > 0 then
      local _, message
      _, class, message, url = last_attempt(D)
      if state == PENDING and D.kind == TO_RULE and rule_of(T, Q).url == '' then
        class, state = 'cancelled', DEAD
        end_attempts(D)
        D.class, D.message = class, 'the rule was deleted'
      elseif state == DEAD and reason == AGE_LIMIT then -- the attempt keeps its own class
        D.class = 'too_old'
        D.message = 'given up at its maximum age, after ' .. num(D.a - D.ra) .. ' attempts; the last one: ' .. message
      end
    end
    if url and D.kind == TO_RULE then judge_rule(T, Q, url, class, delivered) end
    if state == PENDING then postpone_delivery(T, Q, id, D, next_at)
    else end_delivery(T, Q, id, D, state) end
    local breaker = 0
    if D.kind == TO_TEST then
      publish(T, 't ' .. id)
    else
      breaker = judge_endpoint(T, D.g, token, delivered, class, state == PENDING and reason >= RETRY_AFTER and next_at - T.ms or 0)
    end
    refresh_due(T, D.g)
    return breaker == 0 and SAME or {0, breaker}
  end)
end
