-- Gives up a job's share in a result whose removal was asked for as if it were the job's own: by a process of a
-- release that shares none.
--
-- KEYS[1] root            writes expiring, shared, sharers:<key>, maintenance, job:<id>
-- ARGV[1] job id
-- Reply   1, or 0 if the job shares no result

local id = ARGV[1]
redis.call('ZREM', key('expiring'), id)
local result_key = redis.call('HGET', job_key(id), 'result_key')
return result_key and give_up_share(id, result_key, now_us(), 0) and 1 or 0
