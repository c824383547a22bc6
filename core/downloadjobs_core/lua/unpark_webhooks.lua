-- Takes over calls that a release without lanes had put aside, since their user had as many under way as allowed.
--
-- KEYS[1] root            writes webhooks:parked:<user>, webhooks, webhooks:wake
-- ARGV[1] user            ARGV[2] how many at most
-- Reply   how many are left

local parked = key('webhooks:parked:' .. ARGV[1])
local calls = redis.call('ZPOPMIN', parked, ARGV[2])
for i = 1, #calls, 2 do redis.call('ZADD', key('webhooks'), calls[i + 1], calls[i]) end
if #calls > 0 then wake_couriers() end
return redis.call('ZCARD', parked)
