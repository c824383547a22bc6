-- Ends a job with its outcome, and points to its result, if the attempt still holds it.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, leased, running_by_user, parked*, expiring,
--                         maintenance, finish:<priority>, queue, webhook:<call>, webhooks*, events*
-- ARGV[1] job id          ARGV[2] token
-- ARGV[3] state           a finished one
-- ARGV[4] us the result is kept, 0 for none       ARGV[5] seconds the record is kept
-- ARGV[6] what the attempt tells of itself        ARGV[7..] pairs of field and value for the job's hash
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local FADE_US = 60000000       -- each end before this one weighs 1/e after a minute, so their sum is a rate a minute

-- The sum of ends after one more. A clock that went backwards adds nothing.
local function fading(sum, since, now)
  return string.format('%.6f', tonumber(sum or 0) * math.exp(math.min(0, tonumber(since or now) - now) / FADE_US) + 1)
end

local id, token, state = ARGV[1], ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'token', 'ended_token', 'state', 'user', 'priority',
  'charged_us', 'leased_us', 'files_total')
-- An attempt whose job was handed back in its stead (a drain that could not wait) ended its lease, but not the job.
if token ~= '' and job[2] == token then return job[3] == state and 1 or 0 end
if token == '' or job[1] ~= token then return 0 end
if not may_move(job[3], state) then return illegal(id, job[3], state) end

local now = now_us()
local user, keep = job[4], tonumber(ARGV[4])
redis.call('HSET', job_key(id), 'state', state, 'place', '', 'finished_us', int(now), 'updated_us', int(now),
  'deliveries', 0, 'charged_us', 0, 'ended_token', token, 'expires_us', keep > 0 and int(now + keep) or 0,
  unpack(ARGV, 7))
local queue = redis.call('HMGET', key('queue'), 'service_us', 'files', 'virtual:' .. job[5],
  'finished', 'finished_us')
settle(user, job[5], job[6], job[7], now, queue[3] or 0)
note_stages(id, token, ARGV[6])
release(id, user, now, state)
if keep > 0 then
  redis.call('ZADD', key('expiring'), int(now + keep), id)
  redis.call('ZADD', key('maintenance'), 'NX', int(now + keep), 'expire-results')
end
keep_for(id, ARGV[5])

redis.call('HSET', key('queue'), 'service_us', mean(queue[1], now - tonumber(job[7])),
  'files', mean(queue[2], tonumber(job[8] or 1)), 'finished', fading(queue[4], queue[5], now),
  'finished_us', int(now))
call_back(id, state, now)
local failed = state == 'failed' and redis.call('HGET', job_key(id), 'error_code') or ''
emit(id, 'finished', state, now, 'user', user, 'error_code', failed)
return 1
