-- Accepts a job: its hash and its queue entry, or neither. Submitting an id twice changes nothing.
--
-- Its place is that of start-time fair queuing (Goyal, Vin, Cheng 1996): it starts at the class' virtual
-- time or where its user's earlier jobs end, whichever is later, and its user's time moves on by its cost.
--
-- KEYS[1] root            writes job:<id>, ready:<priority>, finish:<priority>, waiting, waiting_by_user,
--                         user:<user>:jobs, suspended, wake, events*, queue, maintenance
-- ARGV[1] job id          ARGV[2] user            ARGV[3] priority
-- ARGV[4] distinct files  ARGV[5] the most jobs of one user that may wait
-- ARGV[6] seconds that the list of a user's jobs is kept after the last one
-- ARGV[7] another user who may see it, or ''         ARGV[8] 1 to hold it from the start
-- ARGV[9..] pairs of field and value for the job's hash
-- Reply   {1, jobs ahead, slots, mean service time in us}, {0, state, user} if it exists,
--         or {-1, the user's waiting jobs} if they are too many

local AFTER_WIPE_US = 172800000000     -- two days: by then a result of before has expired by default
local id, user, priority, files = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local existing = redis.call('HMGET', job_key(id), 'state', 'user')
if existing[1] then return {0, existing[1], existing[2]} end
local waiting = tonumber(redis.call('HGET', key('waiting_by_user'), user) or 0)
if waiting >= tonumber(ARGV[5]) then return {-1, waiting} end

local now = now_us()
local queue = redis.call('HMGET', key('queue'), 'service_us', 'files', 'slots', 'virtual:' .. priority, 'epoch')
if not queue[5] then
  redis.call('HSET', key('queue'), 'epoch', int(now))
  sweep_later(now, AFTER_WIPE_US)        -- if there was a wipe, results are left that nobody points to
end

local service = tonumber(queue[1] or FIRST_SERVICE_US)
local cost = service * files / tonumber(queue[2] or files)
local score = math.max(tonumber(queue[4] or 0), tonumber(redis.call('ZSCORE', key('finish:' .. priority), user) or 0))
redis.call('ZADD', key('finish:' .. priority), int(score + cost), user)

local ahead = redis.call('ZCOUNT', ready_key(priority), '-inf', int(score))
for _, class in ipairs(PRIORITIES) do
  if class == priority then break end
  ahead = ahead + redis.call('ZCARD', ready_key(class))
end
local slots = math.max(1, tonumber(queue[3] or 0))
local starts = ahead / slots * service
local held = ARGV[8] == '1'

local function list_for(reader)
  local list = key('user:' .. reader .. ':jobs')
  redis.call('ZADD', list, int(now), id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', int(now - 2000000 * tonumber(ARGV[6])))
  redis.call('EXPIRE', list, ARGV[6])
end

redis.call('HSET', job_key(id), 'id', id, 'user', user, 'priority', priority, 'state', 'queued',
  'place', held and 'suspended' or 'ready', 'created_us', int(now), 'updated_us', int(now), 'score', int(score),
  'charged_us', int(cost), 'expected_wait_us', int(starts), 'attempt', 0, 'failures', 0, 'deliveries', 0,
  'files_done', 0, 'bytes_done', 0, unpack(ARGV, 9))
list_for(user)
if ARGV[7] ~= '' and ARGV[7] ~= user then
  redis.call('HSET', job_key(id), 'reader', ARGV[7])
  list_for(ARGV[7])
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
