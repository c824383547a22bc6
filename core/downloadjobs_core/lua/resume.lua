-- Lets a suspended job go on, at the place that its submission gave it.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, suspended, ready:<priority>, wake, events, history:<id>
-- ARGV[1] job id
-- Reply   {1, its state}, {0, its state} if it has ended, or {-1, ''} if there is none

local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'state', 'place', 'suspended', 'user')
if not job[1] then return {-1, ''} end
if not may_move(job[1], 'cancelled') then return {0, job[1]} end
if job[3] ~= '1' then return {1, job[1]} end

local now = now_us()
redis.call('HDEL', job_key(id), 'suspended')
redis.call('HSET', job_key(id), 'updated_us', int(now))
if job[2] == 'suspended' then
  redis.call('ZREM', key('suspended'), id)
  make_ready(id, now)
end
note(id, 'resumed ' .. int(now))
emit(id, 'resumed', job[1], now, 'user', job[4])
return {1, job[1]}
