-- Names the DownloadJob that shows a job, if the job is still there and nothing else was named meanwhile.
--
-- KEYS[1] root            writes job:<id>
-- ARGV[1] job id          ARGV[2] what it names, or ''   ARGV[3] what it shall name
-- Reply   1, 0 if another is named, or -1 if there is no job

local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'id', 'mirror')
if not job[1] then return -1 end
if (job[2] or '') ~= ARGV[2] then return 0 end
redis.call('HSET', job_key(id), 'mirror', ARGV[3])
return 1
