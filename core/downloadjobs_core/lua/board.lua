-- Asks for the result of a digest, once an attempt knows what its result would hold (docs/deduplication.md):
-- it is there; or another attempt makes it now, and this job waits for that one, with no delivery counted and
-- its place in the queue kept; or neither, and this attempt makes it.
--
-- KEYS[1] root            reads result:<digest>, sharers:<key>, writes job:<id>, timeline:<id>, flights, joined*,
--                         followed, delayed, leased, running_by_user, parked*, waiting*, ready:<priority>,
--                         suspended, wake, events, history:<id>
-- ARGV[1] job id          ARGV[2] token           ARGV[3] digest
-- ARGV[4] key of a result that is gone from storage, or ''
-- ARGV[5] what the attempt tells of itself; noted if this ends it
-- Reply   {0} if the token was refused, {1} if this attempt makes it, {2, key, bytes, ETag} if it is there,
--         or {3} if the job waits now (also when this attempt's lease was ended before)

local id, token, digest = ARGV[1], ARGV[2], ARGV[3]
if ended_by(id, token) then return {3} end
if not holds(id, token) then return {0} end
local found = offered(digest)
if found and found[1] ~= ARGV[4] then return {2, found[1], found[2], found[3]} end
if found then redis.call('DEL', key('result:' .. digest)) end

local builder = flight_is_held(digest)
if not builder or builder == id then
  redis.call('HSET', key('flights'), digest, entry_of(id, token))
  redis.call('HSET', job_key(id), 'digest', digest, 'builds', 1)
  return {1}
end

local job = redis.call('HMGET', job_key(id), 'state', 'user', 'created_us', 'suspended')
if not may_move(job[1], 'queued') then return illegal(id, job[1], 'queued') end
local now = now_us()
note_stages(id, token, ARGV[5])
release(id, job[2], now, 'joined', '')
redis.call('HINCRBY', job_key(id), 'deliveries', -1)
redis.call('HSET', job_key(id), 'state', 'queued', 'ended_token', token, 'updated_us', int(now),
  'files_done', 0, 'bytes_done', 0)
begin_waiting(id, job[2], job[3])
redis.call('HSET', job_key(id), 'place', 'joined', 'digest', digest)
if job[4] == '1' then
  make_ready(id, now)
else
  redis.call('ZADD', key('joined:' .. digest), job[3], id)
  redis.call('ZADD', key('joined'), int(now), id)
  redis.call('ZADD', key('delayed'), int(now + GO_ON_US), id)
  redis.call('ZADD', key('followed'), 'NX', int(now + LOOK_AGAIN_US), digest)
end
emit(id, 'joined', 'queued', now, 'user', job[2])
return {3}
