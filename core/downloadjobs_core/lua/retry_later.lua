-- Ends an attempt that failed and places the job's next one, together.
--
-- KEYS[1] root            writes job:<id>, leased, delayed, events
-- ARGV[1] job id          ARGV[2] token           ARGV[3] delay in us
-- ARGV[4] error code      ARGV[5] error message
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local id = ARGV[1]
if ended_by(id, ARGV[2]) then return 1 end
if not holds(id, ARGV[2]) then return 0 end
local from = redis.call('HGET', job_key(id), 'state')
if not may_move(from, 'retrying') then return illegal(id, from, 'retrying') end

local now = now_us()
local due = int(now + tonumber(ARGV[3]))
redis.call('HINCRBY', job_key(id), 'failures', 1)
redis.call('HSET', job_key(id), 'state', 'retrying', 'due_us', due, 'updated_us', int(now), 'deliveries', 0,
  'error_code', ARGV[4], 'error_message', ARGV[5])
redis.call('HDEL', job_key(id), 'worker')
release(id, ARGV[2])
redis.call('ZADD', key('delayed'), due, id)
emit(id, 'retrying', 'retrying', now, 'due_us', due, 'error_code', ARGV[4])
return 1
