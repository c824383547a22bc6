-- What is known of attempts whose results can be shared, and of what they made.
--
-- KEYS[1] root            reads shared, flights, job:<id>, queue
-- ARGV[1..] triples of digest, token, and the key that the attempt writes
-- Reply   for each three numbers: 1 if it began after the last wipe of Redis; 1 if it holds its job now;
--         1 if jobs share what it made, or its removal is under way

local epoch = tonumber(redis.call('HGET', key('queue'), 'epoch') or math.huge)
local reply = {}
for i = 1, #ARGV, 3 do
  local digest, token = ARGV[i], ARGV[i + 1]
  local builder = flight_is_held(digest)
  reply[#reply + 1] = tonumber(token) >= epoch and 1 or 0
  reply[#reply + 1] = builder and redis.call('HGET', job_key(builder), 'token') == token and 1 or 0
  reply[#reply + 1] = redis.call('ZSCORE', key('shared'), ARGV[i + 2]) and 1 or 0
end
return reply
