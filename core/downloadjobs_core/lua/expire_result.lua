-- Marks a result as expired, after its object was removed. If the job's record is gone, which alone said where that is,
-- a sweep finds it.
--
-- KEYS[1] root            writes expiring, job:<id>, maintenance, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] job id          ARGV[2] us until that sweep
-- Reply   1, or 0 if the job has no result any more

local id = ARGV[1]
redis.call('ZREM', key('expiring'), id)
local job = redis.call('HMGET', job_key(id), 'state', 'user')
local now = now_us()
if not job[1] then sweep_later(now, tonumber(ARGV[2])) end
if not may_move(job[1] or '', 'expired') then return 0 end
redis.call('HSET', job_key(id), 'state', 'expired', 'updated_us', int(now))
redis.call('HDEL', job_key(id), 'result_key')
call_back(id, 'expired', now)
emit(id, 'expired', 'expired', now, 'user', job[2])
return 1
