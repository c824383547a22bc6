-- Makes delayed jobs ready whose time has come.
--
-- KEYS[1] root            writes delayed, job:<id>, ready:<priority>, suspended, wake
-- ARGV[1] the most jobs to move
-- Reply   how many were moved

local now = now_us()
local due = redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', int(now), 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  redis.call('ZREM', key('delayed'), id)
  if redis.call('EXISTS', job_key(id)) == 1 then make_ready(id, now) end
end
return #due
