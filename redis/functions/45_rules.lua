-- Callback rules: what a queue's rule is, its changes, its secrets, and that it is drained.

local RULE_DEFAULTS = {on = '0', url = '', ev = '0', se = '', to = '15000', ut = '0', fm = '1', ['or'] = '', fc = '0', cc = GROUP_CONCURRENCY .. '', hd = '', sc = '', ma = '0',
  al = '', sr = '0', ti = ''}

-- Secrets are kept one a line, newest first, each with a blank and the time when it ceases to sign if it was rotated out. Those that sign
-- now: as a list of such lines, and as the text of them without times.
local function valid_secrets(T, text)
  local lines, secrets = {}, {}
  for line in text:gmatch('[^\n]+') do
    local secret, ceases = line:match('^(%S+) ?(%d*)$')
    if ceases == '' or tonumber(ceases) > T.ms then
      lines[#lines + 1] = line
      secrets[#secrets + 1] = secret
    end
  end
  return lines, table.concat(secrets, '\n')
end

-- A rule as answer_rule of store_rules.c reads it: on, url, events, timeout, etag, update time, secrets, format, off
-- reason, concurrency, headers, schedule, max age (0: the default), epoch, how many of its deliveries are claimed, partition and number of
-- the queue, until when its breaker is open (0: closed), allowed ranges, 1 to keep answers, CA certificates, client certificate, when the last
-- secret that was rotated out ceases to sign (0: none does).
local function rule_values(T, Q)
  local h = call('HMGET', T.p .. 'rule:' .. Q.number, 'on', 'url', 'ev', 'to', 'en', 'ut', 'se', 'fm', 'or', 'cc', 'hd', 'sc', 'ma', 'ep', 'al', 'sr', 'ti')
  local pems = (h[17] or '') ~= '' and call('HMGET', T.p .. 'trust:' .. Q.number, 'ca', 'crt') or {}
  local lines, secrets = valid_secrets(T, h[7] or '')
  local ceases = 0
  for _, line in ipairs(lines) do ceases = max(ceases, tonumber(line:match(' (%d+)$')) or 0) end
  return {0, tonumber(h[1] or 0), h[2] or '', tonumber(h[3] or 0), tonumber(h[4] or 15000), Q.number .. '.' .. (h[5] or '0'),
    tonumber(h[6] or 0), secrets,
    tonumber(h[8] or 1), h[9] or '', tonumber(h[10] or GROUP_CONCURRENCY), h[11] or '', h[12] or '', tonumber(h[13] or 0),
    tonumber(h[14] or 0), call('ZCARD', T.p .. 'claims:' .. Q.number), T.partition, Q.number, open_until(T, num(Q.number)), h[15] or '', tonumber(h[16] or 0),
    pems[1] or '', pems[2] or '', ceases}
end

-- The rule is another one from here on for whoever waits: it was switched, its URL has changed, or it was deleted.
local function raise_epoch(T, Q)
  call('HINCRBY', T.p .. 'rule:' .. Q.number, 'ep', 1)
  T.breakers[num(Q.number)], T.changed_breakers[num(Q.number)] = false, true
end

local function rule_changed(T, Q)
  call('HSET', T.p .. 'rule:' .. Q.number, 'ut', num(T.ms))
  call('HINCRBY', T.p .. 'rule:' .. Q.number, 'en', 1)
  T.rules[Q.number] = nil
end

-- bucket, queue -> the rule.
register('rule_get', {'no-writes'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  return rule_values(T, Q)
end)

do -- the locals of the whole library, which is one chunk, may be 200 at most
  -- Fields of rule_update that lie in trust:Q: what only attempts need, and is large.
  local TRUST_FIELDS = {ca = true, crt = true, key = true}

  -- Returns the new ti.
  local function change_trust(T, Q, changes)
    local key, values = T.p .. 'trust:' .. Q.number, {}
    local before = call('HMGET', key, 'ca', 'crt', 'key')
    for k, field in ipairs({'ca', 'crt', 'key'}) do values[k] = changes[field] or before[k] or '' end
    local ca, crt, secret = unpack(values)
    call('DEL', key)
    if ca == '' and crt == '' then return '' end
    call('HSET', key, 'ca', ca, 'crt', crt, 'key', secret)
    return redis.sha1hex(table.concat(values, '\0'))
  end

  local function changes_state(A, i, n)
    for k = 4, n, 2 do
      if A[i + k] == 'on' then return true end
    end
    return false
  end

  -- bucket, queue, etag, then field and value by pairs -> the rule.
  register('rule_update', {}, function(T, A, i, n)
    local Q = queue_named(T, A[i + 1], A[i + 2])
    if not Q then return NO_QUEUE end
    local key = T.p .. 'rule:' .. Q.number
    local now = rule_values(T, Q)
    if A[i + 3] ~= '' and A[i + 3] ~= now[6] then return {CONFLICT, 'the etag is not the current one'} end
    local after = {on = num(now[2]), url = now[3]}
    local trust = {}
    for k = 4, n, 2 do (TRUST_FIELDS[A[i + k]] and trust or after)[A[i + k]] = A[i + k + 1] end
    if after.on ~= num(now[2]) or (now[9] ~= '' and changes_state(A, i, n)) then after['or'], after.fc, after.fs = '', '0', '0' end
    if after.on == '1' and after.url == '' then return {PRECONDITION, 'a rule without an URL cannot be switched on'} end
    if next(trust) then after.ti = change_trust(T, Q, trust) end
    local changed = false
    for field, value in pairs(after) do
      if (call('HGET', key, field) or RULE_DEFAULTS[field]) ~= value then
        call('HSET', key, field, value)
        changed = true
      end
    end
    if after.on ~= num(now[2]) or after.url ~= now[3] then raise_epoch(T, Q) end
    if changed then rule_changed(T, Q) end
    if after.on == '1' and call('EXISTS', T.p .. 'outbox:' .. Q.number) == 1 then make_due(T, num(Q.number), T.ms) end
    return rule_values(T, Q)
  end)
end

-- bucket, queue, new secret, overlap_ms -> the rule. None that still signs is dropped for want of room: a receiver may know no other.
register('rule_rotate', {}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local key, ceases = T.p .. 'rule:' .. Q.number, T.ms + tonumber(A[i + 4])
  local kept, first = {A[i + 3]}, math.huge
  if ceases > T.ms then
    for _, line in ipairs((valid_secrets(T, call('HGET', key, 'se') or ''))) do
      local secret, known = line:match('^(%S+) ?(%d*)$')
      known = tonumber(known) or math.huge
      first = min(first, known)
      kept[#kept + 1] = secret .. ' ' .. num(min(known, ceases))
    end
  end
  if #kept > SECRETS_MAX then
    local room = first < math.huge and 'the first of them ceases in ' .. num(floor((first - T.ms + 999) / 1000)) .. ' s' or
      'none of them ceases by itself'
    return {PRECONDITION, SECRETS_MAX .. ' secrets sign already, which is the most there may be, and ' .. room ..
      '; a rotation with an overlap of 0 ends them all at once'}
  end
  call('HSET', key, 'se', table.concat(kept, '\n'))
  rule_changed(T, Q)
  return rule_values(T, Q)
end)

-- bucket, queue -> the rule as it was at the queue's creation. Deliveries that wait go to the trash.
register('rule_delete', {'allow-oom'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local key, outbox = T.p .. 'rule:' .. Q.number, T.p .. 'outbox:' .. Q.number
  for field, value in pairs(RULE_DEFAULTS) do call('HSET', key, field, value) end
  call('DEL', T.p .. 'trust:' .. Q.number)
  raise_epoch(T, Q)
  call('HINCRBY', key, 'en', 1)
  T.rules[Q.number] = nil
  call('ZREM', T.p .. 'due', Q.number)
  if call('EXISTS', outbox) == 1 then
    local trash = T.p .. 'trash:outbox:' .. Q.number .. ':' .. num(T.us)
    call('RENAME', outbox, trash)
    call('RPUSH', T.p .. 'trash', 'O ' .. Q.number .. ' 0 ' .. trash)
  end
  return rule_values(T, Q)
end)
