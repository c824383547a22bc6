-- Renews all leases of one process in one call, and tells which are lost.
--
-- KEYS[1] root            reads job:<id>, writes leased
-- ARGV[1] lease in us     ARGV[2..] pairs of job id and token
-- Reply   for each pair '' if renewed, else why not: the job's state now, or 'gone'

local until_us = int(now_us() + tonumber(ARGV[1]))
local reply = {}
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  if holds(id, token) then
    redis.call('ZADD', key('leased'), 'XX', until_us, id)
    reply[#reply + 1] = ''
  else
    reply[#reply + 1] = redis.call('HGET', job_key(id), 'state') or 'gone'
  end
end
return reply
