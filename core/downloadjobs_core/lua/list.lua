-- A page of a user's jobs, newest first, with their records. Entries whose record has gone are taken out of
-- the list on the way. How many entries one call looks at is bounded, however few of them match.
--
-- KEYS[1] root            reads job:<id>, ready:<priority>, queue; writes user:<user>:jobs
-- ARGV[1] user            ARGV[2] the most jobs to give    ARGV[3] the most entries to look at
-- ARGV[4] score, and      ARGV[5] id of the last entry that was looked at before, or '' and '' to begin
-- ARGV[6] how many fields to read of each record; their names follow, the first are id, user, reader, state
-- ARGV[..] states wanted, after the fields; all without any
-- Reply   {score and id to go on from, or '' and '' if there is no more, then for each job: {values},
--         {place, ...} as place_of has it or {}}

local user, most, looks, score, after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local count = tonumber(ARGV[6])
local list = key('user:' .. user .. ':jobs')
local fields, wanted, filtered = {}, {}, #ARGV > 6 + count
for i = 7, 6 + count do fields[#fields + 1] = ARGV[i] end
for i = 7 + count, #ARGV do wanted[ARGV[i]] = true end

-- The set orders equal scores by id. So an entry's rank says where to go on, and if it has gone, its score does.
local first, tied = 0, false
if after ~= '' then
  local rank = redis.call('ZSCORE', list, after) == score and redis.call('ZREVRANK', list, after)
  if rank then
    first = rank + 1
  else
    first, tied = redis.call('ZCOUNT', list, '(' .. score, '+inf'), true
  end
end

-- Strings are compared by the server's locale, but the set orders by bytes.
local function not_before(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a > b end
  end
  return #one >= #other
end

local entries = redis.call('ZRANGE', list, first, first + looks, 'REV', 'WITHSCORES')
local reply, gone = {'', ''}, {}
local looked = 0                       -- there is one entry more than is looked at, to know whether there is
for i = 1, math.min(#entries, 2 * looks), 2 do
  if #reply >= 2 + 2 * most then break end
  local id = entries[i]
  looked = i
  if not (tied and entries[i + 1] == score and not_before(id, after)) then
    local values = redis.call('HMGET', job_key(id), unpack(fields))
    if not values[1] or (values[2] ~= user and values[3] ~= user) then
      gone[#gone + 1] = id
    elseif not filtered or wanted[values[4]] then
      reply[#reply + 1] = values
      reply[#reply + 1] = place_of(id) or {}
    end
  end
end
if looked > 0 and looked + 1 < #entries then
  reply[1], reply[2] = entries[looked + 1], entries[looked]
end
if #gone > 0 then redis.call('ZREM', list, unpack(gone)) end
return reply
