-- Leases the call to a callback URL that is due first, and may be sent now.
--
-- An origin that failed is left in peace until its time, and then tried by one call alone; the others wait. That is
-- for the user whose call failed: nobody can hold up another's calls by what they make a shared receiver answer.
-- A user's calls beyond what one may have under way are parked, and return when one of those ends.
--
-- KEYS[1] root            writes webhook:<call>, webhooks, webhooks:sending*, webhooks:parked:<user>,
--                         webhooks:troubled, webhooks:wake, job:<id>; reads fenced
-- ARGV[1] lease in us     longer than a try can take: it is not renewed
-- ARGV[2] calls that one user may have under way at once
-- ARGV[3] us after its change of state that a call is given up at the latest
-- ARGV[4] us that a call must be overdue          ARGV[5] holder
-- Reply   the call's hash as a flat list of field and value, nil if none is due, or 1 to ask again at once

local MOVES = 64               -- calls that are looked at, so that Redis is never blocked for long
local FORGET_US = 86400000000  -- an origin that failed a day ago is like any other
local lease, limit, longest, holder = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local now = now_us()
if tonumber(redis.call('ZSCORE', key('fenced'), holder) or 0) > now then return nil end
redis.call('ZREMRANGEBYSCORE', key('webhooks:troubled'), '-inf', int(now - FORGET_US))

for _, call in ipairs(redis.call('ZRANGEBYSCORE', key('webhooks:sending'), '-inf', int(now), 'LIMIT', 0, MOVES)) do
  end_try(call, redis.call('HGET', webhook_key(call), 'user') or '')
  redis.call('ZADD', key('webhooks'), int(now), call)
end

local due = redis.call('ZRANGEBYSCORE', key('webhooks'), '-inf', int(now - tonumber(ARGV[4])), 'LIMIT', 0, MOVES)
for _, call in ipairs(due) do
  local known = redis.call('HMGET', webhook_key(call), 'callback_origin', 'user', 'at_us', 'job')
  local origin, user, id = known[1], known[2], known[4]
  local where = tostring(user) .. ' ' .. tostring(origin)
  local troubled = tonumber(redis.call('ZSCORE', key('webhooks:troubled'), where) or 0)
  if not origin then
    redis.call('ZREM', key('webhooks'), call)
  elseif now - tonumber(known[3]) > longest then
    end_call(call, id, 'failed')
  elseif troubled > now then
    redis.call('ZADD', key('webhooks'), int(troubled), call)
    note_call(call, id, 'callback_due_us', int(troubled))
  elseif tonumber(redis.call('HGET', key('webhooks:sending_by_user'), user) or 0) >= limit then
    redis.call('ZREM', key('webhooks'), call)
    redis.call('ZADD', key('webhooks:parked:' .. user), int(now), call)
  else
    if troubled > 0 then redis.call('ZADD', key('webhooks:troubled'), int(now + lease), where) end
    redis.call('ZREM', key('webhooks'), call)
    redis.call('ZADD', key('webhooks:sending'), int(now + lease), call)
    count('webhooks:sending_by_user', user, 1)
    note_call(call, id, 'callback_attempts', redis.call('HINCRBY', webhook_key(call), 'attempts', 1))
    return redis.call('HGETALL', webhook_key(call))
  end
end
return #due == MOVES and 1 or nil
