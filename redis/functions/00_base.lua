-- What every function shares: the calling convention, keys, how jobs and queues are stored.
--
-- Calling convention. FCALL <name><SUFFIX> 1 {pNN} <n> <n arguments> [<n> <n arguments>]...
-- One FCALL carries any number of calls of the same function (the store merges them); the reply has one element a call:
-- {0, results...} or {code, reason, limit, current}. The codes are those of enum store_code in redis/store.h.
-- Functions are atomic but not rolled back: each call validates first; writes collect in the unit of work (05_unit.lua) and are made
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

local ANSWER_BYTES_MAX = 3 * 1024 * 1024
local EXAMINED_MAX = 1000       -- jobs that one list call looks at
local REDELIVER_EXAMINED_MAX = 500 -- deliveries that one redeliver_dead looks at
local REDELIVERED_MAX = 100     -- and puts back
local SLICE = 100               -- jobs or deliveries that are read at once
local DELIVERIES_KEPT = 10000   -- ended deliveries of a queue
local DELIVERIES_KEPT_MS = 3 * 86400 * 1000
local GROUP_CONCURRENCY = 32    -- attempts under way at one endpoint, unless its rule says otherwise
local FAILING_MS = 120 * 3600 * 1000 -- a rule without a success for so long, and
local FAILURES_MIN = 20         -- with so many failures since, is switched off
local ATTEMPTS_KEPT = 20        -- in a delivery's log
local SECRETS_MAX = 5           -- of a rule
local GROUPS_MAX = 64           -- outbox groups that one claim looks at
local TURN_MAX = 8              -- deliveries that a group gets in its turn while others wait for theirs
local CLAIM_BYTES_MAX = 1024 * 1024 -- of records and bodies that one claim answers with

-- A job's record never changes, but for its priority: version (3) and flags in one byte, priority; what its flags say it has: limits
-- (max_attempts, expire_time, lease, run_timeout), not_before, the hash of its own endpoint; packed JobSpec, whose first field is its tag.
local HEAD_SIZE = 2
local FLAGS = 32 -- of the first byte: what is below
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

local function number_of(id) return (unpack_struct('>I5', id, 2)) end

local function created_ms(id) return (unpack_struct('>I6', id, 7)) end

-- The ms and sequence of an id.
local function place_of(id)
  local ms, seq = unpack_struct('>I6I4', id, 7)
  return ms, seq
end

local function stream_id(id) return format('%d-%d', place_of(id)) end

-- Whole numbers as Redis takes them: no exponent, no loss. Jobs of one call mostly have the same times and scores, so the last is kept.
local last_number, last_text
local function num(n)
  if n ~= last_number then last_number, last_text = n, format('%d', n) end
  return last_text
end

-- Whether flags have this one.
local function has(flags, flag) return flags % (2 * flag) >= flag end

-- --- records -------------------------------------------------------------------------------------

local function flags_of(rec) return byte(rec) % FLAGS end

-- A job as a table: rec its record (nil: not read), raw its state as it is stored (nil: none), and the fields of STATE: st fl run at
-- progress token last start stop due mark lease worker code message result.
local function new_job(rec)
  return {rec = rec, st = SUBMITTED, fl = flags_of(rec), run = 0, at = 0, progress = 0, token = 0, last = 0, start = 0, stop = 0, due = 0, mark = 0,
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

local function priority_of(J) return byte(J.rec, 2) end

-- When a waiting job is or becomes leasable.
local function due_of(id, J)
  if J.due > 0 then return J.due end
  return has(J.fl, FLAG_NOT_BEFORE) and max(unpack_struct('>I6', J.rec, after_limits(J)), created_ms(id)) or created_ms(id)
end

-- The hash of a job's own endpoint.
local function endpoint_of(J)
  return (unpack_struct('>I4', J.rec, after_limits(J) + (has(J.fl, FLAG_NOT_BEFORE) and 6 or 0)))
end

-- The first field of the JobSpec: its key (field 1, with a length), its length, itself.
local function tag_of(J)
  local from = after_limits(J) + (has(J.fl, FLAG_NOT_BEFORE) and 6 or 0) + (has(J.fl, FLAG_OWN_URL) and 4 or 0)
  local key, size = byte(J.rec, from, from + 1)
  return key == 10 and sub(J.rec, from + 2, from + 1 + size) or ''
end
