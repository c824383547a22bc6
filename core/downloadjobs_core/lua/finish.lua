-- Ends a job with its outcome, and points to its result, if the attempt still holds it.
--
-- A result can be shared by several jobs (docs/deduplication.md). Then the job becomes one of its sharers in the
-- same step, and its object is removed after the last of them.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, leased, running_by_user, parked*, expiring,
--                         maintenance, finish:<priority>, queue, shared, sharers:<key>, result:<digest>, flights,
--                         joined*, delayed, followed, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] job id          ARGV[2] token
-- ARGV[3] state           a finished one
-- ARGV[4] us the result is kept, 0 for none       ARGV[5] seconds the record is kept
-- ARGV[6] what the attempt tells of itself
-- ARGV[7] how its result is shared: '' not at all, `kept` only with nobody yet, `offered` to who asks for the same,
--         `reused` from another job
-- ARGV[8] digest          ARGV[9] the result's key        ARGV[10] its bytes
-- ARGV[11] its ETag       ARGV[12] seconds it is offered
-- ARGV[13..] pairs of field and value for the job's hash
-- Reply   1 (also when this attempt did it before), 0 if the token was refused, or -1 if the result to be reused
--         is no longer there, and then nothing was changed

local FADE_US = 60000000       -- each end before this one weighs 1/e after a minute, so their sum is a rate a minute

-- The sum of ends after one more.
local function fading(sum, last_us, now)
  return string.format('%.6f', tonumber(sum or 0) * math.exp(-since(last_us, now) / FADE_US) + 1)
end

local id, token, state = ARGV[1], ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'token', 'ended_token', 'state', 'user', 'priority',
  'charged_us', 'leased_us', 'files_total')
-- An attempt whose job was handed back in its stead (a drain that could not wait) ended its lease, but not the job.
-- One whose result's time is over meanwhile did end it.
if token ~= '' and job[2] == token then return (job[3] == state or job[3] == 'expired') and 1 or 0 end
if token == '' or job[1] ~= token then return 0 end
if not may_move(job[3], state) then return illegal(id, job[3], state) end

local sharing, digest, result_key = ARGV[7], ARGV[8], ARGV[9]
if sharing == 'reused' and redis.call('EXISTS', sharers_key(result_key)) == 0 then return -1 end

local now = now_us()
local user, keep = job[4], tonumber(ARGV[4])
redis.call('HSET', job_key(id), 'state', state, 'place', '', 'finished_us', int(now), 'updated_us', int(now),
  'deliveries', 0, 'charged_us', 0, 'ended_token', token, 'expires_us', keep > 0 and int(now + keep) or 0,
  unpack(ARGV, 13))
local queue = redis.call('HMGET', key('queue'), 'service_us', 'files', 'virtual:' .. job[5],
  'finished', 'finished_us')
settle(user, job[5], job[6], job[7], now, queue[3] or 0)
if sharing == 'offered' then
  redis.call('HSET', key('result:' .. digest), 'key', result_key, 'bytes', ARGV[10], 'etag', ARGV[11])
  redis.call('EXPIRE', key('result:' .. digest), ARGV[12])
end
if sharing ~= '' then
  redis.call('ZADD', sharers_key(result_key), int(now + keep), id)
  redis.call('ZADD', key('shared'), 'LT', int(now + keep), result_key)
  order_batched('expire-shared', now + keep, now)
end
note_stages(id, token, ARGV[6])
release(id, user, now, state, nil, sharing == 'reused' and 0 or nil)    -- whose files nobody read
if sharing == 'reused' then
  redis.call('HSET', job_key(id), 'deduplicated', 1)
  wake_joined(digest, 1, now)
elseif keep > 0 and sharing == '' then
  redis.call('ZADD', key('expiring'), int(now + keep), id)
  order_batched('expire-results', now + keep, now)
end
keep_for(id, ARGV[5])

redis.call('HSET', key('queue'), 'service_us', mean(queue[1], since(job[7], now)),
  'files', mean(queue[2], tonumber(job[8] or 1)), 'finished', fading(queue[4], queue[5], now),
  'finished_us', int(now))
call_back(id, state, now)
local failed = state == 'failed' and redis.call('HGET', job_key(id), 'error_code') or ''
emit(id, 'finished', state, now, 'user', user, 'error_code', failed)
return 1
