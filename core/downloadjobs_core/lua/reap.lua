-- Takes back jobs whose lease ran out: to the front of their class, or, after too many deliveries, dead.
--
-- KEYS[1] root            writes leased, job:<id>, ready:<priority>, dead, wake, events
-- ARGV[1] the most jobs to take back
-- ARGV[2] deliveries without an outcome after which a job is a dead letter
-- ARGV[3] seconds the record of a dead job is kept
-- Reply   {jobs made ready, dead letters}

local now = now_us()
local expired = redis.call('ZRANGEBYSCORE', key('leased'), '-inf', int(now), 'LIMIT', 0, ARGV[1])
local back, dead = 0, 0
for _, id in ipairs(expired) do
  redis.call('ZREM', key('leased'), id)
  local job = redis.call('HMGET', job_key(id), 'state', 'deliveries')
  if job[1] == 'processing' then
    redis.call('HDEL', job_key(id), 'token', 'worker')
    if tonumber(job[2] or '0') >= tonumber(ARGV[2]) then
      redis.call('HSET', job_key(id), 'state', 'failed', 'finished_us', int(now), 'updated_us', int(now),
        'error_code', 'dead-letter',
        'error_message', 'Its worker was lost ' .. job[2] .. ' times without an outcome.')
      redis.call('ZADD', key('dead'), int(now), id)
      redis.call('EXPIRE', job_key(id), ARGV[3])
      emit(id, 'dead', 'failed', now, 'error_code', 'dead-letter')
      dead = dead + 1
    else
      redis.call('HSET', job_key(id), 'state', 'queued', 'updated_us', int(now), 'files_done', 0, 'bytes_done', 0)
      make_ready(id, now)
      emit(id, 'lease_expired', 'queued', now, 'deliveries', job[2] or '0')
      back = back + 1
    end
  end
end
return {back, dead}
