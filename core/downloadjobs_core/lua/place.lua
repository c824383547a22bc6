-- Where a waiting job stands, and when it will probably start.
--
-- KEYS[1] root            reads job:<id>, ready:<priority>, queue
-- ARGV[1] job id
-- Reply   {place, jobs before it, us until it starts, how far past estimates were off (1 is as much as
--         the wait itself), as text}, or nil if it does not wait; only `ready` has the two numbers

local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'place', 'priority', 'created_us', 'due_us')
local place = job[1]
if not place or place == '' or place == 'leased' then return nil end
local queue = redis.call('HMGET', key('queue'), 'eta_error', 'slots', 'service_us')
local off = string.format('%.3f', tonumber(queue[1] or 0))
if place ~= 'ready' then return {place, 0, 0, off} end

local ahead = redis.call('ZRANK', ready_key(job[2]), entry_of(id, job[3])) or 0
for _, class in ipairs(PRIORITIES) do
  if class == job[2] then break end
  ahead = ahead + redis.call('ZCARD', ready_key(class))
end
local slots = math.max(1, tonumber(queue[2] or 0))
return {place, ahead, int(ahead / slots * tonumber(queue[3] or FIRST_SERVICE_US)), off}
