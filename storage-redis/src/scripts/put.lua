-- Writes a record if the condition holds. Returns 1, or 0 if it does not hold and nothing has changed.
-- KEYS: the record, its bucket's index, its bucket's deadlines
-- ARGV: "always", "absent" or the beginning of the only record to write over; the header before and after the
--       retention's end; the payload; the retention in milliseconds or ""; the record's name in index and deadlines
local record, index, deadlines = KEYS[1], KEYS[2], KEYS[3]
local condition, header, header_end, payload, retention, member = unpack(ARGV)

if condition == 'absent' then
  if redis.call('EXISTS', record) == 1 then return 0 end
elseif condition ~= 'always' then
  if redis.call('GETRANGE', record, 0, #condition - 1) ~= condition then return 0 end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = '-'
if retention ~= '' then
  deadline = string.format('%.0f', now + retention)
end

-- Nothing is rolled back where a command fails, so the record comes after all that can be refused for it.
redis.call('ZADD', index, 0, member)
if deadline == '-' then
  redis.call('ZREM', deadlines, member)
else
  redis.call('ZADD', deadlines, deadline, member)
end
redis.call('SET', record, header .. deadline .. header_end .. payload)
if deadline ~= '-' then
  -- The server expires a key once its time has passed, and a retention is over when its end has come.
  redis.call('PEXPIREAT', record, string.format('%.0f', now + retention - 1))
end

-- Forget a few records that the server has expired, so that what is left of them cannot pile up.
local gone = redis.call('ZRANGEBYSCORE', deadlines, '-inf', string.format('%.0f', now), 'LIMIT', 0, 4)
for _, name in ipairs(gone) do
  redis.call('ZREM', index, name)
  redis.call('ZREM', deadlines, name)
end
return 1
