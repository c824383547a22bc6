-- Where a waiting job stands, and when it will probably start.
--
-- KEYS[1] root            reads job:<id>, ready:<priority>, queue
-- ARGV[1] job id
-- Reply   {place, jobs before it, us until it starts, how far past estimates were off (1 is as much as
--         the wait itself), mean service time in us}, or nil if it does not wait; only `ready` has the
--         two numbers

return place_of(ARGV[1])
