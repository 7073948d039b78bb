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
--                         c3/c4/c6 ended jobs by state, od open deliveries, rr/rc idempotency rotation
--   ready:Q       zset    waiting jobs by score
--   delayed:Q     zset    jobs that become leasable later, by due time
--   running:Q     hash    job -> lease (RUN)
--   ended:Q       zset    ended jobs by end time: what retention takes next
--   list:Q        stream  one empty entry a job, its id the job's ms-seq: listing in creation order
--   j:ID          string  a job's record (HEAD, tag, spec, TAIL)
--   req:Q:0/1     hash    request_id -> digest, first id, count; the older one is dropped at each rotation
--   timers        zset    type byte + subject, by time: L lease, E expire_time (jobs); D delayed, R retention, T deliveries' retention
--                         (queues); C claims (outbox groups)
--   log:BUCKET    stream  what changed, one entry a function call
--   rule:Q        hash    callback rule
--   outbox:G      zset    an outbox group's deliveries by next attempt; G is Q, Q:t (tests) or Q:HASH (a job's own endpoint)
--   claims:G      zset    the group's claimed deliveries by claim expiry
--   breaker:G     string  the group's circuit breaker, packed (25_breaker.lua); expires
--   due           zset    groups by when they have something due, or were last served
--   d:DELIVERY    string  a delivery, packed
--   dl:Q          zset    a queue's deliveries by sequence
--   dended:Q      zset    ended deliveries by end time
--   hungry        string  a dispatcher found too little and wants to be told
--   trash         list    what a purge or a deletion left, taken in slices

-- Nothing but redis.register_function is there yet while the library loads: begin() sets these.
local call, pack, unpack_struct, floor, format

local function min(a, b) return a < b and a or b end
local function max(a, b) return a > b and a or b end

-- Codes of enum store_code.
local NOT_FOUND, ALREADY_EXISTS, FULL, TOO_MANY, CONFLICT, PRECONDITION, OUT_OF_RANGE, INVALID = 1, 2, 3, 4, 5, 6, 7, 8

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
local VALUES_MAX = 2000         -- values of one command: Lua's unpack fails beyond about 4,000
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
local TURN_MAX = 8              -- deliveries that a group gets in its turn

local HEAD = '>BBBBHHI4I6I6I4I4BI4'
local HEAD_SIZE = 37
local TAIL = '>HBI6I6dBBHI4'
local TAIL_SIZE = 31
local RUN = '>dI6I6I4BI6B'
local RUN_SIZE = 32
local FLAG_NO_CALLBACK, FLAG_OWN_URL = 1, 2
local SETTINGS = '>dddddddddd'

local TEXT_OF_ID = ('%02x'):rep(16)
local LETTERS = {'j', 's', 'd'}

-- The text form of a job's 16 raw bytes.
local function id_text(id)
  return LETTERS[floor(id:byte(1) / 64)] .. format(TEXT_OF_ID, id:byte(1, 16))
end

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
  return format('%.0f-%.0f', ms, seq)
end

-- Numbers as Redis takes them: no exponent, no loss.
local function num(n) return format('%.0f', n) end

-- A command with many values, in parts.
local function call_many(command, key, values, width)
  local step = VALUES_MAX - VALUES_MAX % width
  for i = 1, #values, step do
    if key then call(command, key, unpack(values, i, min(i + step - 1, #values)))
    else call(command, unpack(values, i, min(i + step - 1, #values))) end
  end
end

-- --- records -------------------------------------------------------------------------------------

-- A record as a table: st fl pr at mx ep due exp lease rt (HEAD), tag, group (own endpoint), run progress start finish token worker code
-- message result (TAIL, defaults where there is none). raw is the record as it was read, of which the part between HEAD and TAIL never
-- changes; `clean` as long as nothing else has.
local function record_decode(bytes)
  local R = {raw = bytes, clean = true, progress = 0, run = 0, start = 0, finish = 0, token = 0, worker = '', code = '', message = '',
    result = ''}
  local _, tag_size, spec_size
  _, R.st, R.fl, R.pr, R.at, R.mx, R.ep, R.due, R.exp, R.lease, R.rt, tag_size, spec_size = unpack_struct(HEAD, bytes)
  local fixed_end = HEAD_SIZE + tag_size + spec_size
  R.tag = bytes:sub(HEAD_SIZE + 1, HEAD_SIZE + tag_size)
  if R.fl >= FLAG_OWN_URL then
    R.group = format('%08x', unpack_struct('>I4', bytes, HEAD_SIZE + tag_size + 1))
    fixed_end = fixed_end + 4
  end
  R.tag_size, R.spec_size, R.fixed_end = tag_size, spec_size, fixed_end
  if #bytes > fixed_end then
    local worker_size, code_size, message_size, result_size, at
    R.run, R.progress, R.start, R.finish, R.token, worker_size, code_size, message_size, result_size, at =
      unpack_struct(TAIL, bytes, fixed_end + 1)
    R.tail = true
    R.worker = bytes:sub(at, at + worker_size - 1)
    at = at + worker_size
    R.code = bytes:sub(at, at + code_size - 1)
    at = at + code_size
    R.message = bytes:sub(at, at + message_size - 1)
    at = at + message_size
    R.result = bytes:sub(at, at + result_size - 1)
  end
  return R
end

local function record_encode(R)
  if R.clean then return R.raw end
  local head = pack(HEAD, 1, R.st, R.fl, R.pr, R.at, R.mx, R.ep, R.due, R.exp, R.lease, R.rt, R.tag_size, R.spec_size)
  local fixed = R.raw:sub(HEAD_SIZE + 1, R.fixed_end)
  if not R.tail then return head .. fixed end
  return head .. fixed .. pack(TAIL, R.run, R.progress, R.start, R.finish, R.token, #R.worker, #R.code, #R.message, #R.result) ..
    R.worker .. R.code .. R.message .. R.result
end

local function run_decode(bytes)
  local L = {}
  L.token, L.start, L.hard, L.lease, L.progress, L.logged, L.at = unpack_struct(RUN, bytes)
  L.worker = bytes:sub(RUN_SIZE + 1)
  return L
end

local function run_encode(L)
  return pack(RUN, L.token, L.start, L.hard, L.lease, L.progress, L.logged, L.at) .. L.worker
end

-- A delivery: s state, q queue's number, j job (raw id, '' for a test), e event, a attempts, c created, nx next attempt, tk claim token,
-- hs http status, t 1 for a test, sq sequence, la last attempt, ld its duration, g group, ec error class, em error message, u url, ct content
-- type ('' until the body is rendered), tp traceparent, b body, l its last attempts: number, start, address, status, class, message,
-- microseconds of DNS, connect, TLS, first byte and total, next attempt and why; rs when it was last put back to be sent again (0: never), ra
-- its attempts until then; rq its number among the rule's own that are sent (0: not one); ab
-- its claims in a row that ran out; rb the beginning of the last answer, where the rule wants it kept.
local DELIVERY = {'s', 'q', 'j', 'e', 'a', 'c', 'nx', 'tk', 'hs', 't', 'sq', 'la', 'ld', 'g', 'ec', 'em', 'u', 'ct', 'tp', 'b', 'l', 'rs', 'ra', 'rq', 'ab',
  'rb'}

local function delivery_encode(D)
  local values = {}
  for k = 1, #DELIVERY do values[k] = D[DELIVERY[k]] end
  return cmsgpack.pack(values)
end

local function delivery_decode(bytes)
  local values, D = cmsgpack.unpack(bytes), {}
  for k = 1, #DELIVERY do D[DELIVERY[k]] = values[k] end
  D.l, D.rs, D.ra, D.rq = D.l or {}, D.rs or 0, D.ra or 0, D.rq or 0
  D.ab, D.rb = D.ab or 0, D.rb or ''
  return D
end

-- --- the unit of work ----------------------------------------------------------------------------

local function begin(prefix)
  call, pack, unpack_struct, floor, format = redis.call, struct.pack, struct.unpack, math.floor, string.format
  local t = call('TIME')
  local us = t[1] * 1000000 + t[2]
  return {p = prefix, us = us, ms = floor(us / 1000), partition = tonumber(prefix:sub(3, 4)), queues = {}, names = {},
    records = {}, saved = {}, raw = {}, deliveries = {}, changed_deliveries = {}, dues = {}, refreshed = {}, runs = {}, sets = {}, marks = {}, logs = {}, rules = {}, drains = {}, breakers = {}, changed_breakers = {}, messages = {}}
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
  T.records[id] = R
  T.saved[id] = R
end

-- Deliveries by id, read once a unit; nil where there is none.
local function fetch_deliveries(T, ids)
  local keys, wanted = {}, {}
  for i = 1, #ids do
    if T.deliveries[ids[i]] == nil then
      keys[#keys + 1] = T.p .. 'd:' .. ids[i]
      wanted[#wanted + 1] = ids[i]
    end
  end
  if #keys == 0 then return end
  local got = call('MGET', unpack(keys))
  for i = 1, #wanted do T.deliveries[wanted[i]] = got[i] and delivery_decode(got[i]) or false end
end

local function delivery(T, id)
  if T.deliveries[id] == nil then fetch_deliveries(T, {id}) end
  return T.deliveries[id] or nil
end

local function save_delivery(T, id, D)
  T.deliveries[id] = D
  T.changed_deliveries[id] = D
end

-- What becomes of a member of a sorted set when the unit is done: its score, or false for gone. The last word counts.
local function set_of(T, key)
  local members = T.sets[key]
  if not members then members = {} T.sets[key] = members end
  return members
end

local function add_to(T, key, score, member) set_of(T, key)[member] = num(score) end

local function remove_from(T, key, member) set_of(T, key)[member] = false end

-- A timer that fires no later than `at`.
local function mark(T, member, at)
  local known = T.marks[member]
  if not known or at < known then T.marks[member] = at end
end

-- Leases of a queue as the unit sees them.
local function runs_of(T, Q)
  local U = T.runs[Q.number]
  if not U then
    U = {Q = Q, key = T.p .. 'running:' .. Q.number, seen = {}, set = {}, gone = {}, count = nil}
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
  return U.count
end

local function set_lease(T, Q, id, L)
  local U = runs_of(T, Q)
  if not U.seen[id] then U.count = running_count(T, Q) + 1 end
  U.seen[id] = L
  U.set[id] = L
  U.gone[id] = nil
end

local function drop_lease(T, Q, id)
  local U = runs_of(T, Q)
  U.count = running_count(T, Q) - 1
  U.seen[id] = false
  U.set[id] = nil
  U.gone[id] = true
  remove_from(T, T.p .. 'timers', 'L' .. id)
end

local function log_change(T, Q, id, state, progress)
  local list = T.logs[Q.bucket]
  if not list then list = {} T.logs[Q.bucket] = list end
  list[#list + 1] = id .. string.char(state, progress)
end

local function publish(T, message) T.messages[message] = true end

-- The queue by number, with settings and hot fields; nil when it is deleted. `changed` collects fields to write.
local function queue(T, number)
  local Q = T.queues[number]
  if Q == nil then
    local h = call('HMGET', T.p .. 'q:' .. number, 'c', 'p', 'lm', 'ls', 'tk', 'ep', 'pt', 'w', 'b', 'n', 'f', 'id', 'x', 'od')
    if not h[1] or h[13] then
      Q = false
    else
      Q = {number = number, partition = T.partition, key = T.p .. 'q:' .. number, paused = h[2] == '1', last_ms = tonumber(h[3]),
        last_seq = tonumber(h[4]), token = tonumber(h[5]), epoch = tonumber(h[6]), purge_ms = tonumber(h[7]), wanted = h[8] == '1',
        bucket = h[9], name = h[10], feature = tonumber(h[11]), id = h[12], open = tonumber(h[14]), ended = {}, added = 0, changed = {}}
      Q.head_start, Q.max_size, Q.max_concurrent, Q.lease, Q.max_attempts, Q.min_backoff, Q.max_backoff, Q.keep_ms, Q.keep_count,
        Q.idempotency = unpack_struct(SETTINGS, h[1])
      Q.boost = Q.head_start > 0 and Q.head_start or STRICT
      Q.ready, Q.delayed = T.p .. 'ready:' .. number, T.p .. 'delayed:' .. number
    end
    T.queues[number] = Q
  end
  return Q or nil
end

local function queue_named(T, bucket, name)
  local key = bucket .. '/' .. name
  local number = T.names[key]
  if number == nil then
    number = tonumber(call('HGET', T.p .. 'b:' .. bucket, name) or nil) or false
    T.names[key] = number
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
end

local function waiting_count(Q) return call('ZCARD', Q.ready) + call('ZCARD', Q.delayed) end

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
  local fields = {}
  for state, count in pairs(Q.ended) do
    if count ~= 0 then call('HINCRBY', Q.key, 'c' .. state, num(count)) end
  end
  for field, value in pairs(Q.changed) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if #fields > 0 then call('HSET', Q.key, unpack(fields)) end
  if Q.ended_more and call('ZCARD', T.p .. 'ended:' .. Q.number) > Q.keep_count then mark(T, 'R' .. Q.number, T.ms) end
  if Q.delivered_more and call('ZCARD', T.p .. 'dended:' .. Q.number) > DELIVERIES_KEPT then mark(T, 'T' .. Q.number, T.ms) end
end

local function write_breaker(T, group)
  local B, key = T.breakers[group], T.p .. 'breaker:' .. group
  if B then call('SET', key, cmsgpack.pack({B.f, B.n, B.u, B.p, B.t, B.w}), 'PX', num(BREAKER_KEPT_MS))
  else call('DEL', key) end
end

-- Makes the writes of the unit.
local function commit(T)
  local values = {}
  for id, R in pairs(T.saved) do
    values[#values + 1] = T.p .. 'j:' .. id
    values[#values + 1] = record_encode(R)
  end
  for key, bytes in pairs(T.raw) do
    values[#values + 1] = key
    values[#values + 1] = bytes
  end
  for id, D in pairs(T.changed_deliveries) do
    values[#values + 1] = T.p .. 'd:' .. id
    values[#values + 1] = delivery_encode(D)
  end
  if #values > 0 then call_many('MSET', nil, values, 2) end
  for key, members in pairs(T.sets) do
    local gone, added = {}, {}
    for member, at in pairs(members) do
      if at then
        added[#added + 1] = at
        added[#added + 1] = member
      else
        gone[#gone + 1] = member
      end
    end
    if #gone > 0 then call_many('ZREM', key, gone, 1) end
    if #added > 0 then call_many('ZADD', key, added, 2) end
  end
  for _, U in pairs(T.runs) do
    local set, gone = {}, {}
    for id, L in pairs(U.set) do
      set[#set + 1] = id
      set[#set + 1] = run_encode(L)
    end
    for id in pairs(U.gone) do gone[#gone + 1] = id end
    if #set > 0 then call_many('HSET', U.key, set, 2) end
    if #gone > 0 then call_many('HDEL', U.key, gone, 1) end
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
    call('XADD', T.p .. 'log:' .. bucket, 'MAXLEN', '~', num(min(10 * LOG_ENTRIES, max(LOG_ENTRIES, LOG_CHANGES / #list))), '*', 'e',
      table.concat(list))
    if call('HGET', T.p .. 'b:' .. bucket, '#w') == '1' then
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

-- Reads the records and leases of the jobs that the calls name: one MGET, and one HMGET a queue. Deliveries likewise.
local function prefetch(T, A, first, stride)
  local ids, deliveries, by_queue, i = {}, {}, {}, 1
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
      elseif id:sub(1, 3) == 'cb_' then
        deliveries[#deliveries + 1] = id
      end
    end
    i = i + n + 1
  end
  fetch(T, ids)
  fetch_deliveries(T, deliveries)
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
