-- What a partition of the store holds, read in one step: appended to the function library (invariants.py), whose own decoders it uses. (A function, because
-- a chunk has 200 locals at most, and the library needs most of them.)
;(function()
  local function members(key, name)
    local list, found = call('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
    for k = 1, #list, 2 do found[name and name(list[k]) or list[k]] = tonumber(list[k + 1]) end
    return found
  end

  local function id_text(id)
    return ({'j', 's', 'd'})[floor(id:byte(1) / 64)] .. format('%08x%08x%08x%08x', unpack_struct('>I4I4I4I4', id))
  end

  -- A delivery's id as clients know it.
  local function name_of(id)
    if #id ~= 19 then return id end
    local event, run = unpack_struct('>BH', id, 17)
    return 'cb_' .. id_text(id) .. ({'_TaskFinish_'})[event] .. run
  end

  local function names_in(ids)
    local found = {}
    for k, id in ipairs(ids) do found[k] = name_of(id) end
    return found
  end

  local function jobs_in(ids)
    local found = {}
    for k, id in ipairs(ids) do found[k] = id_text(id) end
    return found
  end

  -- The rests of the keys that begin like this.
  local function each(T, kind)
    local found, prefix = {}, T.p .. kind
    for _, key in ipairs(call('KEYS', prefix:gsub('[{}]', '\\%0') .. '*')) do found[#found + 1] = key:sub(#prefix + 1) end
    return found
  end

  local function facts_of_queue(T, number)
    local Q = queue(T, tonumber(number))
    if not Q then return nil end
    local key = T.p
    local listed, gone, missing = {}, 0, 0
    for _, entry in ipairs(call('XRANGE', key .. 'list:' .. number, '-', '+')) do
      local ms, first, count = entry_parts(entry)
      gone = gone + tonumber(call('HGET', key .. 'gone:' .. number, entry[1]) or 0)
      for seq = first, first + count - 1 do
        local id = id_of(Q, ms, seq)
        if read_job(T, id) then listed[#listed + 1] = id_text(id) else missing = missing + 1 end
      end
    end
    local running, states = {}, call('HGETALL', Q.states)
    for k = 1, #states, 2 do
      local J = read_job(T, states[k])
      if not J or J.st == RUNNING then running[#running + 1] = id_text(states[k]) end
    end
    local ended = {} -- without those that were put back since
    for _, entry in ipairs(call('LRANGE', Q.ended, 0, -1)) do
      local id = sub(entry, 1, 16)
      local J = read_job(T, id)
      if not J or has_ended(J) and J.run == unpack_struct(ENDED, entry, 17) then ended[#ended + 1] = id_text(id) end
    end
    return {open = Q.open, wanted = Q.wanted, paused = Q.paused, max_concurrent = Q.max_concurrent, runs = Q.running, gone = gone, missing = missing,
      counts = {Q[SUCCESS], Q[FAILED], Q[CANCEL]},
      ready = jobs_in(call('ZRANGE', Q.ready, 0, -1)), delayed = jobs_in(call('ZRANGE', Q.delayed, 0, -1)),
      delayed_from = tonumber(call('ZRANGE', Q.delayed, 0, 0, 'WITHSCORES')[2]), running = running,
      ended = ended, listed = listed,
      deliveries = names_in(call('ZRANGE', key .. 'dl:' .. number, 0, -1)), past = names_in(call('ZRANGE', key .. 'dended:' .. number, 0, -1))}
  end

  local function facts_of_job(T, id)
    local Q, J = queue(T, number_of(id)), read_job(T, id)
    return {queue = number_of(id), state = J.st, purged = Q and J.st == SUBMITTED and view(Q, id, J) == CANCEL, expires = has(J.fl, FLAG_EXPIRES)}
  end

  local function facts_of_delivery(T, id)
    local D = delivery(T, id)
    local body = is_rendered(T, id)
    return {state = D.s, queue = D.q, group = D.g, test = D.kind == TO_TEST, rendered = body, renders = D.kind == TO_TEST or can_render(T, id)}
  end

  local function facts_of_group(T, group)
    local Q, kind = group_queue(T, group)
    return {outbox = members(T.p .. 'outbox:' .. group, name_of), claims = members(T.p .. 'claims:' .. group, name_of),
      due = tonumber(call('ZSCORE', T.p .. 'due', group) or nil), sends = Q ~= nil, limit = Q and group_limit(T, Q, kind) or 0,
      broken = open_until(T, group) > 0}
  end

  local function facts_of_timers(T)
    local found = {}
    for member, at in pairs(members(T.p .. 'timers')) do
      local kind, subject = 'L', member
      if member:sub(1, 1) == '.' then kind, subject = member:sub(2, 2), member:sub(3) end
      if kind == 'L' or kind == 'E' then subject = id_text(subject) end
      found[kind .. subject] = at
    end
    return found
  end

  local function facts_of_trash(T)
    local found = {}
    for k, entry in ipairs(call('LRANGE', T.p .. 'trash', 0, -1)) do
      local kind, number, key = entry:match('^(%a) (%d+) ?%d* ?(.*)$')
      local ids = key ~= '' and call('ZRANGE', key, 0, -1) or {}
      found[k] = {kind = kind, queue = tonumber(number), members = kind == 'J' and jobs_in(ids) or names_in(ids)}
    end
    return found
  end

  redis.register_function{function_name = 'facts' .. SUFFIX, flags = {'no-writes'}, callback = function(keys)
    local T = begin(keys[1])
    local facts = {now = T.ms, timers = facts_of_timers(T), trash = facts_of_trash(T), queues = {}, jobs = {}, deliveries = {}, groups = {}, bodies = names_in(each(T, 'body:'))}
    for _, number in ipairs(each(T, 'q:')) do facts.queues['q' .. number] = facts_of_queue(T, number) end
    for _, id in ipairs(each(T, 'j:')) do facts.jobs[id_text(id)] = facts_of_job(T, id) end
    for _, id in ipairs(each(T, 'd:')) do facts.deliveries[name_of(id)] = facts_of_delivery(T, id) end
    for _, kind in ipairs({'outbox:', 'claims:'}) do
      for _, group in ipairs(each(T, kind)) do facts.groups[group] = facts.groups[group] or facts_of_group(T, group) end
    end
    return cjson.encode(facts)
  end}
end)()
