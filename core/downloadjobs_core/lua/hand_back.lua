-- Gives a job back unfinished, to the front of its class, without counting the delivery (a drain).
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, leased, running_by_user, parked*, waiting*,
--                         ready:<priority>, suspended, maintenance, wake, events, history:<id>
-- ARGV[1] job id          ARGV[2] token           ARGV[3] what the attempt tells of itself
-- Reply   1 (also when this attempt did it before), or 0 if the token was refused

local id, token = ARGV[1], ARGV[2]
if ended_by(id, token) then return 1 end
if not holds(id, token) then return 0 end
local job = redis.call('HMGET', job_key(id), 'state', 'user', 'created_us', 'kind')
if not may_move(job[1], 'queued') then return illegal(id, job[1], 'queued') end

local now = now_us()
if job[4] == 'maintenance' then
  redis.call('DEL', job_key(id))
  redis.call('ZREM', key('leased'), id)
  order(id, now)
  wake()
  return 1
end
note_stages(id, token, ARGV[3])
release(id, job[2], now, 'handed_back', '')
redis.call('HINCRBY', job_key(id), 'deliveries', -1)
redis.call('HSET', job_key(id), 'state', 'queued', 'ended_token', token, 'updated_us', int(now),
  'files_done', 0, 'bytes_done', 0)
begin_waiting(id, job[2], job[3])
make_ready(id, now)
emit(id, 'handed_back', 'queued', now, 'user', job[2])
return 1
