-- Ends what a job still wants when the object that asked for it goes: one that has not ended is cancelled,
-- and the result of one that has is removed, if it shall be; one that others share, after the last of them. A
-- worker removes it: at the next run of the expiry, which wakes sleeping workers at most once an hour, and those
-- that are awake within a minute.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, ready:<priority>, parked*, delayed, suspended,
--                         waiting*, leased, running_by_user, expiring, shared, sharers:<key>, flights, joined*,
--                         followed, wake, maintenance, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] job id          ARGV[2] error code      ARGV[3] error message, for the user
-- ARGV[4] seconds the record is kept              ARGV[5] us after which what is left is swept
-- ARGV[6] 1 to remove the result
-- Reply   {1, the state it was in} if anything was changed, {0, its state}, or {-1, ''} if there is none

local AWAKE_US = 60000000
local ASLEEP_US = 3600000000
local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'state', 'result_key')
local state = job[1]
if not state then return {-1, ''} end
local now = now_us()
if may_move(state, 'cancelled') then
  cancel(id, now, ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]))
  return {1, state}
end
if ARGV[6] ~= '1' or not job[2] or job[2] == '' then return {0, state} end

redis.call('HSET', job_key(id), 'expires_us', int(now), 'updated_us', int(now))
local slots = redis.call('HMGET', key('queue'), 'slots', 'slots_until')
local soon = slots_of(slots[1], slots[2], now) > 0 and AWAKE_US or ASLEEP_US
if give_up_share(id, job[2], now, soon) then return {1, state} end
redis.call('ZADD', key('expiring'), int(now), id)
order('expire-results', now + soon)
return {1, state}
