-- Ends an attempt that failed and places the job's next one, together.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, leased, running_by_user, parked*, waiting*,
--                         delayed, suspended, finish:<priority>, events, history:<id>
-- ARGV[1] job id          ARGV[2] token           ARGV[3] delay in us
-- ARGV[4] error code      ARGV[5] error message   ARGV[6] what the attempt tells of itself
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local id, token = ARGV[1], ARGV[2]
if ended_by(id, token) then return 1 end
if not holds(id, token) then return 0 end
local job = redis.call('HMGET', job_key(id), 'state', 'user', 'created_us', 'suspended', 'priority',
  'charged_us', 'leased_us')
if not may_move(job[1], 'retrying') then return illegal(id, job[1], 'retrying') end

local now = now_us()
local due = int(now + tonumber(ARGV[3]))
redis.call('HINCRBY', job_key(id), 'failures', 1)
redis.call('HSET', job_key(id), 'state', 'retrying', 'place', 'delayed', 'due_us', due,
  'updated_us', int(now), 'deliveries', 0, 'charged_us', 0, 'ended_token', token,
  'error_code', ARGV[4], 'error_message', ARGV[5])
settle(job[2], job[5], job[6], job[7], now)
note_stages(id, token, ARGV[6])
release(id, job[2], now, 'failed')
begin_waiting(id, job[2], job[3])
if job[4] == '1' then
  make_ready(id, now)
else
  redis.call('ZADD', key('delayed'), due, id)
end
emit(id, 'retrying', 'retrying', now, 'user', job[2], 'due_us', due, 'error_code', ARGV[4])
return 1
