-- Cancels a job, wherever it is; an attempt under way loses its token at once.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, ready:<priority>, parked*, delayed, suspended,
--                         waiting*, leased, running_by_user, maintenance, webhook:<call>, webhooks*, events, history:<id>
-- ARGV[1] job id          ARGV[2] error code      ARGV[3] error message, for the user
-- ARGV[4] seconds the record is kept              ARGV[5] us after which what is left is swept
-- Reply   {1, the state it was in}, {0, its state} if it has ended, or {-1, ''} if there is none

local id = ARGV[1]
local state = redis.call('HGET', job_key(id), 'state')
if not state then return {-1, ''} end
if not may_move(state, 'cancelled') then return {0, state} end
cancel(id, now_us(), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]))
return {1, state}
