-- Ends the time of those who share a result and whose time with it is over, and says whether any is left. If none
-- is, nobody can come to share it any more, and its object can be removed.
--
-- KEYS[1] root            writes shared, sharers:<key>, job:<id>, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] the result's key
-- ARGV[2] the most jobs to end
-- Reply   {jobs that have expired, 1 if none shares it any more}

local result_key = ARGV[1]
local now, ended = now_us(), 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', sharers_key(result_key), '-inf', int(now), 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', sharers_key(result_key), id)
  local job = redis.call('HMGET', job_key(id), 'state', 'user', 'result_key')
  if job[3] == result_key and may_move(job[1] or '', 'expired') then
    redis.call('HSET', job_key(id), 'state', 'expired', 'updated_us', int(now))
    redis.call('HDEL', job_key(id), 'result_key')
    call_back(id, 'expired', now)
    emit(id, 'expired', 'expired', now, 'user', job[2])
    ended = ended + 1
  end
end
local first = redis.call('ZRANGE', sharers_key(result_key), 0, 0, 'WITHSCORES')[2]
if not first then return {ended, 1} end
redis.call('ZADD', key('shared'), first, result_key)
return {ended, 0}
