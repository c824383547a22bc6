-- Accepts a job: its hash and its queue entry, or neither. Submitting an id twice changes nothing.
--
-- Its place is that of start-time fair queuing (Goyal, Vin, Cheng 1996): it starts at the class' virtual
-- time or where its user's earlier jobs end, whichever is later, and its user's time moves on by its cost.
--
-- A request that names a key (Idempotency-Key) is one job however often it comes: the key points to the job
-- from the moment that there is one. It keeps the first answer too, so that each repetition gets the same.
--
-- KEYS[1] root            writes job:<id>, ready:<priority>, finish:<priority>, waiting, waiting_by_user,
--                         user:<user>:jobs, suspended, wake, events, history:<id>, queue, maintenance, idempotency:<digest>
-- ARGV[1] job id          ARGV[2] user            ARGV[3] priority
-- ARGV[4] distinct files  ARGV[5] the most jobs of one user that may wait
-- ARGV[6] seconds that a record is kept after its end; the list of a user's jobs, twice that after the last
-- ARGV[7] another user who may see it, or ''         ARGV[8] 1 to hold it from the start
-- ARGV[9] digest of user and key, or ''               ARGV[10] digest of what was asked with it
-- ARGV[11] seconds that the key is kept               ARGV[12] the job whose failed files these are, or ''
-- ARGV[13..] pairs of field and value for the job's hash
-- Reply   {1, jobs ahead, slots, mean service time in us}, {0, state, user} if it exists,
--         {2, its id, jobs ahead, slots, mean service time in us, as they were} if its key was used before,
--         {-1, the user's waiting jobs} if they are too many, or {-2} if its key was used for something else

local AFTER_WIPE_US = 172800000000     -- two days: by then a result of before has expired by default
local id, user, priority, files = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local existing = redis.call('HMGET', job_key(id), 'state', 'user')
if existing[1] then return {0, existing[1], existing[2]} end
local once = ARGV[9] ~= '' and key('idempotency:' .. ARGV[9])
local before = once and redis.call('GET', once)
if before then
  local asked, first, ahead, slots, service = string.match(before, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  if asked ~= ARGV[10] then return {-2} end
  return {2, first, tonumber(ahead), tonumber(slots), tonumber(service)}
end
local waiting = tonumber(redis.call('HGET', key('waiting_by_user'), user) or 0)
if waiting >= tonumber(ARGV[5]) then return {-1, waiting} end

local now = now_us()
local queue = redis.call('HMGET', key('queue'), 'service_us', 'files', 'slots', 'slots_until', 'virtual:' .. priority, 'epoch')
if not queue[6] then
  redis.call('HSET', key('queue'), 'epoch', int(now))
  sweep_later(now, AFTER_WIPE_US)        -- if there was a wipe, results are left that nobody points to
end

local service = math.max(0, tonumber(queue[1] or FIRST_SERVICE_US))
local cost = service * files / tonumber(queue[2] or files)
local score = math.max(tonumber(queue[5] or 0), tonumber(redis.call('ZSCORE', key('finish:' .. priority), user) or 0))
redis.call('ZADD', key('finish:' .. priority), int(score + cost), user)

local ahead = redis.call('ZCOUNT', ready_key(priority), '-inf', int(score))
for _, class in ipairs(PRIORITIES) do
  if class == priority then break end
  ahead = ahead + redis.call('ZCARD', ready_key(class))
end
local slots = math.max(1, slots_of(queue[3], queue[4], now))
local starts = ahead / slots * service
local held = ARGV[8] == '1'

local function list_for(reader)
  local list = key('user:' .. reader .. ':jobs')
  redis.call('ZADD', list, int(now), id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', int(now - 2000000 * tonumber(ARGV[6])))
  redis.call('EXPIRE', list, 2 * ARGV[6])
end

redis.call('HSET', job_key(id), 'id', id, 'user', user, 'priority', priority, 'state', 'queued',
  'place', held and 'suspended' or 'ready', 'created_us', int(now), 'updated_us', int(now), 'score', int(score),
  'charged_us', int(cost), 'expected_wait_us', int(starts), 'attempt', 0, 'failures', 0, 'deliveries', 0,
  'files_done', 0, 'bytes_done', 0, unpack(ARGV, 13))
list_for(user)
if ARGV[7] ~= '' and ARGV[7] ~= user then
  redis.call('HSET', job_key(id), 'reader', ARGV[7])
  list_for(ARGV[7])
end
if ARGV[12] ~= '' then
  redis.call('HSET', job_key(id), 'retry_of', ARGV[12])
  if redis.call('EXISTS', job_key(ARGV[12])) == 1 then redis.call('HSET', job_key(ARGV[12]), 'retried_by', id) end
end
if once then
  redis.call('SET', once, table.concat({ARGV[10], id, ahead, slots, int(service)}, ' '), 'EX', ARGV[11])
end
begin_waiting(id, user, int(now))
if held then
  redis.call('HSET', job_key(id), 'suspended', 1)
  redis.call('ZADD', key('suspended'), int(now), id)
else
  redis.call('ZADD', ready_key(priority), int(score), entry_of(id, now))
  wake()
end
emit(id, 'queued', 'queued', now, 'user', user)
return {1, ahead, slots, int(service)}
