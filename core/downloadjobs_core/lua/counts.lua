-- How many jobs are where, and how long the oldest waits: for the autoscaler and the metrics.
--
-- KEYS[1] root            reads ready:<priority>, delayed, leased, parked, joined, followed, suspended, dead,
--                         maintenance, waiting, webhooks, webhooks:turns, webhooks:sending, queue
-- ARGV    none
-- Reply   flat list of name and number: ready, delayed, due, leased, expired, parked, joined, suspended,
--         dead, maintenance (tasks that are due, and one more if calls to callback URLs are: they take no slot,
--         but need a worker), oldest_waiting_us, oldest_dead_us (0 for none), service_us, slots,
--         next_due_us (of delayed; 0 for none), now_us, epoch (0 after a wipe)

local now = now_us()
local function card(name) return redis.call('ZCARD', key(name)) end
local function from(name, low, high) return redis.call('ZCOUNT', key(name), low, high) end
local function first(name) return redis.call('ZRANGE', key(name), 0, 0, 'WITHSCORES')[2] end
local function age(name)
  local oldest = first(name)
  return oldest and int(since(oldest, now)) or '0'
end

local calls = from('webhooks', '-inf', int(now)) + from('webhooks:turns', '-inf', int(now))
  + from('webhooks:sending', '-inf', int(now))
local queue = redis.call('HMGET', key('queue'), 'service_us', 'slots', 'slots_until', 'epoch')
local joined = card('joined')           -- they stand in `delayed` too, far ahead
local ready = 0
for _, priority in ipairs(PRIORITIES) do ready = ready + redis.call('ZCARD', ready_key(priority)) end
return {
  'ready', ready,
  'delayed', math.max(0, from('delayed', '(' .. int(now), '+inf') - joined),
  'due', from('delayed', '-inf', int(now)) + from('followed', '-inf', int(now)),
  'leased', from('leased', '(' .. int(now), '+inf'), 'expired', from('leased', '-inf', int(now)),
  'parked', card('parked'), 'joined', joined, 'suspended', card('suspended'), 'dead', card('dead'),
  'maintenance', from('maintenance', '-inf', int(now)) + math.min(1, calls),
  'oldest_waiting_us', age('waiting'), 'oldest_dead_us', age('dead'),
  'service_us', int(tonumber(queue[1] or FIRST_SERVICE_US)), 'slots', int(slots_of(queue[2], queue[3], now)),
  'next_due_us', first('delayed') or '0', 'now_us', int(now),
  'epoch', queue[4] or '0',
}
