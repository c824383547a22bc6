-- Remembers the key of a multipart upload from before its creation until it is completed or aborted, so that
-- what a killed worker leaves can be found: a store can be asked for the uploads of one key, and not each for all.
--
-- KEYS[1] root            writes uploads
-- ARGV[1] job id          ARGV[2] token           ARGV[3] key of the object
-- Reply   1, or 0 if the token was refused

if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', key('uploads'), ARGV[3], ARGV[2])
return 1
