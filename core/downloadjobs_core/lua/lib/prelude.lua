-- Stands before every script: names of keys, the clock, the table of transitions, events.
--
-- KEYS[1] is the queue's root, `{downloadjobs}`: a hash tag, so that every key derived from it
-- lies in one slot of Redis Cluster. Times are microseconds since 1970 by TIME, the only clock.
-- They are formatted with %.0f, because concatenation turns 16 digits into an exponent.

local root = KEYS[1]
local READY_SCAN = 16          -- entries without a job that one pop may skip
local WAKE_LIMIT = 1024        -- tokens in the wake list; more than slots that could idle at once
local EVENTS_LIMIT = 100000    -- events kept in the stream, about; a reader further behind resyncs
local PRIORITIES = {'high', 'normal', 'low'}
local ALLOWED = {--@transitions@--}

local function key(name) return root .. ':' .. name end
local function job_key(id) return root .. ':job:' .. id end
local function ready_key(priority) return root .. ':ready:' .. priority end
local function int(number) return string.format('%.0f', number) end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function may_move(from, to)
  return ALLOWED[from] ~= nil and ALLOWED[from][to] == true
end

local function illegal(id, from, to)
  return redis.error_reply('ILLEGALTRANSITION job ' .. id .. ': ' .. tostring(from) .. ' to ' .. to)
end

-- Compared for equality, never by order: a wiped Redis must not accept an old token (design: fencing).
local function holds(id, token)
  return token ~= '' and redis.call('HGET', job_key(id), 'token') == token
end

-- True when this very attempt ended the job's lease before: its reply was lost and the call came again.
local function ended_by(id, token)
  return token ~= '' and redis.call('HGET', job_key(id), 'ended_token') == token
end

-- Takes the lease from the attempt that holds it, and remembers which one that was.
local function release(id, token)
  redis.call('HSET', job_key(id), 'ended_token', token)
  redis.call('HDEL', job_key(id), 'token')
  redis.call('ZREM', key('leased'), id)
end

local function wake()
  redis.call('LPUSH', key('wake'), '1')
  redis.call('LTRIM', key('wake'), 0, WAKE_LIMIT - 1)
end

-- A job's change, for the operator, streams to clients, and webhooks.
local function emit(id, kind, state, now, ...)
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_LIMIT, '*',
    'job', id, 'kind', kind, 'state', state, 'at_us', int(now), ...)
end

-- Puts a job where a pop finds it, at the place its first submission gave it.
local function make_ready(id, now)
  local fields = redis.call('HMGET', job_key(id), 'priority', 'score')
  redis.call('ZADD', ready_key(fields[1] or 'normal'), fields[2] or int(now), id)
  wake()
end
