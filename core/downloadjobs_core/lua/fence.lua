-- Fences processes that shall be removed, each only if it holds no lease: from now on it gets none, until the
-- fence is taken away or runs out by itself. As the pop asks for the fence in its own script, none comes between.
--
-- KEYS[1] root            reads leased, job:<id>, writes fenced
-- ARGV[1] us the fence lasts
-- ARGV[2..] holders
-- Reply   for each 1 if it is fenced now, 0 if it holds a lease

local now = now_us()
local busy = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leased'), '(' .. int(now), '+inf')) do
  busy[redis.call('HGET', job_key(id), 'holder') or ''] = true
end
redis.call('ZREMRANGEBYSCORE', key('fenced'), '-inf', int(now))
local reply = {}
for i = 2, #ARGV do
  if busy[ARGV[i]] then
    reply[#reply + 1] = 0
  else
    redis.call('ZADD', key('fenced'), int(now + tonumber(ARGV[1])), ARGV[i])
    reply[#reply + 1] = 1
  end
end
return reply
