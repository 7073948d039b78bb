-- The circuit breaker of an outbox group: an endpoint that only fails is left alone for a while, over all servers.
--
-- Closed, every attempt goes. It opens at FAILURES_IN_A_ROW failures in a row, or when of at least RESULTS_MIN results within a minute
-- half or more were failures; the count begins with a failure, so an endpoint that never fails costs nothing. Open, nothing is claimed;
-- then exactly one delivery is, the probe. Its success closes the breaker; its failure opens it for twice as long, up to OPEN_MAX_MS. A
-- receiver that asked for more (Retry-After) gets it, up to OPEN_MAX_MS too. Any success closes it, also of an attempt that was under
-- way when it opened; other failures of those say nothing new. What waits is only delayed: no attempt is used up.
--
-- breaker:G holds, packed: f failures in a row, n how often it has opened since it was closed, u until when it is open (0: closed), p when
-- the probe's claim runs out (0: none), t the probe's token, w results of the last minute: slot of 10 s, good, bad, by threes. It expires by
-- itself; a rule's goes when the rule's epoch rises.

local fetch_breakers, open_until, breaker_room, breaker_claimed, judge_endpoint

do
  local FAILURES_IN_A_ROW, RESULTS_MIN = 5, 20
  local SLOT_MS, SLOTS = 10000, 6
  local OPEN_MS, OPEN_MAX_MS = 30 * 1000, 15 * 60 * 1000
  local BREAKER_OPENED, BREAKER_CLOSED = 1, 2
  -- Nothing was sent, or the receiver has said its last word: neither tells of an endpoint that fails.
  local NOT_THE_ENDPOINT = {cancelled = true, blocked_address = true, gone = true}

  -- Reads the breakers of groups into the unit; false where everything is well.
  function fetch_breakers(T, groups)
    local keys, wanted = {}, {}
    for _, group in ipairs(groups) do
      if T.breakers[group] == nil then
        keys[#keys + 1] = T.p .. 'breaker:' .. group
        wanted[#wanted + 1] = group
      end
    end
    if #keys == 0 then return end
    local got = call('MGET', unpack(keys))
    for k, group in ipairs(wanted) do
      local B = false
      if got[k] then
        B = {}
        B.f, B.n, B.u, B.p, B.t, B.w = unpack(cmsgpack.unpack(got[k]))
      end
      T.breakers[group] = B
    end
  end

  local function breaker_of(T, group)
    if T.breakers[group] == nil then fetch_breakers(T, {group}) end
    return T.breakers[group] or nil
  end

  local function save_breaker(T, group, B)
    T.breakers[group] = B
    T.changed_breakers[group] = true
  end

  -- Until when the group's breaker is open; 0: it is closed.
  function open_until(T, group)
    local B = breaker_of(T, group)
    return B and B.u or 0
  end

  -- How many deliveries the breaker lets the group send now, and when to ask again if that is none.
  function breaker_room(T, group)
    local B = breaker_of(T, group)
    if not B or B.u == 0 then return math.huge end
    if B.u > T.ms then return 0, B.u end
    if B.p > T.ms then return 0, B.p end
    return 1
  end

  -- A delivery of the group was claimed under this token: the probe, if the breaker is open.
  function breaker_claimed(T, group, token, expiry)
    local B = breaker_of(T, group)
    if not B or B.u == 0 then return end
    B.p, B.t = expiry, token
    save_breaker(T, group, B)
  end

  -- Counts a result; returns how many there were within the minute, and how many of them were failures.
  local function count_result(T, B, bad)
    local slot, kept, good_sum, bad_sum = floor(T.ms / SLOT_MS), {}, 0, 0
    for k = 1, #B.w, 3 do
      if B.w[k] > slot - SLOTS then
        for j = 0, 2 do kept[#kept + 1] = B.w[k + j] end
        good_sum, bad_sum = good_sum + B.w[k + 1], bad_sum + B.w[k + 2]
      end
    end
    if kept[#kept - 2] ~= slot then
      for _, value in ipairs({slot, 0, 0}) do kept[#kept + 1] = value end
    end
    local at = bad and #kept or #kept - 1
    kept[at] = kept[at] + 1
    B.w = kept
    return good_sum + bad_sum + 1, bad_sum + (bad and 1 or 0)
  end

  local function open_breaker(T, B, asked)
    B.u = T.ms + max(min(OPEN_MAX_MS, OPEN_MS * 2 ^ min(10, B.n)), min(OPEN_MAX_MS, asked))
    B.n, B.p, B.t, B.f, B.w = B.n + 1, 0, 0, 0, {}
    return BREAKER_OPENED
  end

  -- What an attempt under this token says of the group's endpoint; `asked` is how long its receiver asked to be left alone. Returns
  -- BREAKER_OPENED, BREAKER_CLOSED or 0.
  function judge_endpoint(T, group, token, delivered, class, asked)
    local B = breaker_of(T, group)
    if delivered or class == 'gone' then
      if not B then return 0 end
      local was_open = B.u > 0
      B.f = 0
      local _, bad = count_result(T, B, false)
      save_breaker(T, group, not was_open and bad > 0 and B or false)
      return was_open and BREAKER_CLOSED or 0
    end
    if B and B.u > 0 then
      if B.t ~= token then return 0 end
      save_breaker(T, group, B)
      if not NOT_THE_ENDPOINT[class] then return open_breaker(T, B, asked) end
      B.p, B.t = 0, 0
      return 0
    end
    if NOT_THE_ENDPOINT[class] then return 0 end
    B = B or {f = 0, n = 0, u = 0, p = 0, t = 0, w = {}}
    B.f = B.f + 1
    save_breaker(T, group, B)
    local results, bad = count_result(T, B, true)
    if B.f >= FAILURES_IN_A_ROW or (results >= RESULTS_MIN and 2 * bad >= results) then return open_breaker(T, B, asked) end
    return 0
  end
end
