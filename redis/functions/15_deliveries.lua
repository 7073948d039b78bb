-- Deliveries as they are stored, and how a unit of work reads and writes them.
--
-- A delivery's id is its job's 16 bytes, the event and the job's run; that of a test is its text. (As text, which only redis/delivery_id.c
-- knows: cb_<job>_<event>_<run>.)
--
-- d:DELIVERY is a head of fixed size, DELIVERY, and then texts that a delivery has only once something has gone wrong or been sent: class and
-- message of what ended it without an attempt; the beginning of the last answer, where the rule wants it kept; its latest attempts, oldest
-- first. An attempt lies here as store_callbacks.c packed it for settle (ATTEMPT, then address, class, message and URL) and is not opened
-- but for what a reader or the rule asks of the last one; earlier ones have no URL. So claiming a delivery that has never been sent
-- rewrites some seventy bytes, and its first success adds about a hundred.
--
-- body:DELIVERY, from the first attempt on, is store_callbacks.c's too: version, lengths of content type, traceparent and URL, these, and the
-- body. Whether a delivery has been rendered is whether it is there; a delivery that was never claimed has none.

local DELIVERY_VERSION = 1
local DELIVERY_ID_SIZE, DELIVERY_SIZE = 19, 66
-- Whose endpoint it goes to: the rule's; the rule's, as a test; the job's own.
local TO_RULE, TO_TEST, TO_OWN = 0, 1, 2
local SETTLEMENT = '>BHBI7I6I6' -- the beginning of an attempt: state, HTTP status, why there is a next one, token, start, next

local fetch_deliveries, delivery, save_delivery, unreadable, create_delivery, claim_delivery, deliver_at_once, peek_delivery
local group_of, last_attempt, open_texts, add_attempt, end_attempts, is_rendered, frozen_url

do
  -- Version, kind, state, claims in a row that ran out, claim token, next attempt (ended: when it ended), attempts, when it was last put
  -- back to be sent again (0: never) and its attempts until then, queue, creation, sequence, its number among the rule's own that are
  -- sent (0: not one), hash of the job's own endpoint, sizes of class, message and answer, attempts kept, size of the last one.
  local DELIVERY = '>BBBBI7I6I4I6I4I5I6I6I6I4BHHBH'
  local DELIVERY_AND_ATTEMPT = DELIVERY .. 'c0'
  -- State, HTTP status, why there is a next one, token, start, next, microseconds of DNS, connect, TLS, first byte and total, sizes of
  -- address, class, message and URL.
  local ATTEMPT, ATTEMPT_SIZE = '>BHBI7I6I6I4I4I4I4I4BBHH', 49
  local BODY = '>BBBH'

  -- G: the name of the outbox group.
  function group_of(T, kind, number, endpoint)
    local group = T.groups[number]
    if not group then
      group = num(number)
      T.groups[number] = group
    end
    if kind == TO_RULE then return group end
    return kind == TO_TEST and group .. ':t' or group .. format(':%08x', endpoint)
  end

  -- A delivery as a table: kind, s state, ab abandoned claims, tk token, nx, a attempts, rs and ra, q queue's number, c created, sq, rq, endpoint,
  -- g its group, kept how many attempts lie in it, last the size of the last one; raw what was read. Its texts stay closed (open_texts).
  local function decode(T, bytes)
    local _, kind, s, ab, tk, nx, a, rs, ra, q, c, sq, rq, endpoint, class_size, message_size, answer_size, kept, last =
      unpack_struct(DELIVERY, bytes)
    return {raw = bytes, kind = kind, s = s, ab = ab, tk = tk, nx = nx, a = a, rs = rs, ra = ra, q = q, c = c, sq = sq, rq = rq,
      endpoint = endpoint, class_size = class_size, message_size = message_size, answer_size = answer_size, kept = kept, last = last,
      g = group_of(T, kind, q, endpoint)}
  end

  -- Makes class, message, answer and log of a delivery fields that may be changed.
  function open_texts(D)
    if D.log then return end
    local from = DELIVERY_SIZE + 1
    D.class = D.raw:sub(from, from + D.class_size - 1)
    from = from + D.class_size
    D.message = D.raw:sub(from, from + D.message_size - 1)
    from = from + D.message_size
    D.answer = D.raw:sub(from, from + D.answer_size - 1)
    D.log = D.raw:sub(from + D.answer_size)
  end

  local function encode(D)
    local texts = ''
    if D.log then
      D.class_size, D.message_size, D.answer_size = #D.class, #D.message, #D.answer
      texts = D.class .. D.message .. D.answer .. D.log
    elseif #D.raw > DELIVERY_SIZE then
      texts = D.raw:sub(DELIVERY_SIZE + 1)
    end
    local head = pack(DELIVERY, DELIVERY_VERSION, D.kind, D.s, D.ab, D.tk, D.nx, D.a, D.rs, D.ra, D.q, D.c, D.sq, D.rq, D.endpoint, D.class_size,
      D.message_size, D.answer_size, D.kept, D.last)
    return texts == '' and head or head .. texts
  end

  -- Reads deliveries into the unit, each once. A record that this version of the library cannot read counts as none, but in T.unreadable.
  function fetch_deliveries(T, ids)
    local keys, wanted, n = {}, {}, 0
    for k = 1, #ids do
      if T.deliveries[ids[k]] == nil then
        n = n + 1
        keys[n], wanted[n] = T.delivery_key .. ids[k], ids[k]
      end
    end
    if n == 0 then return end
    local got = call('MGET', unpack(keys))
    for k = 1, n do
      local bytes, id = got[k], wanted[k]
      if bytes and #bytes >= DELIVERY_SIZE and byte(bytes) == DELIVERY_VERSION then
        T.deliveries[id] = bytes
      else
        T.deliveries[id] = false
        if bytes then T.unreadable[id] = true end
      end
    end
  end

  -- nil where there is none. What is opened nowhere else stays the text that was read: a table costs more than all the rest of a step.
  function delivery(T, id)
    if T.deliveries[id] == nil then fetch_deliveries(T, {id}) end
    local D = T.deliveries[id]
    if type(D) == 'string' then
      D = decode(T, D)
      T.deliveries[id] = D
    end
    return D or nil
  end

  -- Kind, state and token of a delivery that was read; nothing where there is none.
  function peek_delivery(T, id)
    local D = T.deliveries[id]
    if type(D) == 'string' then
      local _, kind, s, _, token = unpack_struct('>BBBBI7', D)
      return kind, s, token
    elseif D then
      return D.kind, D.s, D.tk
    end
  end

  local function write_record(T, id, bytes)
    T.deliveries[id] = bytes
    write_pair(T, 'MSET', nil, T.delivery_key .. id, bytes)
  end

  -- Makes a delivery; answers with its group.
  function create_delivery(T, Q, id, kind, endpoint, state, sequence, own_sequence)
    write_record(T, id, pack(DELIVERY, DELIVERY_VERSION, kind, state, 0, 0, T.ms, 0, 0, 0, Q.number, T.ms, sequence, own_sequence, endpoint,
      0, 0, 0, 0, 0))
    return group_of(T, kind, Q.number, endpoint)
  end

  -- A delivery that was read and not opened is claimed under this token. Answers with its attempts since it was last put back, since when it is
  -- tried, and its number.
  function claim_delivery(T, id, token)
    local bytes = T.deliveries[id]
    local version, kind, _, ab, _, nx, a, rs, ra, q, c, sq, rq, endpoint, class_size, message_size, answer_size, kept, last =
      unpack_struct(DELIVERY, bytes)
    local head = pack(DELIVERY, version, kind, SENDING, ab, token, nx, a, rs, ra, q, c, sq, rq, endpoint, class_size, message_size,
      answer_size, kept, last)
    write_record(T, id, #bytes == DELIVERY_SIZE and head or head .. sub(bytes, DELIVERY_SIZE + 1))
    return a - ra, max(rs, c), rq
  end

  -- The end of most: the first attempt at a rule's endpoint, under the token of its claim, was accepted. False, and nothing is done: it is not that.
  function deliver_at_once(T, id, token, entry)
    local bytes = T.deliveries[id]
    if type(bytes) ~= 'string' or #bytes ~= DELIVERY_SIZE then return false end
    local version, kind, s, _, claim, _, a, rs, ra, q, c, sq, rq, endpoint = unpack_struct(DELIVERY, bytes)
    if s ~= SENDING or claim ~= token or kind ~= TO_RULE then return false end
    write_record(T, id, pack(DELIVERY_AND_ATTEMPT, version, kind, DELIVERED, 0, token, T.ms, a + 1, rs, ra, q, c, sq, rq, endpoint, 0, 0, 0, 1,
      #entry, entry))
    return true
  end

  -- The answer about a delivery that cannot be read; nil when that is not so.
  function unreadable(T, id)
    return T.unreadable[id] and {INTERNAL, 'the delivery was written by another version of Ringback'} or nil
  end

  function save_delivery(T, id, D)
    T.deliveries[id] = D
    write_pair(T, 'MSET', nil, T.delivery_key .. id, encode(D))
  end

  -- What the last attempt was: HTTP status, class, message, URL, start, microseconds. Nothing: there was none.
  function last_attempt(D)
    if D.kept == 0 then return end
    local entry = D.log and D.log:sub(-D.last) or D.raw:sub(-D.last)
    local _, status, _, _, start, _, _, _, _, _, total, address_size, class_size, message_size, _, from = unpack_struct(ATTEMPT, entry)
    local class_at = from + address_size
    local message_at = class_at + class_size
    local url_at = message_at + message_size
    return status, entry:sub(class_at, message_at - 1), entry:sub(message_at, url_at - 1), entry:sub(url_at), start, total
  end

  -- The same attempt without its URL, which only the last one needs.
  local function without_url(entry)
    local v = {unpack_struct(ATTEMPT, entry)}
    v[15] = 0
    return pack(ATTEMPT, unpack(v, 1, 15)) .. entry:sub(ATTEMPT_SIZE + 1, ATTEMPT_SIZE + v[12] + v[13] + v[14])
  end

  local function entry_size(log)
    local _, _, _, _, _, _, _, _, _, _, _, address_size, class_size, message_size, url_size = unpack_struct(ATTEMPT, log)
    return ATTEMPT_SIZE + address_size + class_size + message_size + url_size
  end

  -- Writes an attempt into the delivery, with the beginning of its answer.
  function add_attempt(D, entry, answer)
    local log = ''
    if D.kept > 0 then
      open_texts(D)
      log = D.log
      log = log:sub(1, -D.last - 1) .. without_url(log:sub(-D.last))
      if D.kept == ATTEMPTS_KEPT then
        log = log:sub(entry_size(log) + 1)
        D.kept = D.kept - 1
      end
    end
    D.class, D.message, D.answer, D.log = '', '', answer, log .. entry
    D.kept, D.last = D.kept + 1, #entry
  end

  -- Takes back that the attempt just written has another after it.
  function end_attempts(D)
    local v = {unpack_struct(ATTEMPT, D.log, #D.log - D.last + 1)}
    v[1], v[3], v[6] = DEAD, 0, 0
    D.log = D.log:sub(1, -D.last - 1) .. pack(ATTEMPT, unpack(v, 1, 15)) .. D.log:sub(#D.log - D.last + ATTEMPT_SIZE + 1)
  end

  function is_rendered(T, id) return call('EXISTS', T.p .. 'body:' .. id) == 1 end

  -- The URL that a delivery's body was rendered for; '' before it was.
  function frozen_url(T, id)
    local head = call('GETRANGE', T.p .. 'body:' .. id, 0, 4 + 255 + 255 + 65535)
    if #head < 5 then return '' end
    local _, type_size, trace_size, url_size, from = unpack_struct(BODY, head)
    from = from + type_size + trace_size
    return head:sub(from, from + url_size - 1)
  end
end
