-- Leases a call to a callback URL that may be sent now.
--
-- Calls whose time has come go into lanes, one of each user and receiver. Users take turns, and so do the lanes of
-- each: a call waits for one try of each other receiver of its user at most, and for no other's calls. A receiver that
-- failed is left in peace until its time, and then tried by one call alone; the others stay in their lane. That is for
-- the user whose call failed: nobody can hold up another's calls by what they make a shared receiver answer.
-- Whoever has no turn now gets a time for the next, so nothing that waits depends on being woken.
--
-- KEYS[1] root            writes webhook:<call>, webhooks, webhooks:sending*, webhooks:turns, webhooks:lanes:<user>,
--                         webhooks:lane:<user> <origin>, webhooks:troubled, webhooks:wake, job:<id>; reads fenced
-- ARGV[1] lease in us     longer than a try can take: it is not renewed
-- ARGV[2] calls that one user may have under way at once
-- ARGV[3] us after its change of state that a call is given up at the latest
-- ARGV[4] us that a call must be overdue          ARGV[5] holder
-- Reply   the call's hash as a flat list of field and value, nil if none is due, or 1 to ask again at once

local MOVES = 64               -- of each kind, so that Redis is never blocked for long
local FORGET_US = 86400000000  -- an origin that failed a day ago is like any other
local lease, limit, longest, holder = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local now = now_us()
local by = now - tonumber(ARGV[4])     -- what was due by then is
local behind = int(by + 1)             -- who came in this very moment
local turns = key('webhooks:turns')
if tonumber(redis.call('ZSCORE', key('fenced'), holder) or 0) > now then return nil end
redis.call('ZREMRANGEBYSCORE', key('webhooks:troubled'), '-inf', int(now - FORGET_US))

local function left_in_peace_until(user, origin)
  return tonumber(redis.call('ZSCORE', key('webhooks:troubled'), user .. ' ' .. origin) or 0)
end

local function into_lane(call)
  local known = redis.call('HMGET', webhook_key(call), 'user', 'callback_origin', 'at_us', 'job')
  local user, origin = known[1], known[2]
  redis.call('ZREM', key('webhooks'), call)
  if not (user and origin) then return end
  redis.call('ZADD', lane_key(user, origin), known[3] or '0', call)
  redis.call('ZADD', lanes_key(user), 'NX', int(by), origin)
  redis.call('ZADD', turns, 'LT', int(by), user)
  local peace = left_in_peace_until(user, origin)
  if peace > now then note_call(call, known[4], 'callback_due_us', int(peace)) end
end

-- Leases the next call of the user whose turn it is; nil if none may be sent, and then either the user's next turn is
-- later, or there is one thing less to look at in this one.
local function take_turn(user)
  local lanes = lanes_key(user)
  local first = redis.call('ZRANGE', lanes, 0, 0, 'WITHSCORES')
  local origin, turn = first[1], tonumber(first[2])
  if not origin then
    redis.call('ZREM', turns, user)
    return nil
  elseif turn > by then
    redis.call('ZADD', turns, int(turn), user)
    return nil
  end
  local lane = lane_key(user, origin)
  local call = redis.call('ZRANGE', lane, 0, 0)[1]
  if not call then
    redis.call('ZREM', lanes, origin)
    return nil
  end
  local known = redis.call('HMGET', webhook_key(call), 'job', 'at_us')
  local id, given_up = known[1], tonumber(known[2] or 0) + longest
  if not id or now >= given_up then
    redis.call('ZREM', lane, call)
    if id then end_call(call, id, 'failed') end
    return nil
  end
  local peace = left_in_peace_until(user, origin)
  if peace > now then
    redis.call('ZADD', lanes, int(math.min(peace, given_up)), origin)
    note_call(call, id, 'callback_due_us', int(peace))
    return nil
  elseif tonumber(redis.call('HGET', key('webhooks:sending_by_user'), user) or 0) >= limit then
    redis.call('ZADD', turns, int(by + LOOK_AGAIN_US), user)     -- if no end of a try makes it sooner
    return nil
  end

  if peace > 0 then redis.call('ZADD', key('webhooks:troubled'), int(now + lease), user .. ' ' .. origin) end
  redis.call('ZREM', lane, call)
  redis.call('ZADD', key('webhooks:sending'), int(now + lease), call)
  count('webhooks:sending_by_user', user, 1)
  note_call(call, id, 'callback_attempts', redis.call('HINCRBY', webhook_key(call), 'attempts', 1))
  if redis.call('EXISTS', lane) == 1 then
    redis.call('ZADD', lanes, behind, origin)
  else
    redis.call('ZREM', lanes, origin)
  end
  if redis.call('EXISTS', lanes) == 1 then
    redis.call('ZADD', turns, behind, user)
  else
    redis.call('ZREM', turns, user)
  end
  return call
end

for _, call in ipairs(redis.call('ZRANGEBYSCORE', key('webhooks:sending'), '-inf', int(now), 'LIMIT', 0, MOVES)) do
  end_try(call, redis.call('HGET', webhook_key(call), 'user') or '', now)
  redis.call('ZADD', key('webhooks'), int(now), call)
end

local due = redis.call('ZRANGEBYSCORE', key('webhooks'), '-inf', int(by), 'LIMIT', 0, MOVES)
for _, call in ipairs(due) do into_lane(call) end

for _ = 1, MOVES do
  local user = redis.call('ZRANGEBYSCORE', turns, '-inf', int(by), 'LIMIT', 0, 1)[1]
  if not user then return #due == MOVES and 1 or nil end
  local call = take_turn(user)
  if call then return redis.call('HGETALL', webhook_key(call)) end
end
return 1
