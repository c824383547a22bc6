-- Ends a job with its outcome, and points to its result, if the attempt still holds it.
--
-- KEYS[1] root            writes job:<id>, leased, running_by_user, parked*, expiring, maintenance,
--                         finish:<priority>, stats, events
-- ARGV[1] job id          ARGV[2] token
-- ARGV[3] state           a finished one
-- ARGV[4] us the result is kept, 0 for none       ARGV[5] seconds the record is kept
-- ARGV[6..] pairs of field and value for the job's hash
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local id, token, state = ARGV[1], ARGV[2], ARGV[3]
if ended_by(id, token) then return 1 end
if not holds(id, token) then return 0 end
local job = redis.call('HMGET', job_key(id), 'state', 'user', 'leased_us', 'files_total')
if not may_move(job[1], state) then return illegal(id, job[1], state) end

local now = now_us()
redis.call('HSET', job_key(id), 'state', state, 'finished_us', int(now), 'updated_us', int(now), 'deliveries', 0)
if #ARGV > 5 then redis.call('HSET', job_key(id), unpack(ARGV, 6)) end
settle(id, now)
release(id, token, job[2])
local keep = tonumber(ARGV[4])
if keep > 0 then
  redis.call('HSET', job_key(id), 'expires_us', int(now + keep))
  redis.call('ZADD', key('expiring'), int(now + keep), id)
  redis.call('ZADD', key('maintenance'), 'NX', int(now + keep), 'expire-results')
end
redis.call('EXPIRE', job_key(id), ARGV[5])

mean('service_us', now - tonumber(job[3]))
mean('files', tonumber(job[4] or 1))
emit(id, 'finished', state, now, 'user', job[2])
return 1
