-- Accepts a job: its hash and its queue entry, or neither. Submitting an id twice changes nothing.
--
-- KEYS[1] root            writes job:<id>, ready:<priority>, user:<user>:jobs, wake, events, epoch
-- ARGV[1] job id          ARGV[2] user          ARGV[3] priority
-- ARGV[4..] pairs of field and value for the job's hash
-- Reply   {1, jobs ahead, jobs running, mean service time in us or ''}, or {0, state, user} if it exists

local id, user, priority = ARGV[1], ARGV[2], ARGV[3]
local existing = redis.call('HMGET', job_key(id), 'state', 'user')
if existing[1] then return {0, existing[1], existing[2]} end

local now = now_us()
redis.call('SET', key('epoch'), int(now), 'NX')
redis.call('HSET', job_key(id), 'id', id, 'user', user, 'priority', priority, 'state', 'queued',
  'created_us', int(now), 'updated_us', int(now), 'score', int(now),
  'attempt', 0, 'failures', 0, 'deliveries', 0, 'files_done', 0, 'bytes_done', 0)
if #ARGV > 3 then redis.call('HSET', job_key(id), unpack(ARGV, 4)) end
redis.call('ZADD', key('user:' .. user .. ':jobs'), int(now), id)

local ahead = 0
for _, class in ipairs(PRIORITIES) do
  ahead = ahead + redis.call('ZCARD', ready_key(class))
  if class == priority then break end
end
make_ready(id, now)
emit(id, 'queued', 'queued', now, 'user', user)
return {1, ahead, redis.call('ZCARD', key('leased')), redis.call('HGET', key('stats'), 'service_us') or ''}
