-- Writes a record if the condition holds. Returns 1, or 0 if it does not hold and nothing has changed.
-- KEYS: the record, its bucket's index, its bucket's deadlines
-- ARGV: "always", "absent" or the beginning of the only record to write over; the record's name in index and deadlines;
--       without a retention: the whole record;
--       with one: the header before and after the retention's end, the payload, the retention in milliseconds
local record, index, deadlines = KEYS[1], KEYS[2], KEYS[3]
local condition, member, header, header_end, payload, retention = unpack(ARGV)

if condition == 'absent' then
  if redis.call('EXISTS', record) == 1 then return 0 end
elseif condition ~= 'always' then
  if redis.call('GETRANGE', record, 0, #condition - 1) ~= condition then return 0 end
end

-- Nothing is rolled back where a command fails, so the record comes after all that can be refused for it.
redis.call('ZADD', index, 0, member)
if not retention and redis.call('EXISTS', deadlines) == 0 then
  redis.call('SET', record, header)
  return 1
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if retention then
  local deadline = string.format('%.0f', now + retention)
  redis.call('ZADD', deadlines, deadline, member)
  redis.call('SET', record, header .. deadline .. header_end .. payload)
  -- The server expires a key once its time has passed, and a retention is over when its end has come.
  redis.call('PEXPIREAT', record, string.format('%.0f', now + retention - 1))
else
  redis.call('ZREM', deadlines, member)
  redis.call('SET', record, header)
end

-- Forget a few records that the server has expired, so that what is left of them cannot pile up.
local gone = redis.call('ZRANGEBYSCORE', deadlines, '-inf', string.format('%.0f', now), 'LIMIT', 0, 4)
for _, name in ipairs(gone) do
  redis.call('ZREM', index, name)
  redis.call('ZREM', deadlines, name)
end
return 1
