-- Leases what comes next: maintenance that is due, else the first ready job of the highest class.
--
-- A job whose user runs as many as allowed is parked, and returns when one of them ends. A process that is
-- fenced, because it shall be removed (fence.lua), gets nothing.
--
-- A call whose answer was lost leased a job to nobody. It comes again under its id, and gets the same lease.
--
-- KEYS[1] root            reads and writes ready:<priority>, parked*, maintenance, job:<id>, leased, queue,
--                         finish:<priority>, waiting*, running_by_user, fenced, popped:<call>, events,
--                         history:<id>
-- ARGV[1] worker          who takes it, shown to users
-- ARGV[2] lease in us     until when it is this worker's without a renewal
-- ARGV[3] jobs that one user may run at once
-- ARGV[4] holder          which process takes it: in Kubernetes its pod's uid
-- ARGV[5] call            its id, or ''
-- Reply   the job's hash as a flat list of field and value (with its new token), or nil if none is ready

local MOVES = 64               -- jobs that one pop parks or skips, so that Redis is never blocked for long
local ORDERED_AGAIN_US = 60000000      -- when a maintenance task that runs is looked at again
local worker, lease, limit, holder = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now = now_us()
local call = ARGV[5] ~= '' and key('popped:' .. ARGV[5])
local before = call and redis.call('GET', call)
if before then
  local token, id = string.match(before, '^(%S+) (.+)$')
  if holds(id, token) then
    redis.call('ZADD', key('leased'), 'XX', int(now + lease), id)
    return redis.call('HGETALL', job_key(id))
  end
end
if tonumber(redis.call('ZSCORE', key('fenced'), holder) or 0) > now then return nil end

-- A token is larger than every one before it, and than those of a Redis that was wiped.
local function next_token(last) return int(math.max(tonumber(last or 0) + 1, now)) end

local function lease_to(id, token, ...)
  redis.call('HSET', job_key(id), 'state', 'processing', 'place', 'leased', 'token', token,
    'worker', worker, 'holder', holder, 'leased_us', int(now), 'updated_us', int(now), ...)
  redis.call('ZADD', key('leased'), int(now + lease), id)
  if call then redis.call('SET', call, token .. ' ' .. id, 'PX', math.ceil(lease / 1000)) end
end

local task = redis.call('ZRANGEBYSCORE', key('maintenance'), '-inf', int(now), 'LIMIT', 0, 1)[1]
if task and redis.call('ZSCORE', key('leased'), task) then
  -- It runs now, and was ordered again meanwhile: that is for after its end.
  redis.call('ZADD', key('maintenance'), int(now + ORDERED_AGAIN_US), task)
elseif task then
  redis.call('ZREM', key('maintenance'), task)
  local token = next_token(redis.call('HGET', key('queue'), 'token'))
  redis.call('HSET', key('queue'), 'token', token, 'ran:' .. task, int(now))
  lease_to(task, token, 'id', task, 'kind', 'maintenance', 'user', '')
  return redis.call('HGETALL', job_key(task))
end

local moves = 0
for _, priority in ipairs(PRIORITIES) do
  while moves < MOVES do
    local first = redis.call('ZPOPMIN', ready_key(priority))
    local entry, score = first[1], first[2]
    if not entry then break end
    local id = id_of(entry)
    local job = redis.call('HMGET', job_key(id), 'state', 'user', 'failures', 'deliveries', 'started_us',
      'created_us', 'expected_wait_us')
    local user, running = job[2], 0
    if not may_move(job[1] or '', 'processing') then
      moves = moves + 1        -- its record is gone: nothing is left to do
      redis.call('ZREM', key('waiting'), id)
    else
      running = redis.call('HINCRBY', key('running_by_user'), user, 1)
      if running > limit then
        moves = moves + 1
        redis.call('HINCRBY', key('running_by_user'), user, -1)
        redis.call('ZADD', parked_key(user, priority), score, entry)
        redis.call('ZADD', key('parked'), int(now), id)
        redis.call('HSET', job_key(id), 'place', 'parked')
      else
        local virtual = 'virtual:' .. priority
        local queue = redis.call('HMGET', key('queue'), 'token', virtual, 'eta_error')
        local token = next_token(queue[1])
        local moved, error = queue[2] or '0', queue[3] or '0'
        if tonumber(score) > tonumber(moved) then
          moved = score
          redis.call('ZREMRANGEBYSCORE', key('finish:' .. priority), '-inf', score)
        end
        if not job[5] then
          local waited = since(job[6], now)
          error = mean(queue[3], math.abs(waited - tonumber(job[7] or 0)) / math.max(waited, 1000000))
        end
        redis.call('HSET', key('queue'), 'token', token, virtual, moved, 'eta_error', error)
        local attempt = tonumber(job[3] or 0) + 1
        lease_to(id, token, 'attempt', attempt, 'deliveries', tonumber(job[4] or 0) + 1,
          'started_us', job[5] or int(now), 'files_done', 0, 'bytes_done', 0)
        if job[1] == 'retrying' then redis.call('HDEL', job_key(id), 'due_us') end
        end_waiting(id, user)
        if running < limit then unpark(user) end
        emit(id, 'started', 'processing', now, 'user', user, 'attempt', attempt, 'worker', worker)
        return redis.call('HGETALL', job_key(id))
      end
    end
  end
end
if moves >= MOVES then wake() end      -- there may be more behind what was moved
return nil
