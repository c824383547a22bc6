-- Takes back jobs whose lease ran out: to the front of their class, or, after too many deliveries, dead.
--
-- KEYS[1] root            writes leased, job:<id>, timeline:<id>, running_by_user, parked*, waiting*,
--                         ready:<priority>, suspended, dead, maintenance, wake, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] the most jobs to take back
-- ARGV[2] deliveries without an outcome after which a job is a dead letter
-- ARGV[3] seconds the record of a dead job is kept
-- ARGV[4] us after which what a lost attempt left is swept
-- ARGV[5] a lease in us
-- Reply   {jobs made ready, dead letters}

local now = now_us()
redis.call('ZREMRANGEBYSCORE', key('dead'), '-inf', int(now - 1000000 * tonumber(ARGV[3])))   -- as their records
-- After the clock was set back, leases seem to last: those that nobody renews run out as if they were made now.
local ahead = redis.call('ZRANGEBYSCORE', key('leased'), int(now + 2 * tonumber(ARGV[5])), '+inf', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ahead) do redis.call('ZADD', key('leased'), 'XX', int(now + tonumber(ARGV[5])), id) end
local expired = redis.call('ZRANGEBYSCORE', key('leased'), '-inf', int(now), 'LIMIT', 0, ARGV[1])
local back, dead = 0, 0
for _, id in ipairs(expired) do
  local job = redis.call('HMGET', job_key(id), 'state', 'user', 'created_us', 'deliveries', 'kind')
  local ended = end_of_lease(id, now)
  redis.call('ZREM', key('leased'), id)
  if job[5] == 'maintenance' then
    redis.call('DEL', job_key(id))
    order(id, now)
    wake()
  elseif job[1] == 'processing' then
    sweep_later(now, tonumber(ARGV[4]))
    release(id, job[2], ended, 'lease_expired', '')
    if tonumber(job[4]) >= tonumber(ARGV[2]) then
      redis.call('HSET', job_key(id), 'state', 'failed', 'place', '', 'finished_us', int(now), 'updated_us', int(now),
        'error_code', 'dead-letter',
        'error_message', 'Its worker was lost ' .. job[4] .. ' times without an outcome.')
      redis.call('ZADD', key('dead'), int(now), id)
      keep_for(id, ARGV[3])
      call_back(id, 'failed', now)
      emit(id, 'dead', 'failed', now, 'user', job[2], 'error_code', 'dead-letter')
      dead = dead + 1
    else
      redis.call('HSET', job_key(id), 'state', 'queued', 'updated_us', int(now), 'files_done', 0, 'bytes_done', 0)
      begin_waiting(id, job[2], job[3])
      make_ready(id, now)
      emit(id, 'lease_expired', 'queued', now, 'user', job[2], 'deliveries', job[4])
      back = back + 1
    end
  end
end
return {back, dead}
