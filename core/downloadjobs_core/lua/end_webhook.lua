-- Ends a try to send a call to a callback URL, and with it the call, or places the next try.
--
-- KEYS[1] root            writes webhook:<call>, webhooks, webhooks:sending*, webhooks:turns, webhooks:lanes:<user>,
--                         webhooks:troubled, webhooks:wake, job:<id>
-- ARGV[1] call            ARGV[2] which try it was, from 1
-- ARGV[3] delivered, failed or retry              ARGV[4] us until the next try
-- ARGV[5] HTTP status, or ''                      ARGV[6] error code, or ''
-- ARGV[7] us for which its origin is left in peace by its user's calls; 0 if it works
-- Reply   1, or 0 if the try's lease had run out

local call, verdict = ARGV[1], ARGV[3]
if not redis.call('ZSCORE', key('webhooks:sending'), call) then return 0 end
local known = redis.call('HMGET', webhook_key(call), 'attempts', 'user', 'job', 'callback_origin')
if known[1] ~= ARGV[2] then return 0 end

local now = now_us()
local user, id, origin = known[2], known[3], known[4]
local where = user .. ' ' .. origin
end_try(call, user, now)
note_call(call, id, 'callback_status', ARGV[5], 'callback_error', ARGV[6])
if tonumber(ARGV[7]) > 0 then
  redis.call('ZADD', key('webhooks:troubled'), int(now + tonumber(ARGV[7])), where)
else
  redis.call('ZREM', key('webhooks:troubled'), where)
end
redis.call('ZADD', lanes_key(user), 'XX', 'LT', int(now), origin)   -- its turn tells what the others do now
if verdict == 'retry' then
  local due = int(now + tonumber(ARGV[4]))
  redis.call('ZADD', key('webhooks'), due, call)
  note_call(call, id, 'callback_due_us', due)
else
  end_call(call, id, verdict)
end
return 1
