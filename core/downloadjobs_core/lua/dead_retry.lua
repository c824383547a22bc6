-- Queues a dead letter again, with its counts begun anew.
--
-- KEYS[1] root            writes dead, job:<id>, timeline:<id>, waiting*, ready:<priority>, wake, events, history:<id>
-- ARGV[1] job id
-- Reply   1, or 0 if it is no dead letter

local id = ARGV[1]
if redis.call('ZREM', key('dead'), id) == 0 then return 0 end
local job = redis.call('HMGET', job_key(id), 'state', 'user', 'created_us')
if not job[1] then return 0 end
if not may_move(job[1], 'queued') then return illegal(id, job[1], 'queued') end

local now = now_us()
redis.call('PERSIST', job_key(id))
redis.call('PERSIST', key('timeline:' .. id))
note(id, 'requeued ' .. int(now))
redis.call('HSET', job_key(id), 'state', 'queued', 'updated_us', int(now), 'failures', 0, 'deliveries', 0,
  'files_done', 0, 'bytes_done', 0)
redis.call('HDEL', job_key(id), 'finished_us', 'error_code', 'error_message')
begin_waiting(id, job[2], job[3])
make_ready(id, now)
emit(id, 'queued', 'queued', now, 'user', job[2])
return 1
