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
--   q:Q           hash    a queue: c settings, p paused, lm/ls last id's ms and sequence, tk last fencing token, ep purge epoch,
--                         pt purge time, w wanted, b bucket, n name, f feature, id, x deleted, ct/ut times, e etag,
--                         c3/c4/c6 ended jobs by state, od open deliveries, rr/rc idempotency rotation, rm how many more
--                         jobs there is room for without counting
--   ready:Q       zset    waiting jobs by score
--   delayed:Q     zset    jobs that become leasable later, by due time
--   running:Q     hash    job -> lease (RUN)
--   ended:Q       zset    ended jobs by end time: what retention takes next
--   list:Q        stream  one empty entry a job, its id the job's ms-seq: listing in creation order
--   j:ID          string  a job's record (HEAD, tag, group, spec, TAIL)
--   req:Q:0/1     hash    request_id -> digest, first id, count; the older one is dropped at each rotation
--   timers        zset    type byte + subject, by time: L lease, E expire_time (jobs); D delayed, R retention, T deliveries' retention
--                         (queues); C claims (outbox groups)
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
local call, pack, unpack_struct, floor, format, char

local function min(a, b) return a < b and a or b end
local function max(a, b) return a > b and a or b end

-- Codes of enum store_code.
local NOT_FOUND, ALREADY_EXISTS, FULL, TOO_MANY, CONFLICT, PRECONDITION, OUT_OF_RANGE, INVALID, INTERNAL = 1, 2, 3, 4, 5, 6, 7, 8, 11

-- States of ringback.v1.JobState. RUNNING and PAUSE are never stored: a job runs while running:Q has it.
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

local HEAD = '>BBBBHHI4I6I6I4I4BI4'
local HEAD_SIZE = 37
local TAIL = '>HBI6I6dBBHI4'
local TAIL_SIZE = 31
local RUN = '>dI6I6I4BI6B'
local RUN_SIZE = 32
local FLAG_NO_CALLBACK, FLAG_OWN_URL = 1, 2
local SETTINGS = '>dddddddddd'

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

-- Whole numbers as Redis takes them: no exponent, no loss. (Half of what '%.0f' costs.)
local function num(n) return format('%d', n) end

-- A command with n values, in parts.
local function call_many(command, key, values, n)
  for i = 1, n, VALUES_MAX do
    if key then call(command, key, unpack(values, i, min(n, i + VALUES_MAX - 1)))
    else call(command, unpack(values, i, min(n, i + VALUES_MAX - 1))) end
  end
end

-- --- records -------------------------------------------------------------------------------------

-- A record as a table: st fl pr at mx ep due exp lease rt (HEAD), group (own endpoint), run progress start finish token worker code
-- message result (TAIL, defaults where there is none). raw is the record as it was read, of which the part between HEAD and TAIL never
-- changes; `clean` as long as nothing else has.
local function record_decode(bytes)
  local _, st, fl, pr, at, mx, ep, due, exp, lease, rt, tag_size, spec_size = unpack_struct(HEAD, bytes)
  local fixed_end = HEAD_SIZE + tag_size + spec_size
  local group, run, progress, start, finish, token = nil, 0, 0, 0, 0, 0
  local worker, code, message, result = '', '', '', ''
  if fl >= FLAG_OWN_URL then
    group = format('%08x', unpack_struct('>I4', bytes, HEAD_SIZE + tag_size + 1))
    fixed_end = fixed_end + 4
  end
  local tail = #bytes > fixed_end
  if tail then
    local worker_size, code_size, message_size, result_size, from
    run, progress, start, finish, token, worker_size, code_size, message_size, result_size, from = unpack_struct(TAIL, bytes, fixed_end + 1)
    local to = from + worker_size
    worker = bytes:sub(from, to - 1)
    from, to = to, to + code_size
    code = bytes:sub(from, to - 1)
    from, to = to, to + message_size
    message = bytes:sub(from, to - 1)
    result = bytes:sub(to, to + result_size - 1)
  end
  return {raw = bytes, clean = true, saved = false, st = st, fl = fl, pr = pr, at = at, mx = mx, ep = ep, due = due, exp = exp, lease = lease,
    rt = rt, tag_size = tag_size, spec_size = spec_size, group = group, fixed_end = fixed_end, tail = tail, run = run, progress = progress,
    start = start, finish = finish, token = token, worker = worker, code = code, message = message, result = result}
end

local function record_tag(R) return R.raw:sub(HEAD_SIZE + 1, HEAD_SIZE + R.tag_size) end

local function record_encode(R)
  if R.clean then return R.raw end
  local head = pack(HEAD, 1, R.st, R.fl, R.pr, R.at, R.mx, R.ep, R.due, R.exp, R.lease, R.rt, R.tag_size, R.spec_size)
  local fixed = R.raw:sub(HEAD_SIZE + 1, R.fixed_end)
  if not R.tail then return head .. fixed end
  return head .. fixed .. pack(TAIL, R.run, R.progress, R.start, R.finish, R.token, #R.worker, #R.code, #R.message, #R.result) ..
    R.worker .. R.code .. R.message .. R.result
end

-- A lease as a table; raw is what running:Q has of it.
local function run_decode(bytes)
  local token, start, hard, lease, progress, logged, at = unpack_struct(RUN, bytes)
  return {raw = bytes, token = token, start = start, hard = hard, lease = lease, progress = progress, logged = logged, at = at,
    worker = bytes:sub(RUN_SIZE + 1)}
end

local function run_encode(L)
  return pack(RUN, L.token, L.start, L.hard, L.lease, L.progress, L.logged, L.at) .. L.worker
end

-- --- the unit of work ----------------------------------------------------------------------------

local function begin(prefix)
  call, pack, unpack_struct, floor, format, char = redis.call, struct.pack, struct.unpack, math.floor, string.format, string.char
  local t = call('TIME')
  local us = t[1] * 1000000 + t[2]
  return {p = prefix, delivery_key = prefix .. 'd:', us = us, ms = floor(us / 1000), partition = tonumber(prefix:sub(3, 4)), queues = {}, names = {}, records = {},
    saved = {}, writes = {}, current = {}, deliveries = {}, unreadable = {}, groups = {}, dues = {}, refreshed = {}, runs = {}, marks = {},
    logs = {}, rules = {}, drains = {}, breakers = {}, changed_breakers = {}, messages = {}, watched = {}}
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

-- Reads jobs' records into the unit; nil where there is none.
local function fetch(T, ids)
  local keys, wanted = {}, {}
  for i = 1, #ids do
    if T.records[ids[i]] == nil then
      keys[#keys + 1] = T.p .. 'j:' .. ids[i]
      wanted[#wanted + 1] = ids[i]
    end
  end
  if #keys == 0 then return end
  local got = call('MGET', unpack(keys))
  for i = 1, #wanted do T.records[wanted[i]] = got[i] and record_decode(got[i]) or false end
end

local function record(T, id)
  local R = T.records[id]
  if R == nil then
    local bytes = call('GET', T.p .. 'j:' .. id)
    R = bytes and record_decode(bytes) or false
    T.records[id] = R
  end
  return R or nil
end

local function save(T, id, R)
  R.clean = false
  if R.saved then return end
  R.saved = true
  T.records[id] = R
  T.saved[#T.saved + 1] = id
end

local function add_to(T, key, score, member) write_pair(T, 'ZADD', key, num(score), member) end

local function remove_from(T, key, member) write(T, 'ZREM', key, member) end

-- A timer that fires no later than `at`.
local function mark(T, member, at)
  local known = T.marks[member]
  if not known or at < known then T.marks[member] = at end
end

-- Leases of a queue as the unit sees them: `seen` those that were looked at, `more` by how much the unit changes their number.
local function runs_of(T, Q)
  local U = T.runs[Q.number]
  if not U then
    U = {key = T.p .. 'running:' .. Q.number, seen = {}, more = 0, count = nil}
    T.runs[Q.number] = U
  end
  return U
end

local function lease_of(T, Q, id)
  local U = runs_of(T, Q)
  local L = U.seen[id]
  if L == nil then
    local bytes = call('HGET', U.key, id)
    L = bytes and run_decode(bytes) or false
    U.seen[id] = L
  end
  return L or nil
end

local function fetch_leases(T, Q, ids)
  local U = runs_of(T, Q)
  if #ids == 0 then return end
  local got = call('HMGET', U.key, unpack(ids))
  for i = 1, #ids do
    if U.seen[ids[i]] == nil then U.seen[ids[i]] = got[i] and run_decode(got[i]) or false end
  end
end

local function running_count(T, Q)
  local U = runs_of(T, Q)
  if not U.count then U.count = call('HLEN', U.key) end
  return U.count + U.more
end

-- A lease that has changed, or is new: then nobody asks for it again in this unit.
local function set_lease(T, Q, id, L)
  local U = runs_of(T, Q)
  if not L.raw then U.more = U.more + 1 end
  L.raw = run_encode(L)
  write_pair(T, 'HSET', U.key, id, L.raw)
end

local function drop_lease(T, Q, id)
  local U = runs_of(T, Q)
  U.more = U.more - 1
  U.seen[id] = false
  write(T, 'HDEL', U.key, id)
  remove_from(T, T.p .. 'timers', 'L' .. id)
end

local function log_change(T, Q, id, state, progress)
  local list = T.logs[Q.bucket]
  if not list then list = {} T.logs[Q.bucket] = list end
  local n = #list
  list[n + 1], list[n + 2] = id, char(state, progress)
end

local function publish(T, message) T.messages[message] = true end

-- The queue by number, with settings and hot fields; nil when it is deleted. `changed` collects fields to write.
local function queue(T, number)
  local Q = T.queues[number]
  if Q == nil then
    local key = T.p .. 'q:' .. number
    local h = call('HMGET', key, 'c', 'p', 'lm', 'ls', 'tk', 'ep', 'pt', 'w', 'b', 'n', 'f', 'id', 'x', 'od', 'rm')
    if not h[1] or h[13] then
      Q = false
    else
      local head_start, max_size, max_concurrent, lease, max_attempts, min_backoff, max_backoff, keep_ms, keep_count, idempotency =
        unpack_struct(SETTINGS, h[1])
      Q = {number = number, partition = T.partition, key = key, paused = h[2] == '1', last_ms = tonumber(h[3]),
        last_seq = tonumber(h[4]), token = tonumber(h[5]), epoch = tonumber(h[6]), purge_ms = tonumber(h[7]), wanted = h[8] == '1',
        bucket = h[9], name = h[10], feature = tonumber(h[11]), id = h[12], open = tonumber(h[14]), room = tonumber(h[15] or 0),
        head_start = head_start, max_size = max_size, max_concurrent = max_concurrent, lease = lease, max_attempts = max_attempts,
        min_backoff = min_backoff, max_backoff = max_backoff, keep_ms = keep_ms, keep_count = keep_count, idempotency = idempotency,
        boost = head_start > 0 and head_start or STRICT, ready = T.p .. 'ready:' .. number, delayed = T.p .. 'delayed:' .. number,
        added = 0, ended_added = 0, ended = {}, changed = {}, offered = false}
    end
    T.queues[number] = Q
  end
  return Q or nil
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

-- A job of this bucket: its record and queue.
local function job_of(T, bucket, id)
  local Q = queue(T, (id_parts(id)))
  if not Q or Q.bucket ~= bucket then return nil end
  local R = record(T, id)
  if not R then return nil end
  return R, Q
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
  Q.added = Q.added + 1
  Q.room = Q.room - 1
end

local function waiting_count(Q) return call('ZCARD', Q.ready) + call('ZCARD', Q.delayed) end

-- Whether `count` more jobs fit. Q.room are certain to; only when that is used up are those waiting counted again.
local function has_room(Q, count)
  if Q.room < count then Q.room = Q.max_size - waiting_count(Q) - Q.added end
  return Q.room >= count
end

-- The state that a reader sees.
local function view(Q, R, L)
  if L then return RUNNING end
  if R.st ~= SUBMITTED then return R.st end
  if R.ep < Q.epoch then return CANCEL end
  return Q.paused and PAUSE or SUBMITTED
end

local function commit_queue(T, Q)
  if Q.offered and Q.wanted and not Q.paused and running_count(T, Q) < Q.max_concurrent and call('ZCARD', Q.ready) > 0 then
    Q.wanted = false
    Q.changed.w = '0'
    publish(T, 'q ' .. T.partition .. ' ' .. Q.number)
  end
  for state, count in pairs(Q.ended) do
    if count ~= 0 then call('HINCRBY', Q.key, 'c' .. state, num(count)) end
  end
  if Q.added > 0 then Q.changed.rm = num(Q.room) end
  local fields, n = {}, 0
  for field, value in pairs(Q.changed) do
    fields[n + 1], fields[n + 2] = field, value
    n = n + 2
  end
  if n > 0 then call('HSET', Q.key, unpack(fields)) end
  if Q.ended_added > 0 then
    -- Retention has its timer while anything has ended: only the first sets it.
    local count = call('ZCARD', T.p .. 'ended:' .. Q.number)
    if count > Q.keep_count then mark(T, 'R' .. Q.number, T.ms)
    elseif count <= Q.ended_added then mark(T, 'R' .. Q.number, T.ms + Q.keep_ms) end
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
  for k = 1, #T.saved do
    local id = T.saved[k]
    local R = T.records[id]
    if R then write_pair(T, 'MSET', nil, T.p .. 'j:' .. id, record_encode(R)) end
  end
  for k = 1, #T.writes do
    local W = T.writes[k]
    call_many(W.command, W.key, W, W.n)
  end
  for _, Q in pairs(T.queues) do
    if Q then commit_queue(T, Q) end
  end
  for member, at in pairs(T.marks) do call('ZADD', T.p .. 'timers', 'LT', num(at), member) end
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

-- Reads the records and leases of the jobs that the calls name: one MGET, and one HMGET a queue.
local function prefetch(T, A, first, stride)
  local ids, by_queue, i = {}, {}, 1
  while i <= #A do
    local n = tonumber(A[i])
    for k = first, n, stride do
      local id = A[i + k]
      if #id == 16 then
        ids[#ids + 1] = id
        local number = id_parts(id)
        local list = by_queue[number]
        if not list then list = {} by_queue[number] = list end
        list[#list + 1] = id
      end
    end
    i = i + n + 1
  end
  fetch(T, ids)
  for number, list in pairs(by_queue) do
    local Q = queue(T, number)
    if Q then fetch_leases(T, Q, list) end
  end
end

-- Registers a function whose calls are answered by `one(T, A, i, n)`: arguments A[i + 1] to A[i + n]. Where the calls name jobs, `first`
-- and `stride` say which arguments are their ids.
local function register(name, flags, one, first, stride)
  redis.register_function{function_name = name .. SUFFIX, flags = flags, callback = function(keys, A)
    local T = begin(keys[1])
    local replies, i = {}, 1
    if first then prefetch(T, A, first, stride) end
    while i <= #A do
      local n = tonumber(A[i])
      replies[#replies + 1] = one(T, A, i, n)
      i = i + n + 1
    end
    commit(T)
    return replies
  end}
end
