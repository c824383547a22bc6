-- Cancels a job, wherever it is; an attempt under way loses its token at once.
--
-- KEYS[1] root            writes job:<id>, ready:<priority>, parked*, delayed, suspended, waiting*, leased,
--                         running_by_user, maintenance, events
-- ARGV[1] job id          ARGV[2] error code      ARGV[3] error message, for the user
-- ARGV[4] seconds the record is kept              ARGV[5] us after which what is left is swept
-- Reply   {1, the state it was in}, {0, its state} if it has ended, or {-1, ''} if there is none

local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'state', 'user', 'token', 'priority', 'charged_us', 'leased_us')
if not job[1] then return {-1, ''} end
if not may_move(job[1], 'cancelled') then return {0, job[1]} end

local now = now_us()
if job[3] then
  sweep_later(now, tonumber(ARGV[5]))
  settle(job[2], job[4], job[5], job[6], now)
  release(id, job[2])
else
  take_out(id)
  end_waiting(id, job[2])
end
redis.call('HSET', job_key(id), 'state', 'cancelled', 'place', '', 'finished_us', int(now),
  'updated_us', int(now), 'error_code', ARGV[2], 'error_message', ARGV[3])
redis.call('HDEL', job_key(id), 'due_us')
redis.call('EXPIRE', job_key(id), ARGV[4])
emit(id, 'cancelled', 'cancelled', now, 'user', job[2], 'error_code', ARGV[2])
return {1, job[1]}
