-- Counts requests, each name's in a window of its own, which begins with its first request and ends by itself:
-- a client that is refused for ever keeps one small key, and one that goes leaves nothing.
--
-- KEYS[1] root            writes rate:<name>
-- ARGV[1] the window in ms
-- ARGV[2..] pairs of a name and how many requests came under it
-- Reply   for each name its requests in this window, these included, and in how many ms the window ends

local window = tonumber(ARGV[1])
local reply = {}
for n = 2, #ARGV, 2 do
  local counter = key('rate:' .. ARGV[n])
  local used = redis.call('INCRBY', counter, ARGV[n + 1])
  local left = window
  if used ~= tonumber(ARGV[n + 1]) then left = redis.call('PTTL', counter) end
  -- New, or without an end, or of a longer window than is set now.
  if used == tonumber(ARGV[n + 1]) or left < 0 or left > window then
    redis.call('PEXPIRE', counter, ARGV[1])
    left = window
  end
  reply[n - 1], reply[n] = used, left
end
return reply
