-- What every function shares: the calling convention, keys, records, and the unit of work.
--
-- Calling convention. FCALL <name><SUFFIX> 1 {pNN} <n> <n arguments> [<n> <n arguments>]...
-- One FCALL carries any number of calls of the same function (the store merges them); the reply has one element a call:
-- {0, results...} or {code, reason, limit, current}. The codes are those of enum store_code in redis/store.h.
-- Functions are atomic but not rolled back: each call validates first; writes collect in the unit of work and are made
-- at the end, a constant number of commands however many jobs there are.
--
-- Keys, each after the partition's tag {pNN}:
--   b:BUCKET      hash    queue name -> number; '#F' -> name of feature F's default queue; '#w' -> somebody watches
--   n:BUCKET      zset    queue names, all scores 0, for listing
--   seq           string  the last queue number
--   q:Q           hash    a queue: c settings (SETTINGS; gone when it is deleted), x its numbers that change (NUMBERS), b bucket, n name,
--                         id, ct/ut times, e etag
--   ready:Q       zset    waiting jobs by score
--   delayed:Q     zset    jobs that become leasable later, by due time
--   state:Q       hash    job -> its state (STATE), from its first lease or its end on
--   ended:Q       list    jobs in the order of their ends, with run and time (ENDED): what retention takes next. A job that was put
--                         back since is in another run: such entries are passed over
--   list:Q        stream  an entry for jobs that were submitted together: its id the first one's ms-seq, its value their number
--   gone:Q        hash    entry of list:Q -> how many of its jobs are gone, while others are there
--   j:ID          string  a job's record
--   req:Q:0/1     hash    request_id -> digest, first id, count; the older one is dropped at each rotation
--   timers        zset    by time: a running job's id for its lease; or a point, type byte and subject: E expire_time (jobs); D delayed,
--                         R retention, T deliveries' retention (queues); C claims (outbox groups)
--   log:BUCKET    stream  what changed, one entry a function call
--   rule:Q        hash    callback rule
--   trust:Q       hash    its certificates and key in PEM: ca, crt, key; there while the rule's ti, their digest, is not ''
--   outbox:G      zset    an outbox group's deliveries by next attempt; G is Q, Q:t (tests) or Q:HASH (a job's own endpoint)
--   claims:G      zset    the group's claimed deliveries by claim expiry
--   breaker:G     string  the group's circuit breaker, packed (25_breaker.lua); expires
--   due           zset    groups by when they have something due, or were last served
--   d:DELIVERY    string  a delivery (15_deliveries.lua)
--   body:DELIVERY string  its body with content type, traceparent and URL, from the first attempt on
--   dl:Q          zset    a queue's deliveries by sequence
--   dended:Q      zset    ended deliveries by end time
--   hungry        string  a dispatcher found too little and wants to be told
--   trash         list    what a purge or a deletion left, taken in slices

-- Nothing but redis.register_function is there yet while the library loads: begin() sets these.
local call, pack, unpack_struct, floor, format, char, byte, sub

local function min(a, b) return a < b and a or b end
local function max(a, b) return a > b and a or b end

-- Codes of enum store_code.
local NOT_FOUND, ALREADY_EXISTS, FULL, TOO_MANY, CONFLICT, PRECONDITION, OUT_OF_RANGE, INVALID, INTERNAL = 1, 2, 3, 4, 5, 6, 7, 8, 11

-- States of ringback.v1.JobState. PAUSE is never stored.
local SUBMITTED, RUNNING, SUCCESS, FAILED, PAUSE, CANCEL = 1, 2, 3, 4, 5, 6

-- States of ringback.v1.DeliveryState.
local PENDING, SENDING, DELIVERED, DEAD, SUPPRESSED = 1, 2, 3, 4, 5

-- A level of priority in a queue of strict priority: 255 * 2^44 < 2^52 is exact in a double, and 2^44 ms are 557 years.
local STRICT = 2 ^ 44

local QUEUES_MAX = 10000        -- a bucket
local ANSWER_BYTES_MAX = 3 * 1024 * 1024
local EXAMINED_MAX = 1000       -- jobs that one list call looks at
local CHANGED_MAX = 250         -- jobs that one cancel or retry call changes
local REDELIVER_EXAMINED_MAX = 500 -- deliveries that one redeliver_dead looks at
local REDELIVERED_MAX = 100     -- and puts back
local SLICE = 100               -- items of one kind that one sweep takes
local TRASH_SLICE = 40          -- and of trash: each is a record that is written
local LOG_CHANGES = 100000      -- changes that a bucket's log keeps, in at least LOG_ENTRIES entries and at most ten times as many
local LOG_ENTRIES = 1000
local LOG_KEPT_S = 86400        -- of a bucket without queues
local VALUES_MAX = 2000         -- values of one command, even: Lua's unpack fails beyond about 4,000
local DELIVERIES_KEPT = 10000   -- ended deliveries of a queue
local DELIVERIES_KEPT_MS = 3 * 86400 * 1000
local GROUP_CONCURRENCY = 32    -- attempts under way at one endpoint, unless its rule says otherwise
local ABANDONED_MAX = 5         -- claims in a row that ran out under one delivery
local FAILING_MS = 120 * 3600 * 1000 -- a rule without a success for so long, and
local FAILURES_MIN = 20         -- with so many failures since, is switched off
local ATTEMPTS_KEPT = 20        -- in a delivery's log
local SECRETS_MAX = 5           -- of a rule
local BREAKER_KEPT_MS = 30 * 60 * 1000 -- after its last change
local GROUPS_MAX = 64           -- outbox groups that one claim looks at
local TURN_MAX = 8              -- deliveries that a group gets in its turn while others wait for theirs
local CLAIM_BYTES_MAX = 1024 * 1024 -- of records and bodies that one claim answers with

-- A job's record never changes, but for its priority: version (2), flags, priority, length of the tag; what its flags say it has: limits
-- (max_attempts, expire_time, lease, run_timeout), not_before, the hash of its own endpoint; tag; packed JobSpec.
local HEAD_SIZE = 4
local LIMITS, LIMITS_SIZE = '>HI6I4I4', 16
local FLAG_NO_CALLBACK, FLAG_OWN_URL, FLAG_LIMITS, FLAG_NOT_BEFORE, FLAG_EXPIRES = 1, 2, 4, 8, 16

-- A job's state, from its first lease or its end on: state, the record's flags, run, attempts, progress, last fencing token, the token whose
-- failure or release put it back (0: none), start of the last attempt, stop (running: when run_timeout ends it, 0 never; ended: its end),
-- due (0: as it was submitted), mark (waiting: when it was put back in line; running: when its progress was last logged), lease in ms,
-- and the lengths of worker, code and message, which follow; the rest is the result.
local STATE = '>BBHHBI7I7I6I6I6I6I4BBH'

local TOKEN, TOKEN_AT, TOKEN_SIZE = '>I7', 8, 7 -- in it

local ENDED = '>HI6' -- of an entry of ended:Q behind the id: run, time

local SETTINGS = '>dddddddddd'
-- A queue's numbers that change: paused, wanted, which of req:Q is filled, last id's ms and sequence, last fencing token, purge boundary,
-- time of the last purge, open deliveries, how many more jobs there is room for without counting, running, ended as Success, Failed
-- and Cancel, when req:Q is rotated.
local NUMBERS = '>BBBI6I4I7I6I6I6dI6I6I6I6I6'

local function id_of(Q, ms, seq)
  return pack('>BI5I6I4', Q.feature * 64 + Q.partition, Q.number, ms, seq)
end

-- The queue number, ms and sequence of an id.
local function id_parts(id)
  local _, number, ms, seq = unpack_struct('>BI5I6I4', id)
  return number, ms, seq
end

local function stream_id(id)
  local _, ms, seq = id_parts(id)
  return format('%d-%d', ms, seq)
end

local function created_ms(id) return (unpack_struct('>I6', id, 7)) end

-- Whole numbers as Redis takes them: no exponent, no loss. Jobs of one call mostly have the same times and scores, so the last is kept.
local last_number, last_text
local function num(n)
  if n ~= last_number then last_number, last_text = n, format('%d', n) end
  return last_text
end

-- Whether flags have this one.
local function has(flags, flag) return flags % (2 * flag) >= flag end

-- A command with n values, in parts.
local function call_many(command, key, values, n)
  for i = 1, n, VALUES_MAX do
    if key then call(command, key, unpack(values, i, min(n, i + VALUES_MAX - 1)))
    else call(command, unpack(values, i, min(n, i + VALUES_MAX - 1))) end
  end
end

-- --- records -------------------------------------------------------------------------------------

-- A job as a table: rec its record (nil: not read), raw its state as it is stored (nil: none), and the fields of STATE: st fl run at
-- progress token last start stop due mark lease worker code message result.
local function new_job(rec)
  return {rec = rec, st = SUBMITTED, fl = byte(rec, 2), run = 0, at = 0, progress = 0, token = 0, last = 0, start = 0, stop = 0, due = 0, mark = 0,
    lease = 0, worker = '', code = '', message = '', result = ''}
end

local function decode_state(rec, raw)
  local st, fl, run, at, progress, token, last, start, stop, due, mark, lease, worker_size, code_size, message_size, from = unpack_struct(STATE, raw)
  local code_at = from + worker_size
  local message_at = code_at + code_size
  local result_at = message_at + message_size
  return {rec = rec, raw = raw, st = st, fl = fl, run = run, at = at, progress = progress, token = token, last = last, start = start, stop = stop,
    due = due, mark = mark, lease = lease, worker = worker_size > 0 and sub(raw, from, code_at - 1) or '',
    code = code_size > 0 and sub(raw, code_at, message_at - 1) or '', message = message_size > 0 and sub(raw, message_at, result_at - 1) or '',
    result = result_at <= #raw and sub(raw, result_at) or ''}
end

local function encode_state(J)
  return pack(STATE, J.st, J.fl, J.run, J.at, J.progress, J.token, J.last, J.start, J.stop, J.due, J.mark, J.lease, #J.worker, #J.code, #J.message) ..
    J.worker .. J.code .. J.message .. J.result
end

-- max_attempts, expire_time, lease and run_timeout of a job whose record has been read; 0: as its queue says, or none.
local function limits_of(J)
  if not has(J.fl, FLAG_LIMITS) then return 0, 0, 0, 0 end
  return unpack_struct(LIMITS, J.rec, HEAD_SIZE + 1)
end

local function after_limits(J) return HEAD_SIZE + 1 + (has(J.fl, FLAG_LIMITS) and LIMITS_SIZE or 0) end

local function priority_of(J) return byte(J.rec, 3) end

-- When a waiting job is or becomes leasable.
local function due_of(id, J)
  if J.due > 0 then return J.due end
  return has(J.fl, FLAG_NOT_BEFORE) and max(unpack_struct('>I6', J.rec, after_limits(J)), created_ms(id)) or created_ms(id)
end

-- The hash of a job's own endpoint.
local function endpoint_of(J)
  return (unpack_struct('>I4', J.rec, after_limits(J) + (has(J.fl, FLAG_NOT_BEFORE) and 6 or 0)))
end

local function tag_of(J)
  local from = after_limits(J) + (has(J.fl, FLAG_NOT_BEFORE) and 6 or 0) + (has(J.fl, FLAG_OWN_URL) and 4 or 0)
  return sub(J.rec, from, from + byte(J.rec, 4) - 1)
end

-- --- the unit of work ----------------------------------------------------------------------------

local function begin(prefix)
  call, pack, unpack_struct, floor, format = redis.call, struct.pack, struct.unpack, math.floor, string.format
  char, byte, sub = string.char, string.byte, string.sub
  local t = call('TIME')
  local us = t[1] * 1000000 + t[2]
  return {p = prefix, us = us, ms = floor(us / 1000), partition = tonumber(prefix:sub(3, 4)), timers = prefix .. 'timers',
    job_key = prefix .. 'j:', delivery_key = prefix .. 'd:', queues = {}, names = {}, jobs = {}, writes = {}, current = {}, deliveries = {},
    unreadable = {}, groups = {}, dues = {}, refreshed = {}, marks = {}, logs = {}, rules = {}, drains = {}, breakers = {},
    changed_breakers = {}, messages = {}, watched = {}}
end

-- A command that is made when the unit is done: its key (none for MSET) and its values so far. Commands are made in the order of their
-- first values; another kind of command for the same key starts anew, so the last word counts.
local function write_of(T, command, key)
  local slot = key or command
  local W = T.current[slot]
  if not W or W.command ~= command then
    W = {command = command, key = key, n = 0}
    T.writes[#T.writes + 1] = W
    T.current[slot] = W
  end
  return W
end

local function write(T, command, key, value)
  local W = write_of(T, command, key)
  local n = W.n + 1
  W[n], W.n = value, n
end

local function write_pair(T, command, key, first, second)
  local W = write_of(T, command, key)
  local n = W.n
  W[n + 1], W[n + 2], W.n = first, second, n + 2
end

-- Records and states of jobs of one queue, as they are stored; false where there is none.
local function read(T, number, ids)
  local keys = {}
  for k = 1, #ids do keys[k] = T.job_key .. ids[k] end
  return call('MGET', unpack(keys)), call('HMGET', T.p .. 'state:' .. number, unpack(ids))
end

-- Reads jobs of one queue into the unit: T.jobs[id] is the job, or false where there is none.
local function fetch(T, number, ids)
  local wanted, n = {}, 0
  for k = 1, #ids do
    local J = T.jobs[ids[k]]
    if J == nil or J and not J.rec then
      n = n + 1
      wanted[n] = ids[k]
    end
  end
  if n == 0 then return end
  local records, states = read(T, number, wanted)
  for k = 1, n do
    local rec, J = records[k], T.jobs[wanted[k]]
    if not rec then T.jobs[wanted[k]] = false
    elseif J then J.rec = rec
    elseif states[k] then T.jobs[wanted[k]] = decode_state(rec, states[k])
    else T.jobs[wanted[k]] = new_job(rec) end
  end
end

-- Reads only the states of jobs: what their workers' calls need of most. Those without one are left to read_job().
local function fetch_states(T, number, ids)
  local states = call('HMGET', T.p .. 'state:' .. number, unpack(ids))
  for k = 1, #ids do
    if states[k] and T.jobs[ids[k]] == nil then T.jobs[ids[k]] = decode_state(nil, states[k]) end
  end
end

-- A job with its record; nil where there is none.
local function read_job(T, id)
  local J = T.jobs[id]
  if J == nil or J and not J.rec then
    fetch(T, (id_parts(id)), {id})
    J = T.jobs[id]
  end
  return J or nil
end

-- A job's state has changed.
local function save(T, Q, id, J)
  J.raw = encode_state(J)
  T.jobs[id] = J
  write_pair(T, 'HSET', Q.states, id, J.raw)
end

local function add_to(T, key, score, member) write_pair(T, 'ZADD', key, num(score), member) end

local function remove_from(T, key, member) write(T, 'ZREM', key, member) end

-- A timer that fires no later than `at`.
local function mark(T, member, at)
  local known = T.marks[member]
  if not known or at < known then T.marks[member] = at end
end

-- A running job runs no more.
local function end_lease(T, Q, id)
  Q.running, Q.changed = Q.running - 1, true
  remove_from(T, T.timers, id)
end

local CHANGES = {} -- state and progress as the log has them

local function log_change(T, Q, id, state, progress)
  local list = T.logs[Q.bucket]
  if not list then list = {} T.logs[Q.bucket] = list end
  local n = #list
  local what = CHANGES[state * 128 + progress]
  if not what then
    what = char(state, progress)
    CHANGES[state * 128 + progress] = what
  end
  list[n + 1], list[n + 2] = id, what
end

local function publish(T, message) T.messages[message] = true end

-- The queue by number; nil when it is deleted. `changed`: its numbers have; `fields` collects other fields to write.
local function queue(T, number)
  local Q = T.queues[number]
  if Q == nil then
    local text = num(number) -- each joining with a number would make it text anew
    local key = T.p .. 'q:' .. text
    local h = call('HMGET', key, 'c', 'x', 'b', 'n', 'id')
    if not h[1] then
      Q = false
    else
      local head_start, max_size, max_concurrent, lease, max_attempts, min_backoff, max_backoff, keep_ms, keep_count, idempotency =
        unpack_struct(SETTINGS, h[1])
      local paused, wanted, slot, last_ms, last_seq, token, boundary, purge_ms, open, room, running, success, failed, cancelled, rotate_at =
        unpack_struct(NUMBERS, h[2])
      Q = {number = number, partition = T.partition, key = key, settings = h[1], bucket = h[3], name = h[4], id = h[5],
        feature = floor(byte(h[5]) / 64), paused = paused == 1, wanted = wanted == 1, request_slot = slot, last_ms = last_ms, last_seq = last_seq, token = token,
        boundary = boundary, purge_ms = purge_ms, open = open, room = room, running = running, [SUCCESS] = success, [FAILED] = failed,
        [CANCEL] = cancelled, rotate_at = rotate_at, head_start = head_start, max_size = max_size, max_concurrent = max_concurrent,
        lease = lease, max_attempts = max_attempts, min_backoff = min_backoff, max_backoff = max_backoff, keep_ms = keep_ms,
        keep_count = keep_count, idempotency = idempotency, boost = head_start > 0 and head_start or STRICT, ready = T.p .. 'ready:' .. text,
        delayed = T.p .. 'delayed:' .. text, states = T.p .. 'state:' .. text, ended = T.p .. 'ended:' .. text, deliveries = T.p .. 'dl:' .. text,
        outbox = T.p .. 'outbox:' .. text, claims = T.p .. 'claims:' .. text, ended_deliveries = T.p .. 'dended:' .. text, new = 0,
        added = 0, ended_more = 0, fields = {}, changed = false, offered = false}
    end
    T.queues[number] = Q
  end
  return Q or nil
end

local function pack_numbers(Q)
  return pack(NUMBERS, Q.paused and 1 or 0, Q.wanted and 1 or 0, Q.request_slot, Q.last_ms, Q.last_seq, Q.token, Q.boundary, Q.purge_ms, Q.open, Q.room, Q.running,
    Q[SUCCESS], Q[FAILED], Q[CANCEL], Q.rotate_at)
end

local function queue_named(T, bucket, name)
  local key = bucket .. '/' .. name
  local number = T.names[key]
  if number == nil then
    local h = call('HMGET', T.p .. 'b:' .. bucket, name, '#w')
    number = tonumber(h[1] or nil) or false
    T.names[key] = number
    T.watched[bucket] = h[2] or ''
  end
  return number and queue(T, number) or nil
end

-- A job of this bucket and its queue.
local function job_of(T, bucket, id)
  local Q = queue(T, (id_parts(id)))
  if not Q or Q.bucket ~= bucket then return nil end
  local J = read_job(T, id)
  if not J then return nil end
  return J, Q
end

local function score(Q, due, priority) return due - priority * Q.boost end

-- Something may be leasable now: whoever waits for this queue is told when the unit is done.
local function offer(Q) Q.offered = true end

-- Puts a job in line: now, or when it is due.
local function enqueue(T, Q, id, due, priority)
  if due > T.ms then
    add_to(T, Q.delayed, due, id)
    mark(T, 'D' .. Q.number, due)
  else
    add_to(T, Q.ready, score(Q, due, priority), id)
    offer(Q)
  end
  Q.room, Q.added, Q.changed = Q.room - 1, Q.added + 1, true
end

-- Puts a job back in line.
local function requeue(T, Q, id, J, due)
  J.st, J.stop, J.lease, J.mark = SUBMITTED, 0, 0, max(T.ms, Q.last_ms)
  J.due = due
  save(T, Q, id, J)
  enqueue(T, Q, id, due, priority_of(J))
end

local function waiting_count(Q) return call('ZCARD', Q.ready) + call('ZCARD', Q.delayed) end

-- Whether `count` more jobs fit. Q.room are certain to; only when that is used up are those waiting counted again.
local function has_room(Q, count)
  if Q.room < count then Q.room, Q.changed = Q.max_size - waiting_count(Q) - Q.added, true end
  return Q.room >= count
end

-- The state that a reader sees. A purge ends what was in line by its boundary.
local function view(Q, id, J)
  if J.st ~= SUBMITTED then return J.st end
  if Q.boundary > 0 and (J.mark > 0 and J.mark or created_ms(id)) <= Q.boundary then return CANCEL end
  return Q.paused and PAUSE or SUBMITTED
end

local function has_ended(J) return J.st ~= SUBMITTED and J.st ~= RUNNING end

local function commit_queue(T, Q)
  if Q.offered and Q.wanted and not Q.paused and Q.running < Q.max_concurrent and call('ZCARD', Q.ready) > 0 then
    Q.wanted, Q.changed = false, true
    publish(T, 'q ' .. T.partition .. ' ' .. Q.number)
  end
  if Q.new > 0 then call('XADD', T.p .. 'list:' .. Q.number, format('%d-%d', Q.last_ms, Q.last_seq - Q.new + 1), '', num(Q.new)) end
  if next(Q.fields) then
    for field, value in pairs(Q.fields) do call('HSET', Q.key, field, value) end
  end
  if Q.changed then call('HSET', Q.key, 'x', pack_numbers(Q)) end
  if Q.ended_more > 0 then
    -- Retention has its timer while anything has ended: only the first sets it.
    local count = Q[SUCCESS] + Q[FAILED] + Q[CANCEL]
    if count > Q.keep_count then mark(T, 'R' .. Q.number, T.ms)
    elseif count <= Q.ended_more then mark(T, 'R' .. Q.number, T.ms + Q.keep_ms) end
  end
  if Q.delivered_more and call('ZCARD', T.p .. 'dended:' .. Q.number) > DELIVERIES_KEPT then mark(T, 'T' .. Q.number, T.ms) end
end

local function write_breaker(T, group)
  local B, key = T.breakers[group], T.p .. 'breaker:' .. group
  if B then call('SET', key, cmsgpack.pack({B.f, B.n, B.u, B.p, B.t, B.w}), 'PX', num(BREAKER_KEPT_MS))
  else call('DEL', key) end
end

-- Makes the writes of the unit.
local function commit(T)
  for k = 1, #T.writes do
    local W = T.writes[k]
    call_many(W.command, W.key, W, W.n)
  end
  for _, Q in pairs(T.queues) do
    if Q then commit_queue(T, Q) end
  end
  for member, at in pairs(T.marks) do call('ZADD', T.timers, 'LT', num(at), '.' .. member) end
  for number, rule in pairs(T.rules) do
    if rule.counted then call('HSET', T.p .. 'rule:' .. number, 'sq', num(rule.sequence), 'rq', num(rule.own_sequence)) end
    if rule.judged then
      call('HSET', T.p .. 'rule:' .. number, 'fc', num(rule.failures), 'fs', num(rule.failing_since))
    end
  end
  for group, at in pairs(T.dues) do call('ZADD', T.p .. 'due', 'LT', num(at), group) end
  for bucket, list in pairs(T.logs) do
    call('XADD', T.p .. 'log:' .. bucket, 'MAXLEN', '~', num(min(10 * LOG_ENTRIES, max(LOG_ENTRIES, 2 * LOG_CHANGES / #list))), '*', 'e',
      table.concat(list))
    if (T.watched[bucket] or call('HGET', T.p .. 'b:' .. bucket, '#w')) == '1' then
      call('HSET', T.p .. 'b:' .. bucket, '#w', '0')
      publish(T, 'w ' .. bucket)
    end
  end
  for group in pairs(T.changed_breakers) do write_breaker(T, group) end
  for number in pairs(T.drains) do
    if call('ZCARD', T.p .. 'claims:' .. number) == 0 then publish(T, 'r ' .. T.partition .. ' ' .. number) end
  end
  if next(T.dues) and call('DEL', T.p .. 'hungry') == 1 then publish(T, 'd ' .. T.partition) end
  for message in pairs(T.messages) do call('PUBLISH', 'ringback:wake', message) end
end

-- Reads the jobs that the calls name, of each queue together (states only if that is all they need). An argument begins with a job's id.
local function prefetch(T, A, first, stride, states_only)
  local by_queue, i = {}, 1
  while i <= #A do
    local n = tonumber(A[i])
    for k = first, n, stride do
      local id = A[i + k]
      if #id >= 16 then
        id = id:sub(1, 16)
        local number = id_parts(id)
        local list = by_queue[number]
        if not list then list = {} by_queue[number] = list end
        list[#list + 1] = id
      end
    end
    i = i + n + 1
  end
  for number, list in pairs(by_queue) do
    if states_only then fetch_states(T, number, list) else fetch(T, number, list) end
  end
end

-- Registers a function whose calls are answered by `one(T, A, i, n)`: arguments A[i + 1] to A[i + n]. Where the calls name jobs,
-- `first` and `stride` say which arguments do; `states_only`: most of them need no job's record.
local function register(name, flags, one, first, stride, states_only)
  redis.register_function{function_name = name .. SUFFIX, flags = flags, callback = function(keys, A)
    local T = begin(keys[1])
    local replies, i = {}, 1
    if first then prefetch(T, A, first, stride, states_only) end
    while i <= #A do
      local n = tonumber(A[i])
      replies[#replies + 1] = one(T, A, i, n)
      i = i + n + 1
    end
    commit(T)
    return replies
  end}
end
