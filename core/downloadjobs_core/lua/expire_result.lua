-- Marks a result as expired, after its object was removed.
--
-- KEYS[1] root            writes expiring, job:<id>, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] job id
-- Reply   1, or 0 if the job has no result any more

local id = ARGV[1]
redis.call('ZREM', key('expiring'), id)
local job = redis.call('HMGET', job_key(id), 'state', 'user')
if not may_move(job[1] or '', 'expired') then return 0 end
local now = now_us()
redis.call('HSET', job_key(id), 'state', 'expired', 'updated_us', int(now))
redis.call('HDEL', job_key(id), 'result_key')
call_back(id, 'expired', now)
emit(id, 'expired', 'expired', now, 'user', job[2])
return 1
