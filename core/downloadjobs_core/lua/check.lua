-- Tells whether an attempt still holds its job; asked before a multipart upload is completed.
--
-- KEYS[1] root            reads job:<id>, writes leased
-- ARGV[1] job id          ARGV[2] token           ARGV[3] lease in us, granted anew
-- Reply   1, or 0 if the token was refused

if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('ZADD', key('leased'), 'XX', int(now_us() + tonumber(ARGV[3])), ARGV[1])
return 1
