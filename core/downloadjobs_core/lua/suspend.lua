-- Holds a job before it starts. One that runs goes on, and is held if it comes back to the queue.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, ready:<priority>, parked*, delayed, suspended, events, history:<id>
-- ARGV[1] job id
-- Reply   {1, its state}, {0, its state} if it has ended, or {-1, ''} if there is none

local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'state', 'place', 'suspended', 'user')
if not job[1] then return {-1, ''} end
if not may_move(job[1], 'cancelled') then return {0, job[1]} end
if job[3] == '1' then return {1, job[1]} end

local now = now_us()
redis.call('HSET', job_key(id), 'suspended', 1, 'updated_us', int(now))
if job[2] ~= 'leased' then
  take_out(id)
  make_ready(id, now)
end
note(id, 'suspended ' .. int(now))
emit(id, 'suspended', job[1], now, 'user', job[4])
return {1, job[1]}
