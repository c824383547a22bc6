-- Makes delayed jobs ready whose time has come, and those that wait for a result which nobody makes any more.
--
-- KEYS[1] root            writes delayed, followed, joined*, job:<id>, ready:<priority>, suspended, wake
-- ARGV[1] the most jobs to move
-- Reply   how many delayed ones were moved

local now = now_us()
for _, digest in ipairs(redis.call('ZRANGEBYSCORE', key('followed'), '-inf', int(now), 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', key('followed'), int(now + LOOK_AGAIN_US), digest)
  if not flight_is_held(digest) then wake_joined(digest, to_wake(digest), now) end
end

local due = redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', int(now), 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  redis.call('ZREM', key('delayed'), id)
  local job = redis.call('HMGET', job_key(id), 'place', 'digest')
  if job[2] then unjoin(id, job[2]) end
  if job[1] == 'delayed' or job[1] == 'joined' then make_ready(id, now) end
end
return #due
