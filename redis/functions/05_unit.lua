-- The unit of work: what the calls of one FCALL have read and will write, and how functions are registered.

local begin

do -- as in 30_jobs.lua

-- What a unit collects, each in a table of its own.
local COLLECTIONS = {'queues', 'names', 'jobs', 'states', 'writes', 'current', 'deliveries', 'unreadable', 'groups', 'dues', 'refreshed',
  'marks', 'logs', 'rules', 'drains', 'breakers', 'changed_breakers', 'messages', 'watched'}

-- A partition's unit is kept for the next call, as making tables is most of what a small call costs; what the last one collected is not.
local units = {}

local function new_unit(prefix)
  call, pack, unpack_struct, floor, format = redis.call, struct.pack, struct.unpack, math.floor, string.format
  char, byte, sub = string.char, string.byte, string.sub
  local T = {p = prefix, partition = tonumber(prefix:sub(3, 4)), timers = prefix .. 'timers', job_key = prefix .. 'j:', delivery_key = prefix .. 'd:',
    us = 0, ms = 0}
  for k = 1, #COLLECTIONS do T[COLLECTIONS[k]] = {} end
  units[prefix] = T
  return T
end

function begin(prefix)
  local T = units[prefix] or new_unit(prefix)
  for k = 1, #COLLECTIONS do
    local name = COLLECTIONS[k]
    if next(T[name]) ~= nil then T[name] = {} end
  end
  local t = call('TIME')
  T.us = t[1] * 1000000 + t[2]
  T.ms, T.first_end, T.end_time = floor(T.us / 1000), nil, nil
  return T
end

end

-- A command that is made when the unit is done: its key (none for MSET) and its values so far. Commands are made in the order of their
-- first values; another kind of command for the same key starts anew, so the last word counts.
local function new_write(T, command, key)
  local W = {command = command, key = key, n = 0}
  T.writes[#T.writes + 1] = W
  T.current[key or command] = W
  return W
end

local function write(T, command, key, value)
  local W = T.current[key]
  if not W or W.command ~= command then W = new_write(T, command, key) end
  local n = W.n + 1
  W[n], W.n = value, n
end

local function write_pair(T, command, key, first, second)
  local W = T.current[key or command]
  if not W or W.command ~= command then W = new_write(T, command, key) end
  local n = W.n
  W[n + 1], W[n + 2], W.n = first, second, n + 2
end

-- Records and states of jobs of one queue, as they are stored; false where there is none.
local function read(T, number, ids)
  local keys = {}
  for k = 1, #ids do keys[k] = T.job_key .. ids[k] end
  return call('MGET', unpack(keys)), call('HMGET', T.p .. 'state:' .. number, unpack(ids))
end

-- A job as the unit has it: nil: not read; false: there is none. A state alone stays the bytes that were read until somebody asks.
local function job_at_hand(T, id)
  local J = T.jobs[id]
  if J == nil and T.states[id] then
    J = decode_state(nil, T.states[id])
    T.jobs[id] = J
  end
  return J
end

-- Reads jobs of one queue into the unit: T.jobs[id] is the job, or false where there is none.
local function fetch(T, number, ids)
  local wanted, n = {}, 0
  for k = 1, #ids do
    local J = job_at_hand(T, ids[k])
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

-- Reads only the states of jobs, into T.states: what their workers' calls need of most.
local function fetch_states(T, number, ids)
  local states = call('HMGET', T.p .. 'state:' .. number, unpack(ids))
  for k = 1, #ids do T.states[ids[k]] = states[k] end
end

-- A job with its record; nil where there is none.
local function read_job(T, id)
  local J = job_at_hand(T, id)
  if J == nil or J and not J.rec then
    fetch(T, number_of(id), {id})
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

-- A running job runs no more: its place is free.
local function end_lease(T, Q, id)
  Q.running, Q.changed, Q.offered = Q.running - 1, true, true
  write(T, 'ZREM', T.timers, id)
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

local use_settings, queue

do

local QUEUES_KNOWN = 1000 -- of about 3 KB each

-- Queues of all partitions as earlier calls have read them.
local known, known_count = {}, 0

local function place_in_known(T, number) return T.partition * 2 ^ 40 + number end

function use_settings(Q, settings)
  Q.settings = settings
  Q.head_start, Q.max_size, Q.max_concurrent, Q.lease, Q.max_attempts, Q.min_backoff, Q.max_backoff, Q.keep_ms, Q.keep_count, Q.idempotency =
    unpack_struct(SETTINGS, settings)
  Q.boost = Q.head_start > 0 and Q.head_start or STRICT
end

-- A queue with what never changes of it and its settings. The calls that follow know it, for as long as its settings are these.
local function new_queue(T, number, key, settings, id)
  local names, text = call('HMGET', key, 'b', 'n'), num(number) -- each joining with a number would make it text anew
  local Q = {number = number, partition = T.partition, key = key, bucket = names[1], name = names[2], id = id, feature = floor(byte(id) / 64),
    ready = T.p .. 'ready:' .. text, delayed = T.p .. 'delayed:' .. text, states = T.p .. 'state:' .. text, ended = T.p .. 'ended:' .. text,
    list = T.p .. 'list:' .. text, deliveries = T.p .. 'dl:' .. text, outbox = T.p .. 'outbox:' .. text, claims = T.p .. 'claims:' .. text,
    ended_deliveries = T.p .. 'dended:' .. text, fields = {}}
  use_settings(Q, settings)
  local place = place_in_known(T, number)
  if known_count == QUEUES_KNOWN then known, known_count = {}, 0 end
  if not known[place] then known_count = known_count + 1 end
  known[place] = Q
  return Q
end

-- A queue's numbers that change, and what this unit does to it. `changed`: the numbers have; `fields` collects other fields to write.
local function open_queue(Q, numbers)
  local paused, wanted
  paused, wanted, Q.request_slot, Q.last_ms, Q.last_seq, Q.token, Q.boundary, Q.purge_ms, Q.open, Q.room, Q.running, Q[SUCCESS], Q[FAILED],
    Q[CANCEL], Q.rotate_at = unpack_struct(NUMBERS, numbers)
  Q.paused, Q.wanted = paused == 1, wanted == 1
  Q.new, Q.added, Q.ended_more, Q.changed, Q.offered, Q.delivered_more = 0, 0, 0, false, false, false
  if next(Q.fields) ~= nil then Q.fields = {} end
end

-- The queue by number; nil when it is deleted.
function queue(T, number)
  local Q = T.queues[number]
  if Q == nil then
    Q = known[place_in_known(T, number)]
    local key = Q and Q.key or T.p .. 'q:' .. num(number)
    local h = call('HMGET', key, 'c', 'x', 'id')
    if not h[1] then Q = false
    elseif Q and Q.settings == h[1] and Q.id == h[3] then open_queue(Q, h[2])
    else
      Q = new_queue(T, number, key, h[1], h[3])
      open_queue(Q, h[2])
    end
    T.queues[number] = Q
  end
  return Q or nil
end

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
  local Q = queue(T, number_of(id))
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

local commit

do

local LOG_CHANGES = 100000      -- changes that a bucket's log keeps, in at least LOG_ENTRIES entries and at most ten times as many
local LOG_ENTRIES = 1000
local VALUES_MAX = 2000         -- values of one command, even: Lua's unpack fails beyond about 4,000
local BREAKER_KEPT_MS = 30 * 60 * 1000 -- after its last change

-- A command with n values, in parts.
local function call_many(command, key, values, n)
  for i = 1, n, VALUES_MAX do
    if key then call(command, key, unpack(values, i, min(n, i + VALUES_MAX - 1)))
    else call(command, unpack(values, i, min(n, i + VALUES_MAX - 1))) end
  end
end

local function pack_numbers(Q)
  return pack(NUMBERS, Q.paused and 1 or 0, Q.wanted and 1 or 0, Q.request_slot, Q.last_ms, Q.last_seq, Q.token, Q.boundary, Q.purge_ms, Q.open, Q.room, Q.running,
    Q[SUCCESS], Q[FAILED], Q[CANCEL], Q.rotate_at)
end

local function commit_queue(T, Q)
  if Q.offered and Q.wanted and not Q.paused and Q.running < Q.max_concurrent and call('ZCARD', Q.ready) > 0 then
    Q.wanted, Q.changed = false, true
    publish(T, 'q ' .. T.partition .. ' ' .. Q.number)
  end
  if Q.new > 0 then call('XADD', Q.list, format('%d-%d', Q.last_ms, Q.last_seq - Q.new + 1), '', num(Q.new)) end
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
function commit(T)
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

end

-- Calls read(T, number, ids) for the ids of each queue among these.
local function by_queue(T, ids, read)
  local lists = {}
  for k = 1, #ids do
    local number = unpack_struct('>I5', ids[k], 2)
    local list = lists[number]
    if not list then list = {} lists[number] = list end
    list[#list + 1] = ids[k]
  end
  for number, list in pairs(lists) do read(T, number, list) end
end

-- The ids of the jobs that the calls name. An argument begins with a job's id.
local function ids_named(A, first, stride)
  local ids, i = {}, 1
  while i <= #A do
    local n = tonumber(A[i])
    for k = first, n, stride do
      if #A[i + k] >= 16 then ids[#ids + 1] = sub(A[i + k], 1, 16) end
    end
    i = i + n + 1
  end
  return ids
end

-- Registers a function whose calls are answered by `one(T, A, i, n)`: arguments A[i + 1] to A[i + n]. Where the calls name jobs,
-- `first` and `stride` say which arguments do, and `read` reads them all at once: fetch, or fetch_states where most need no record.
local function register(name, flags, one, first, stride, read)
  redis.register_function{function_name = name .. SUFFIX, flags = flags, callback = function(keys, A)
    local T = begin(keys[1])
    local replies, i = {}, 1
    if first then by_queue(T, ids_named(A, first, stride), read or fetch) end
    while i <= #A do
      local n = tonumber(A[i])
      replies[#replies + 1] = one(T, A, i, n)
      i = i + n + 1
    end
    commit(T)
    return replies
  end}
end
