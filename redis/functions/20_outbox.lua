-- What a job's end leaves: the ended job itself, and its callback in the outbox. Used by whatever ends jobs.

-- A queue's rule as it matters to an end, read once a unit.
local function rule_of(T, Q)
  local rule = T.rules[Q.number]
  if not rule then
    local h = call('HMGET', T.p .. 'rule:' .. Q.number, 'on', 'url', 'ev', 'sq', 'se', 'to', 'rq', 'fm', 'fc', 'fs', 'cc', 'hd', 'sc', 'ma',
      'al', 'sr', 'ti')
    rule = {on = h[1] == '1', url = h[2] or '', events = tonumber(h[3] or 0), sequence = tonumber(h[4] or 0), secrets = h[5] or '',
      timeout = tonumber(h[6] or 15000), own_sequence = tonumber(h[7] or 0), format = tonumber(h[8] or 1),
      failures = tonumber(h[9] or 0), failing_since = tonumber(h[10] or 0), concurrency = tonumber(h[11] or GROUP_CONCURRENCY),
      headers = h[12] or '', schedule = h[13] or '', max_age = tonumber(h[14] or 0), allowed = h[15] or '', store_response = tonumber(h[16] or 0),
      trust = h[17] or ''}
    T.rules[Q.number] = rule
  end
  return rule
end

local TASK_FINISH = 1 -- of ringback.v1.CallbackEvent

local function delivery_id(id, run) return id .. pack('>BH', TASK_FINISH, run) end

-- Makes a group's head known to dispatchers, no later than `at`.
local function make_due(T, group, at)
  local known = T.dues[group]
  if not known or at < known then T.dues[group] = at end
end

local function count_open(Q, by)
  Q.open, Q.changed = Q.open + by, true
end

-- A delivery has reached its last state; retention takes it later.
local function retire_delivery(T, Q, id)
  add_to(T, Q.ended_deliveries, T.ms, id)
  if Q.delivered_more then return end
  mark(T, 'T' .. Q.number, T.ms + DELIVERIES_KEPT_MS)
  Q.delivered_more = true
end

-- Adds a delivery that is pending, or only recorded.
local function add_delivery(T, Q, id, kind, endpoint, state)
  local rule = rule_of(T, Q)
  local own_sequence = 0
  rule.sequence, rule.counted = rule.sequence + 1, true
  if kind == TO_RULE and state == PENDING then
    own_sequence = rule.own_sequence + 1
    rule.own_sequence = own_sequence
  end
  local group = create_delivery(T, Q, id, kind, endpoint, state, rule.sequence, own_sequence)
  add_to(T, Q.deliveries, rule.sequence, id)
  if state == PENDING then
    count_open(Q, 1)
    add_to(T, kind == TO_RULE and Q.outbox or T.p .. 'outbox:' .. group, T.ms, id)
    make_due(T, group, T.ms)
  else
    retire_delivery(T, Q, id)
  end
end

-- The callback of an ended job, if it has one: to its own URL, or by the queue's rule; suppressed while that is off.
local function add_callback(T, Q, id, flags, run)
  if has(flags, FLAG_NO_CALLBACK) then return end
  if has(flags, FLAG_OWN_URL) then
    return add_delivery(T, Q, delivery_id(id, run), TO_OWN, endpoint_of(read_job(T, id)), PENDING)
  end
  local rule = rule_of(T, Q)
  if rule.url == '' then return end
  if rule.events ~= 0 and floor(rule.events / 2) % 2 == 0 then return end
  add_delivery(T, Q, delivery_id(id, run), TO_RULE, 0, rule.on and PENDING or SUPPRESSED)
end

local function count_ended(Q, state, by) Q[state], Q.changed = Q[state] + by, true end

-- A job's last state is written; retention takes it later.
local function note_end(T, Q, id, state, flags, run, progress)
  Q[state], Q.ended_more, Q.changed = Q[state] + 1, Q.ended_more + 1, true
  if run == 0 then T.first_end = T.first_end or pack(ENDED, 0, T.ms) end -- the same for most
  write(T, 'RPUSH', Q.ended, id .. (run == 0 and T.first_end or pack(ENDED, run, T.ms)))
  if has(flags, FLAG_EXPIRES) then remove_from(T, T.timers, '.E' .. id) end
  log_change(T, Q, id, state, progress)
end

-- A job that calls nobody has reached its last state.
local function retire_job(T, Q, id, J)
  save(T, Q, id, J)
  note_end(T, Q, id, J.st, J.fl, J.run, J.progress)
end

-- Ends a job that has left its line, if it was in one.
local function end_job(T, Q, id, J, state, code, message, result)
  if J.st == RUNNING then end_lease(T, Q, id) end
  J.st, J.stop, J.lease, J.code, J.message, J.result = state, T.ms, 0, code, message, result or ''
  if state == SUCCESS then J.progress = 100 end
  retire_job(T, Q, id, J)
  add_callback(T, Q, id, J.fl, J.run)
end

-- Puts a running job whose attempt failed back, or fails it for good. `after` nil means the queue's backoff; false: never again.
local function end_attempt(T, Q, id, J, code, message, result, after)
  local limit = limits_of(read_job(T, id))
  if limit == 0 then limit = Q.max_attempts end
  if after == false or J.at >= limit then
    end_job(T, Q, id, J, FAILED, code, message, result)
    return FAILED
  end
  after = after or min(Q.max_backoff, Q.min_backoff * 2 ^ min(40, J.at - 1))
  end_lease(T, Q, id)
  J.progress, J.message, J.last = 0, message, J.token
  requeue(T, Q, id, J, T.ms + after)
  log_change(T, Q, id, SUBMITTED, 0)
  return SUBMITTED
end

-- Whether the body of the job's latest callback has yet to be rendered from its record.
local function awaits_rendering(T, id, J)
  if has(J.fl, FLAG_NO_CALLBACK) then return false end
  local name = delivery_id(id, J.run)
  local D = delivery(T, name)
  return D ~= nil and (D.s == PENDING or D.s == SENDING) and (D.tk == 0 or not is_rendered(T, name))
end
