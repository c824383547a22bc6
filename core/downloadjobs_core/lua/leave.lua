-- Takes a worker that ends out of the count of slots.
--
-- KEYS[1] root            writes workers, slots, queue
-- ARGV[1] worker
-- Reply   the slots that are left

redis.call('ZREM', key('workers'), ARGV[1])
redis.call('HDEL', key('slots'), ARGV[1])
return count_slots(now_us())
