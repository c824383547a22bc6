-- Ends a maintenance task and says when it is due again, at the latest: it may have been ordered while it ran.
--
-- KEYS[1] root            writes job:<task>, leased, maintenance, expiring
-- ARGV[1] task            ARGV[2] token
-- ARGV[3] us until it is due again at the earliest, or -1 for never
-- ARGV[4] the set whose first entry says when there is work again, or ''
-- Reply   1, or 0 if the token was refused

local task = ARGV[1]
if not holds(task, ARGV[2]) then return 0 end
local now = now_us()
redis.call('ZREM', key('leased'), task)
redis.call('DEL', job_key(task))
local wait = tonumber(ARGV[3])
if wait < 0 then return 1 end
if ARGV[4] == '' then
  order(task, now + wait)
  return 1
end
local first = redis.call('ZRANGE', key(ARGV[4]), 0, 0, 'WITHSCORES')[2]
if first then order(task, math.max(now + wait, tonumber(first))) end
return 1
