-- Remembers a multipart upload from before its first part until it is completed or aborted, so that what a
-- killed worker leaves can be found: not every store can list its unfinished uploads.
--
-- KEYS[1] root            writes uploads
-- ARGV[1] job id          ARGV[2] token           ARGV[3] key of the object       ARGV[4] upload id
-- Reply   1, or 0 if the token was refused

if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', key('uploads'), ARGV[3], ARGV[4])
return 1
