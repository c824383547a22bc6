-- Which processes hold live leases, and how many each: for the autoscaler, which must remove none of these.
--
-- KEYS[1] root            reads leased, job:<id>
-- ARGV    none
-- Reply   flat list of holder and number

local busy, order = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leased'), '(' .. int(now_us()), '+inf')) do
  local holder = redis.call('HGET', job_key(id), 'holder') or ''
  if not busy[holder] then order[#order + 1] = holder end
  busy[holder] = (busy[holder] or 0) + 1
end
local reply = {}
for _, holder in ipairs(order) do
  reply[#reply + 1] = holder
  reply[#reply + 1] = busy[holder]
end
return reply
