-- Leases the next ready job: the highest class first, then the place in it.
--
-- KEYS[1] root            reads and writes ready:<priority>, job:<id>, leased, token, events
-- ARGV[1] worker          who takes it, shown to users
-- ARGV[2] lease in us     until when it is this worker's without a renewal
-- Reply   the job's hash as a flat list of field and value (with its new token), or nil if none is ready

local worker, lease = ARGV[1], tonumber(ARGV[2])
local now = now_us()
local id, job, skipped = nil, nil, 0
for _, class in ipairs(PRIORITIES) do
  repeat
    local first = redis.call('ZPOPMIN', ready_key(class))
    id = first[1]
    if id then
      job = redis.call('HMGET', job_key(id), 'state', 'failures', 'deliveries', 'started_us')
      if not may_move(job[1] or '', 'processing') then
        id, skipped = nil, skipped + 1
        if skipped >= READY_SCAN then return nil end
      end
    end
  until id or not first[1]
  if id then break end
end
if not id then return nil end

local last = tonumber(redis.call('GET', key('token')) or '0')
local token = int(math.max(last + 1, now))
redis.call('SET', key('token'), token)
local attempt = tonumber(job[2] or '0') + 1
redis.call('HSET', job_key(id), 'state', 'processing', 'token', token, 'worker', worker,
  'attempt', attempt, 'deliveries', tonumber(job[3] or '0') + 1,
  'started_us', job[4] or int(now), 'leased_us', int(now), 'updated_us', int(now),
  'files_done', 0, 'bytes_done', 0)
redis.call('HDEL', job_key(id), 'due_us')
redis.call('ZADD', key('leased'), int(now + lease), id)
emit(id, 'started', 'processing', now, 'attempt', attempt, 'worker', worker)
return redis.call('HGETALL', job_key(id))
