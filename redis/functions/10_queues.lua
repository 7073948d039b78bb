-- Queues: activate, create, read, list, update, pause, resume, purge, delete.

local NO_QUEUE = {NOT_FOUND, 'there is no such queue'}

do -- as in 30_jobs.lua

local QUEUES_MAX = 10000        -- a bucket
local LOG_KEPT_S = 86400        -- of a bucket without queues

-- How long the longest-waiting job of the line has been leasable, in ms; -1 when none waits. With strict priority each level is a band of
-- scores and its first member the oldest, so there are at most 256 look-ups; with head start the first 100 are compared by their submission.
local function oldest_age(T, Q)
  local oldest
  if Q.boost ~= STRICT then
    for _, id in ipairs(call('ZRANGE', Q.ready, 0, 99)) do
      local ms = created_ms(id)
      if not oldest or ms < oldest then oldest = ms end
    end
  else
    local from = '-inf'
    for _ = 1, 256 do
      local first = call('ZRANGEBYSCORE', Q.ready, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if not first[1] then break end
      local s = tonumber(first[2])
      local band = floor(s / STRICT)
      local due = s - band * STRICT
      if not oldest or due < oldest then oldest = due end
      from = num((band + 1) * STRICT)
    end
  end
  return oldest and max(0, T.ms - oldest) or -1
end

-- A queue as decode_queue of store_queues.c reads it.
local function queue_values(T, Q)
  local h = call('HMGET', Q.key, 'ct', 'ut', 'e')
  local default = call('HGET', T.p .. 'b:' .. Q.bucket, '#' .. Q.feature) == Q.name
  return {Q.name, Q.number, Q.id, Q.feature, Q.paused and 1 or 0, default and 1 or 0, Q.settings, tonumber(h[1]),
    tonumber(Q.fields.ut or h[2]), Q.fields.e or h[3], call('ZCARD', Q.ready), call('ZCARD', Q.delayed), Q.running, Q[SUCCESS], Q[FAILED],
    Q[CANCEL], oldest_age(T, Q)}
end

local function create(T, bucket, name, feature, settings)
  local number = call('INCR', T.p .. 'seq')
  local b = T.p .. 'b:' .. bucket
  call('HSET', T.p .. 'q:' .. number, 'c', settings, 'x', pack(NUMBERS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 'b', bucket, 'n', name,
    'id', pack('>BI5I6I4', feature * 64 + T.partition, number, T.ms, T.us % 1000000), 'ct', num(T.ms), 'ut', num(T.ms), 'e', number .. '.1')
  call('HSET', b, name, number)
  call('HSETNX', b, '#' .. feature, name)
  call('ZADD', T.p .. 'n:' .. bucket, 0, name)
  call('PERSIST', T.p .. 'log:' .. bucket)
  T.names[bucket .. '/' .. name] = number
  T.queues[number] = nil
  return queue(T, number)
end

-- Settings or state have changed: another etag, another update time.
local function touch(T, Q)
  local e = call('HGET', Q.key, 'e')
  local number, count = e:match('^(%d+)%.(%d+)$')
  Q.fields.e, Q.fields.ut = number .. '.' .. num(count + 1), num(T.ms)
end

-- bucket, settings, then feature and default name by pairs -> the queues in that order.
register('activate', {}, function(T, A, i, n)
  local bucket, reply = A[i + 1], {0}
  for k = 3, n, 2 do
    local feature, name = tonumber(A[i + k]), A[i + k + 1]
    local default = call('HGET', T.p .. 'b:' .. bucket, '#' .. feature)
    local there = queue_named(T, bucket, name)
    if not default and there and there.feature ~= feature then
      return {PRECONDITION, 'the queue ' .. name .. ' is there already with another feature'}
    end
  end
  for k = 3, n, 2 do
    local feature, name = tonumber(A[i + k]), A[i + k + 1]
    local default = call('HGET', T.p .. 'b:' .. bucket, '#' .. feature)
    local Q = queue_named(T, bucket, default or name) or create(T, bucket, name, feature, A[i + 2])
    if not default then call('HSET', T.p .. 'b:' .. bucket, '#' .. feature, Q.name) end
    reply[#reply + 1] = queue_values(T, Q)
  end
  return reply
end)

-- bucket, name, feature, settings -> the queue.
register('queue_create', {}, function(T, A, i)
  local bucket, name = A[i + 1], A[i + 2]
  if queue_named(T, bucket, name) then return {ALREADY_EXISTS, 'a queue of this name is there already'} end
  local count = call('ZCARD', T.p .. 'n:' .. bucket)
  if count >= QUEUES_MAX then return {TOO_MANY, 'the bucket has as many queues as it may have', QUEUES_MAX, count} end
  return {0, queue_values(T, create(T, bucket, name, tonumber(A[i + 3]), A[i + 4]))}
end)

-- bucket, name -> the queue.
register('queue_get', {'no-writes'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  return {0, queue_values(T, Q)}
end)

-- bucket, after, count -> queues.
register('queue_list', {'no-writes'}, function(T, A, i)
  local reply, bucket, after = {0}, A[i + 1], A[i + 2]
  for _, name in ipairs(call('ZRANGEBYLEX', T.p .. 'n:' .. bucket, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, A[i + 3])) do
    local Q = queue_named(T, bucket, name)
    if Q then reply[#reply + 1] = queue_values(T, Q) end
  end
  return reply
end)

-- bucket, name, etag, then index (1 to 10, as in SETTINGS) and value by pairs -> the queue.
register('queue_update', {'allow-oom'}, function(T, A, i, n)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  if A[i + 3] ~= '' and A[i + 3] ~= call('HGET', Q.key, 'e') then return {CONFLICT, 'the etag is not the current one'} end
  local s = {unpack_struct(SETTINGS, Q.settings)}
  for k = 4, n, 2 do s[tonumber(A[i + k])] = tonumber(A[i + k + 1]) end
  if s[7] < s[6] then return {INVALID, 'max_backoff is shorter than min_backoff'} end
  use_settings(Q, pack(SETTINGS, unpack(s, 1, 10)))
  Q.fields.c = Q.settings
  Q.room, Q.changed = 0, true
  touch(T, Q)
  mark(T, 'R' .. Q.number, T.ms)
  offer(Q)
  return {0, queue_values(T, Q)}
end)

-- bucket, name, 1 to pause or 0 to resume -> the queue.
register('queue_pause', {'allow-oom'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local paused = A[i + 3] == '1'
  if paused ~= Q.paused then
    Q.paused, Q.changed = paused, true
    touch(T, Q)
    if not paused then offer(Q) end
  end
  return {0, queue_values(T, Q)}
end)

-- bucket, name -> how many. The waiting sets move to the trash in constant time; their jobs read as Cancel because they were put in line by
-- the boundary, a millisecond behind which whatever comes next begins.
register('queue_purge', {'allow-oom'}, function(T, A, i)
  local Q = queue_named(T, A[i + 1], A[i + 2])
  if not Q then return NO_QUEUE end
  local count = waiting_count(Q)
  if count > 0 then
    local boundary = max(T.ms, Q.last_ms)
    for _, set in ipairs({'ready:', 'delayed:'}) do
      local key = T.p .. set .. Q.number
      if call('EXISTS', key) == 1 then
        local trash = T.p .. 'trash:' .. set .. Q.number .. ':' .. num(boundary)
        call('RENAME', key, trash)
        call('RPUSH', T.p .. 'trash', 'J ' .. Q.number .. ' ' .. num(boundary) .. ' ' .. trash)
      end
    end
    Q.boundary, Q.last_ms, Q.last_seq = boundary, boundary + 1, 0
    Q.purge_ms, Q.changed = T.ms, true
  end
  return {0, count}
end)

-- bucket, name, force -> 0. The name is free at once; what the queue held goes to the trash.
register('queue_delete', {'allow-oom'}, function(T, A, i)
  local bucket, name, force = A[i + 1], A[i + 2], A[i + 3] == '1'
  local Q = queue_named(T, bucket, name)
  if not Q then return NO_QUEUE end
  if not force then
    if waiting_count(Q) > 0 then return {PRECONDITION, 'jobs are waiting in the queue'} end
    if Q.running > 0 then return {PRECONDITION, 'jobs of the queue are running'} end
    if Q.open > 0 then return {PRECONDITION, 'callbacks of the queue are still to be delivered'} end
  end
  local b = T.p .. 'b:' .. bucket
  call('HDEL', b, name)
  call('ZREM', T.p .. 'n:' .. bucket, name)
  if call('HGET', b, '#' .. Q.feature) == name then call('HDEL', b, '#' .. Q.feature) end
  if call('EXISTS', T.p .. 'n:' .. bucket) == 0 then
    -- The bucket's last queue: its log stays for whoever reads it yet.
    call('HDEL', b, '#w')
    call('EXPIRE', T.p .. 'log:' .. bucket, LOG_KEPT_S)
  end
  call('HDEL', Q.key, 'c')
  call('RPUSH', T.p .. 'trash', 'Q ' .. Q.number)
  if Q.wanted then publish(T, 'q ' .. T.partition .. ' ' .. Q.number) end
  T.names[bucket .. '/' .. name] = false
  T.queues[Q.number] = false
  return {0, 0}
end)

end
