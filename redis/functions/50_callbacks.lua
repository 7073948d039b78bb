-- Deliveries as operators see them: list, read, test, send again.

local NO_DELIVERY = {NOT_FOUND, 'there is no such delivery'}

-- Whether a delivery that has no body yet can still be rendered as it would have been.
local function can_render(T, id)
  local job = id:sub(1, 16)
  local J = read_job(T, job)
  return J ~= nil and has_ended(J) and delivery_id(job, J.run) == id
end

do -- what is local here serves the functions below only
  -- What may hold a delivery that waits: 1 where it goes to its job's own URL, which the rule does not hold, and until when the breaker of its
  -- endpoint is open (0: closed).
  local function add_hold(T, D, values)
    values[13] = D.kind == TO_OWN and 1 or 0
    values[14] = D.s == PENDING and D.kind ~= TO_TEST and open_until(T, D.g) or 0
  end

  -- A delivery as decode_delivery of store_callbacks.c reads it; nil when it is gone. Before the first attempt it has the URL that it would go to.
  -- With `full` there follow what add_hold adds, the kept answer, how many attempts it has and these as they were packed.
  local function delivery_values(T, Q, id, full)
    local D = delivery(T, id)
    if not D or D.q ~= Q.number then return nil end
    local status, class, message, url, start, total = last_attempt(D)
    if not status then
      status, class, message, start, total = 0, '', '', 0, 0
      url = D.kind == TO_OWN and (D.tk > 0 and frozen_url(T, id) or '') or rule_of(T, Q).url
    end
    if D.class_size > 0 then
      open_texts(D)
      class, message = D.class, D.message
    end
    local values = {id, Q.name, D.s, url, D.a, status, class, message, D.c, start, floor(total / 1000),
      (D.s == PENDING or D.s == SENDING) and D.nx or 0}
    if full then
      open_texts(D)
      add_hold(T, D, values)
      values[15], values[16], values[17] = D.answer, D.kept, D.log
    end
    return values
  end

  -- Whether what ended a delivery without an attempt or for its age is one of these classes (' a b ', '' : any), or what its last attempt failed with.
  local function failed_with(D, classes)
    if classes == '' then return true end
    local _, class = last_attempt(D)
    if class and classes:find(' ' .. class .. ' ', 1, true) then return true end
    if D.class_size == 0 then return false end
    open_texts(D)
    return classes:find(' ' .. D.class .. ' ', 1, true) ~= nil
  end

  -- bucket, queue -> the test delivery.
  register('test_callback', {}, function(T, A, i)
    local Q = queue_named(T, A[i + 1], A[i + 2])
    if not Q then return NO_QUEUE end
    if rule_of(T, Q).url == '' then return {PRECONDITION, 'the rule has no URL'} end
    local id = 'cb_test_' .. Q.number .. '_' .. num(T.us) .. '_' .. call('HINCRBY', T.p .. 'rule:' .. Q.number, 'tn', 1)
    add_delivery(T, Q, id, TO_TEST, 0, PENDING)
    return {0, '', {delivery_values(T, Q, id, true)}}
  end)

  -- bucket, id -> the delivery with its attempts.
  register('delivery_get', {'no-writes'}, function(T, A, i)
    local D = delivery(T, A[i + 2])
    local Q = D and queue(T, D.q)
    if not Q or Q.bucket ~= A[i + 1] then return unreadable(T, A[i + 2]) or NO_DELIVERY end
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
      return (states == 0 or floor(states / 2 ^ values[3]) % 2 == 1) and (job == '' or job == values[1]:sub(1, 16)) and
        failed_with(delivery(T, values[1]), classes) and
        values[9] >= from and (before == 0 or values[9] < before)
    end
    local found, examined = {}, 0
    while examined < EXAMINED_MAX do
      local ids = call('ZREVRANGEBYSCORE', T.p .. 'dl:' .. Q.number, position == '' and '+inf' or '(' .. position, '-inf', 'LIMIT', 0, SLICE)
      fetch_deliveries(T, ids)
      for _, id in ipairs(ids) do
        local values = delivery_values(T, Q, id)
        position = T.deliveries[id] and num(T.deliveries[id].sq) or call('ZSCORE', T.p .. 'dl:' .. Q.number, id)
        if values and wanted(values) then
          add_hold(T, delivery(T, id), values)
          found[#found + 1] = values
          if #found >= count then return {0, position, found} end
        end
      end
      if #ids < SLICE then return {0, '', found} end
      examined = examined + #ids
    end
    return {0, position, found}
  end)

  -- Puts a delivery back to be sent at once. Returns what stands against it.
  local function redeliver(T, Q, id, D)
    if D.kind == TO_TEST then return 'it was a test' end
    if D.s == SENDING then return 'an attempt is under way' end
    if D.s == SUPPRESSED then return 'it is suppressed: the rule was off when the job ended' end
    if D.kind == TO_RULE and rule_of(T, Q).url == '' then return 'the rule has no URL' end
    if not is_rendered(T, id) and not can_render(T, id) then return 'its body was never rendered and its job is gone or has been retried' end
    if D.s ~= PENDING then
      count_open(Q, 1)
      remove_from(T, T.p .. 'dended:' .. Q.number, id)
    end
    D.s, D.nx, D.rs, D.ra, D.ab = PENDING, T.ms, T.ms, D.a, 0
    save_delivery(T, id, D)
    add_to(T, T.p .. 'outbox:' .. D.g, T.ms, id)
    make_due(T, D.g, T.ms)
  end

  -- bucket, ids -> how many were put back, '', then 0 for each, or code, reason and 0. An id that is there twice is one delivery.
  register('redeliver', {}, function(T, A, i, n)
    local answer, count, counted = {0, 0, ''}, 0, {}
    fetch_deliveries(T, {unpack(A, i + 2, i + n)})
    for k = 2, n do
      local id = A[i + k]
      local D = delivery(T, id)
      local Q = D and queue(T, D.q)
      local code, reason = 0, ''
      if not Q or Q.bucket ~= A[i + 1] then
        code, reason = unpack(unreadable(T, id) or NO_DELIVERY)
      else
        reason = redeliver(T, Q, id, D) or ''
        if reason ~= '' then code = PRECONDITION
        elseif not counted[id] then count, counted[id] = count + 1, true end
      end
      answer[#answer + 1] = code == 0 and 0 or {code, reason, 0}
    end
    answer[2] = count
    return answer
  end)

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
        position = D and num(D.sq) or call('ZSCORE', T.p .. 'dl:' .. Q.number, id)
        if D then
          if D.s == DEAD and D.c >= from and (before == 0 or D.c < before) and
              failed_with(D, classes) and not redeliver(T, Q, id, D) then
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
end
