-- Writes how far an attempt has come, if it still holds the job.
--
-- KEYS[1] root            writes job:<id>, timeline:<id>, events
-- ARGV[1] job id          ARGV[2] token
-- ARGV[3] files done      ARGV[4] bytes done      ARGV[5] bytes in all
-- ARGV[6] what the attempt tells of itself since the last call
-- Reply   1, or 0 if the token was refused

local id = ARGV[1]
if not holds(id, ARGV[2]) then return 0 end
local now = now_us()
redis.call('HSET', job_key(id), 'files_done', ARGV[3], 'bytes_done', ARGV[4], 'bytes_total', ARGV[5],
  'updated_us', int(now))
note_stages(id, ARGV[2], ARGV[6])
emit(id, 'progress', 'processing', now, 'user', redis.call('HGET', job_key(id), 'user'))
return 1
