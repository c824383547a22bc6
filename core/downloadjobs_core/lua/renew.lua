-- Renews all leases of one process in one call, tells which are lost, and says that its slots are there.
--
-- KEYS[1] root            reads job:<id>, writes leased, workers, slots, queue
-- ARGV[1] lease in us     ARGV[2] worker          ARGV[3] its slots
-- ARGV[4..] pairs of job id and token
-- Reply   for each pair '' if renewed, else why not: the job's state now, or 'gone'

local now = now_us()
local until_us = int(now + tonumber(ARGV[1]))
redis.call('ZADD', key('workers'), until_us, ARGV[2])
redis.call('HSET', key('slots'), ARGV[2], ARGV[3])
count_slots(now)

local reply = {}
for i = 4, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  if holds(id, token) then
    redis.call('ZADD', key('leased'), 'XX', until_us, id)
    reply[#reply + 1] = ''
  else
    reply[#reply + 1] = redis.call('HGET', job_key(id), 'state') or 'gone'
  end
end
return reply
