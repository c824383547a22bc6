-- Stands before every script: names of keys, the clock, the table of transitions, and the moves
-- that several scripts share.
--
-- KEYS[1] is the queue's root, `{downloadjobs}`: a hash tag, so that every key derived from it
-- lies in one slot of Redis Cluster. Times are microseconds since 1970 by TIME, the only clock.
-- What a script costs is mostly the number of its calls, so reads and writes of one key are one call.
-- They are formatted with %.0f, because concatenation turns 16 digits into an exponent.
--
-- What is one of a kind stands in the hash `queue`: the last token, the epoch, each class' virtual time,
-- the running means of service time, files and estimates' error, the slots of all workers and until when they
-- count, and when each maintenance task ran last.
--
-- Where a job waits is its field `place`: ready, parked, delayed, joined or suspended; leased while an
-- attempt holds it; empty when it has ended. docs/queue.md has the whole picture.

local root = KEYS[1]
local WAKE_LIMIT = 1024        -- tokens in the wake list; more than slots that could idle at once
local EVENTS_LIMIT = 100000    -- events kept in the stream, about; a reader further behind resyncs
local TIMELINE_LIMIT = 2000    -- entries of one job's timeline; docs/timeline.md
local OWN_EVENTS_LIMIT = 100   -- events kept of each job, progress not counted
local OWN_EVENTS_SECONDS = 604800      -- since the first of them, while the job goes on
local PROGRESS = {'files_done', 'files_total', 'files_failed', 'bytes_done', 'bytes_total'}
local FIRST_SERVICE_US = 10000000   -- what a job is taken to last before one has ended
local NEWEST_WEIGHT = 1 / 8    -- of the newest value in a running mean
local LOOK_AGAIN_US = 60000000      -- when those who wait for another's result are looked at, if nothing wakes them
local GO_ON_US = 3600000000         -- when one goes on whatever happens, also in a release that knows of no joining
local BATCH_US = 3600000000         -- between two runs of a batched task, as each may wake a sleeping pool of workers
local WOKEN = 16               -- of those who wait for a result, how many go on at once when it is there
local PRIORITIES = {'high', 'normal', 'low'}
local ALLOWED = {--@transitions@--}

local function key(name) return root .. ':' .. name end
local function job_key(id) return root .. ':job:' .. id end
local function history_key(id) return root .. ':history:' .. id end
local function int(number) return string.format('%.0f', number) end
local function ready_key(priority) return key('ready:' .. priority) end
local function parked_key(user, priority) return key('parked:' .. priority .. ':' .. user) end

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

-- Compared for equality, never by order: a wiped Redis must not accept an old token.
local function holds(id, token)
  return token ~= '' and redis.call('HGET', job_key(id), 'token') == token
end

-- True when this very attempt ended the job's lease before: its reply was lost and the call came again.
local function ended_by(id, token)
  return token ~= '' and redis.call('HGET', job_key(id), 'ended_token') == token
end

-- Tells of a job's change: the operator, streams to clients, and webhooks. Called once its record is written,
-- from which it takes how far the job is. The record keeps the event's id: whoever reads it knows which events it
-- shows. All but progress, of which only the last matters, stands in a list of the job's own too, for clients that
-- come back: each as JSON, its id and then its fields, without what is the job's for ever. (A stream would take
-- 4 kB for each job.) It goes with the record, and without it they begin anew.
local function emit(id, kind, state, now, ...)
  local fields = {'job', id, 'kind', kind, 'state', state, 'at_us', int(now), ...}
  local job = redis.call('HMGET', job_key(id), 'reader', unpack(PROGRESS))
  if job[1] then fields[#fields + 1], fields[#fields + 2] = 'reader', job[1] end
  for i, name in ipairs(PROGRESS) do
    fields[#fields + 1], fields[#fields + 2] = name, job[i + 1] or '0'
  end
  local entry = redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_LIMIT, '*', unpack(fields))
  redis.call('HSET', job_key(id), 'event', entry)
  if kind == 'progress' then return end
  local own = {entry}
  for i = 3, #fields, 2 do
    if fields[i] ~= 'user' and fields[i] ~= 'reader' then
      own[#own + 1], own[#own + 2] = fields[i], tostring(fields[i + 1])
    end
  end
  local length = redis.call('RPUSH', history_key(id), cjson.encode(own))
  if length > OWN_EVENTS_LIMIT then redis.call('LTRIM', history_key(id), -OWN_EVENTS_LIMIT, -1) end
  if length == 1 then
    local left = redis.call('TTL', job_key(id))
    redis.call('EXPIRE', history_key(id), left > 0 and left or OWN_EVENTS_SECONDS)
  end
end

-- What passed between two times; nothing, if the clock was set back meanwhile.
local function since(begun_us, now) return math.max(0, now - tonumber(begun_us or now)) end

-- A running mean of what is never negative, after one more value; `old` is false before the first.
local function mean(old, value)
  old = math.max(0, tonumber(old or value))
  return string.format('%.6f', old + (value - old) * NEWEST_WEIGHT)
end

local function count(name, user, by)
  if redis.call('HINCRBY', key(name), user, by) <= 0 then redis.call('HDEL', key(name), user) end
end

local function wake()
  if redis.call('LPUSH', key('wake'), '1') > WAKE_LIMIT then
    redis.call('LTRIM', key('wake'), 0, WAKE_LIMIT - 1)
  end
end

-- Orders a run of a maintenance task, unless one is ordered for sooner.
local function order(task, due_us) redis.call('ZADD', key('maintenance'), 'LT', int(due_us), task) end

-- Orders a run of a task that does all that there is to do then: not before the time has come for some of it, nor soon
-- after its last run.
local function order_batched(task, due_us, now)
  local last = tonumber(redis.call('HGET', key('queue'), 'ran:' .. task) or 0)
  order(task, math.max(due_us, math.min(last, now) + BATCH_US))
end

-- The slots of all workers: their sum as the last of them wrote it, until the last of their leases has run out.
local function slots_of(slots, until_us, now)
  if until_us and tonumber(until_us) <= now then return 0 end
  return tonumber(slots or 0)
end

-- Counts the slots anew. Workers whose lease ran out are gone.
local function count_slots(now)
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', int(now), 'LIMIT', 0, 100)) do
    redis.call('ZREM', key('workers'), worker)
    redis.call('HDEL', key('slots'), worker)
  end
  local slots = 0
  for _, number in ipairs(redis.call('HVALS', key('slots'))) do slots = slots + tonumber(number) end
  local last = redis.call('ZRANGE', key('workers'), -1, -1, 'WITHSCORES')[2]
  redis.call('HSET', key('queue'), 'slots', slots, 'slots_until', last or int(now))
  return slots
end

-- A ready job's name in its set. The time of its submission stands before its id, so that jobs of
-- one score go in the order they came; an id alone would let an unlucky one be overtaken for ever.
local function entry_of(id, created_us) return string.format('%016.0f:%s', tonumber(created_us), id) end
local function id_of(entry) return string.sub(entry, 18) end

-- Lets the first of a user's parked jobs be popped again.
local function unpark(user)
  if redis.call('ZCARD', key('parked')) == 0 then return end
  for _, priority in ipairs(PRIORITIES) do
    local first = redis.call('ZPOPMIN', parked_key(user, priority))
    if first[1] then
      local id = id_of(first[1])
      redis.call('ZREM', key('parked'), id)
      redis.call('ZADD', ready_key(priority), first[2], first[1])
      redis.call('HSET', job_key(id), 'place', 'ready')
      wake()
      return
    end
  end
end

-- Puts a waiting job where a pop finds it, at the place its submission gave it; a suspended one aside.
local function make_ready(id, now)
  local job = redis.call('HMGET', job_key(id), 'priority', 'score', 'created_us', 'suspended')
  if job[4] == '1' then
    redis.call('ZADD', key('suspended'), int(now), id)
    redis.call('HSET', job_key(id), 'place', 'suspended')
    return
  end
  redis.call('ZADD', ready_key(job[1]), job[2], entry_of(id, job[3]))
  redis.call('HSET', job_key(id), 'place', 'ready')
  wake()
end

local function begin_waiting(id, user, created_us)
  if redis.call('ZADD', key('waiting'), created_us, id) == 1 then count('waiting_by_user', user, 1) end
end

local function end_waiting(id, user)
  if redis.call('ZREM', key('waiting'), id) == 1 then count('waiting_by_user', user, -1) end
end

-- Single flight (docs/deduplication.md). `flights` says which attempt makes the result of a digest: its token and
-- job, written as an entry is. It counts only while that attempt holds its job, so a lost one holds up nobody.
local function flight_is_held(digest)
  local holder = redis.call('HGET', key('flights'), digest)
  return holder and holds(id_of(holder), string.sub(holder, 1, 16)) and id_of(holder)
end

local function sharers_key(result_key) return key('sharers:' .. result_key) end

-- The result that is there for a digest: key, bytes and ETag; or nil. One that nobody points to any more is none:
-- its object is being removed.
local function offered(digest)
  local found = redis.call('HMGET', key('result:' .. digest), 'key', 'bytes', 'etag')
  if found[1] and redis.call('EXISTS', sharers_key(found[1])) == 1 then return found end
  return nil
end

-- Lets a job wait no longer for another's result.
local function unjoin(id, digest)
  redis.call('ZREM', key('joined:' .. digest), id)
  redis.call('ZREM', key('joined'), id)
  redis.call('ZREM', key('delayed'), id)
  if redis.call('EXISTS', key('joined:' .. digest)) == 0 then redis.call('ZREM', key('followed'), digest) end
end

-- Makes the first of those ready who wait for a digest's result.
local function wake_joined(digest, most, now)
  local moved = 0
  for _ = 1, 2 * WOKEN do
    local id = redis.call('ZRANGE', key('joined:' .. digest), 0, 0)[1]
    if not id or moved == most then return end
    local job = redis.call('HMGET', job_key(id), 'place', 'digest')
    unjoin(id, digest)
    if job[1] == 'joined' and job[2] == digest then
      make_ready(id, now)
      moved = moved + 1
    end
  end
end

-- How many of them shall go on when nobody makes it: some if it is there, each of whom wakes the next (finish.lua);
-- one if it is not, who will make it.
local function to_wake(digest) return offered(digest) and WOKEN or 1 end

-- Ends the flight of an attempt that made a result, or did not; those who wait for it go on.
local function land(id)
  local digest = redis.call('HGET', job_key(id), 'digest')
  local holder = redis.call('HGET', key('flights'), digest)
  if not holder or id_of(holder) ~= id then return end
  redis.call('HDEL', key('flights'), digest)
  wake_joined(digest, to_wake(digest), now_us())
end

-- Ends a job's time with a result that it shares, now; false if it shares it not. What follows is done in `soon` us.
local function give_up_share(id, result_key, now, soon)
  if not redis.call('ZSCORE', sharers_key(result_key), id) then return false end
  redis.call('ZADD', sharers_key(result_key), int(now), id)
  redis.call('ZADD', key('shared'), int(now), result_key)
  order('expire-shared', now + soon)
  return true
end

-- Takes a waiting job out of the set it waits in. A ready one lets a parked one go in its stead: the pop of
-- the first, which will never come now, would have done so, and there may be no running one whose end does.
local function take_out(id)
  local job = redis.call('HMGET', job_key(id), 'place', 'priority', 'user', 'created_us')
  local place, entry = job[1], entry_of(id, job[4] or 0)
  if place == 'ready' then
    redis.call('ZREM', ready_key(job[2]), entry)
    unpark(job[3])
  elseif place == 'parked' then
    redis.call('ZREM', parked_key(job[3], job[2]), entry)
    redis.call('ZREM', key('parked'), id)
  elseif place == 'joined' then
    unjoin(id, redis.call('HGET', job_key(id), 'digest'))
  elseif place == 'delayed' or place == 'suspended' then
    redis.call('ZREM', key(place), id)
  end
end

-- Corrects what a user was charged at submission by what an attempt really took (fair queuing).
-- The caller sets `charged_us` to 0: later attempts are charged in full.
local function settle(user, priority, charged_us, leased_us, now, virtual)
  local owed = since(leased_us, now) - tonumber(charged_us or 0)
  virtual = tonumber(virtual or redis.call('HGET', key('queue'), 'virtual:' .. priority) or 0)
  local finish = tonumber(redis.call('ZSCORE', key('finish:' .. priority), user) or virtual) + owed
  if finish > virtual then
    redis.call('ZADD', key('finish:' .. priority), int(finish), user)
  else
    redis.call('ZREM', key('finish:' .. priority), user)
  end
end

-- Notes what happened to a job beside its record, which knows only the newest; the oldest entries go first.
-- core/downloadjobs_core/timeline.py reads them.
local function note(id, entry)
  local over = redis.call('RPUSH', key('timeline:' .. id), entry) - TIMELINE_LIMIT
  if over > 0 then
    redis.call('LTRIM', key('timeline:' .. id), over, -1)
    redis.call('HINCRBY', job_key(id), 'timeline_omitted', over)
  end
end

-- What an attempt tells of itself, as text of one line a stage; '' for nothing.
local function note_stages(id, token, stages)
  if stages ~= '' then note(id, 'stages ' .. token .. '\n' .. stages) end
end

-- Has a job's record, and what stands beside it, go after so many seconds.
local function keep_for(id, seconds)
  redis.call('EXPIRE', job_key(id), seconds)
  redis.call('EXPIRE', history_key(id), seconds)
  redis.call('EXPIRE', key('timeline:' .. id), seconds)
end

-- Takes the lease from whoever holds it, and adds what the attempt took to what all of them did: its time
-- until `ended_us`, and the bytes that it was done with: by default what the record says. The caller sets `place`, and `ended_token` where
-- the attempt itself ended it; what it was done with must still stand in the hash. `how` is the attempt's
-- end, as the timeline shows it, and `code` why; by default what the record says. One that was to make a
-- result others wait for lets those go on.
local function release(id, user, ended_us, how, code, bytes)
  local held = redis.call('HMGET', job_key(id), 'token', 'attempt', 'leased_us', 'worker', 'error_code', 'bytes_done',
    'builds')
  code = code or held[5] or ''
  note(id, table.concat({'attempt', held[1] or '', held[2] or 0, held[3] or 0, int(ended_us), how,
    code == '' and '-' or code, held[4] or ''}, ' '))
  redis.call('HINCRBY', job_key(id), 'worker_us', int(since(held[3], ended_us)))
  redis.call('HINCRBY', job_key(id), 'worker_bytes', bytes or held[6] or 0)
  redis.call('HDEL', job_key(id), 'token', 'worker', 'holder', 'builds')
  redis.call('ZREM', key('leased'), id)
  count('running_by_user', user, -1)
  unpark(user)
  if held[7] then land(id) end           -- only who makes a shared result has `builds`
end

-- When a lease ended that its holder did not end by itself: now, or when it ran out, if that was before.
-- Nobody worked between then and when it was noticed.
local function end_of_lease(id, now)
  return math.min(now, tonumber(redis.call('ZSCORE', key('leased'), id) or now))
end

-- Where a waiting job stands: its place, jobs before it, us until it starts, how far past estimates were off
-- (1 is as much as the wait itself), and the mean service time in us, as texts; nil if it does not wait.
-- Only `ready` has numbers of its own.
local function place_of(id)
  local job = redis.call('HMGET', job_key(id), 'place', 'priority', 'created_us')
  local place = job[1]
  if not place or place == '' or place == 'leased' then return nil end
  local queue = redis.call('HMGET', key('queue'), 'eta_error', 'service_us', 'slots', 'slots_until')
  local off, service = string.format('%.3f', tonumber(queue[1] or 0)), tonumber(queue[2] or FIRST_SERVICE_US)
  if place ~= 'ready' then return {place, 0, 0, off, int(service)} end

  local ahead = redis.call('ZRANK', ready_key(job[2]), entry_of(id, job[3])) or 0
  for _, class in ipairs(PRIORITIES) do
    if class == job[2] then break end
    ahead = ahead + redis.call('ZCARD', ready_key(class))
  end
  local slots = math.max(1, slots_of(queue[3], queue[4], now_us()))
  return {place, ahead, int(ahead / slots * service), off, int(service)}
end

-- Has the storage swept for what a lost attempt may have left, once its uploads can have ended. A sweep that
-- is due before stays; one that is due later (after a wipe it is two days) does not hold this one up.
local function sweep_later(now, after_us)
  order('sweep-orphans', now + after_us)
end

-- What a call to a job's callback URL tells: copied, so that every try tells the same, whatever becomes of the job.
local TOLD = {'user', 'callback_url', 'callback_origin', 'created_us', 'finished_us', 'expires_us', 'total_file_ids',
  'files_total', 'files_failed', 'result_bytes', 'error_code', 'error_message', 'traceparent'}

local function webhook_key(call) return key('webhook:' .. call) end

local function wake_couriers()
  redis.call('LPUSH', key('webhooks:wake'), '1')
  redis.call('LTRIM', key('webhooks:wake'), 0, WAKE_LIMIT - 1)
end

-- Queues the call to a job's callback URL, if it has one, in the change of state that it tells of: neither is
-- there without the other. To be called after the change. docs/webhooks.md says what becomes of it.
local function call_back(id, state, now)
  if redis.call('HEXISTS', job_key(id), 'callback_url') == 0 then return end
  local call = 'msg_' .. id .. '_' .. int(now)
  local fields = {'id', call, 'job', id, 'state', state, 'at_us', int(now), 'attempts', 0}
  for number, value in ipairs(redis.call('HMGET', job_key(id), unpack(TOLD))) do
    if value then
      fields[#fields + 1] = TOLD[number]
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', webhook_key(call), unpack(fields))
  redis.call('ZADD', key('webhooks'), int(now), call)
  redis.call('HDEL', job_key(id), 'callback_status', 'callback_error')
  redis.call('HSET', job_key(id), 'callback_id', call, 'callback_event', state, 'callback_state', 'pending',
    'callback_attempts', 0, 'callback_due_us', int(now))
  wake_couriers()
end

-- Writes into a job's hash how the call that tells of its newest change goes.
local function note_call(call, id, ...)
  if redis.call('HGET', job_key(id), 'callback_id') == call then redis.call('HSET', job_key(id), ...) end
end

-- Calls whose time has come wait in lanes, one of each user and receiver, by the time of what they tell. A user's
-- lanes are in `webhooks:lanes:<user>`, by when each has its turn, and users with lanes in `webhooks:turns`, by when
-- they have theirs. So each call that waits is found again by time; what ends a try only makes it sooner.
local function lanes_key(user) return key('webhooks:lanes:' .. user) end
local function lane_key(user, origin) return key('webhooks:lane:' .. user .. ' ' .. origin) end

-- Ends a try, so that another call of its user may be sent.
local function end_try(call, user, now)
  redis.call('ZREM', key('webhooks:sending'), call)
  count('webhooks:sending_by_user', user, -1)
  if redis.call('ZADD', key('webhooks:turns'), 'XX', 'LT', 'CH', int(now), user) == 1 then wake_couriers() end
end

-- Ends a call for good: `delivered`, or `failed`.
local function end_call(call, id, verdict)
  redis.call('DEL', webhook_key(call))
  redis.call('ZREM', key('webhooks'), call)
  note_call(call, id, 'callback_state', verdict, 'callback_due_us', 0)
end

-- Cancels a job that has not ended, wherever it is; an attempt under way loses its token at once. The job's
-- record is kept for `keep` seconds, and what an attempt may have left is swept after `sweep_us`.
local function cancel(id, now, code, message, keep, sweep_us)
  local job = redis.call('HMGET', job_key(id), 'user', 'token', 'priority', 'charged_us', 'leased_us')
  if job[2] then
    sweep_later(now, sweep_us)
    settle(job[1], job[3], job[4], job[5], now)
    release(id, job[1], end_of_lease(id, now), 'cancelled', code)
  else
    take_out(id)
    end_waiting(id, job[1])
  end
  redis.call('HSET', job_key(id), 'state', 'cancelled', 'place', '', 'finished_us', int(now),
    'updated_us', int(now), 'error_code', code, 'error_message', message)
  redis.call('HDEL', job_key(id), 'due_us')
  keep_for(id, keep)
  call_back(id, 'cancelled', now)
  emit(id, 'cancelled', 'cancelled', now, 'user', job[1], 'error_code', code)
end
