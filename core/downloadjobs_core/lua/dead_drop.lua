-- Forgets a dead letter, record and all.
--
-- KEYS[1] root            writes dead, job:<id>, timeline:<id>, user:<user>:jobs, events, history:<id>
-- ARGV[1] job id
-- Reply   1, or 0 if it is no dead letter

local id = ARGV[1]
if redis.call('ZREM', key('dead'), id) == 0 then return 0 end
local user = redis.call('HGET', job_key(id), 'user')
if user then
  redis.call('ZREM', key('user:' .. user .. ':jobs'), id)
  emit(id, 'dropped', 'failed', now_us(), 'user', user)
  redis.call('DEL', job_key(id), history_key(id), key('timeline:' .. id))
end
return 1
