-- Gives a job back unfinished, to the front of its class, without counting the delivery (a drain).
--
-- KEYS[1] root            writes job:<id>, leased, ready:<priority>, wake, events
-- ARGV[1] job id          ARGV[2] token
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local id = ARGV[1]
if ended_by(id, ARGV[2]) then return 1 end
if not holds(id, ARGV[2]) then return 0 end
local from = redis.call('HGET', job_key(id), 'state')
if not may_move(from, 'queued') then return illegal(id, from, 'queued') end

local now = now_us()
redis.call('HINCRBY', job_key(id), 'deliveries', -1)
redis.call('HSET', job_key(id), 'state', 'queued', 'updated_us', int(now), 'files_done', 0, 'bytes_done', 0)
redis.call('HDEL', job_key(id), 'worker')
release(id, ARGV[2])
make_ready(id, now)
emit(id, 'handed_back', 'queued', now)
return 1
