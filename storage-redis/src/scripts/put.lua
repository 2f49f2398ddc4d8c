-- Writes a record if the condition is met. Returns 1, or 0 if it is not met and nothing has changed.
-- KEYS: the record, its bucket's index, its bucket's deadlines
-- ARGV: "always", "absent" or the beginning of the only record to replace; the record's name in index and deadlines;
--       without a retention: the whole record;
--       with a retention: the header before and after the retention's end, the payload, the retention in milliseconds
local record, index, deadlines = KEYS[1], KEYS[2], KEYS[3]
local condition, member, header, header_end, payload, retention = unpack(ARGV)

if condition == 'absent' then
  if redis.call('EXISTS', record) == 1 then return 0 end
elseif condition ~= 'always' then
  if redis.call('GETRANGE', record, 0, #condition - 1) ~= condition then return 0 end
end

-- Nothing is rolled back if a command fails, so the record is written after all other commands that may fail.
redis.call('ZADD', index, 0, member)
if not retention and redis.call('EXISTS', deadlines) == 0 then
  redis.call('SET', record, header)
  return 1
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = retention and string.format('%.0f', now + retention)
if retention then
  redis.call('ZADD', deadlines, deadline, member)
else
  redis.call('ZREM', deadlines, member)
end

-- Remove the names of a few records that the server has expired, so that they do not accumulate.
local gone = redis.call('ZRANGEBYSCORE', deadlines, '-inf', string.format('%.0f', now), 'LIMIT', 0, 4)
for _, name in ipairs(gone) do
  redis.call('ZREM', index, name)
  redis.call('ZREM', deadlines, name)
end

if retention then
  -- The server expires a key after its time has passed. A retention ends at its time, so the key expires a millisecond
  -- before. SET counts from the current time, and PEXPIREAT corrects the difference, which is small.
  local done = redis.pcall('SET', record, header .. deadline .. header_end .. payload, 'PX', math.max(retention - 1, 1))
  if type(done) == 'table' and done.err then
    -- The old record may have no retention. Its name must not be removed at this deadline.
    redis.call('ZREM', deadlines, member)
    return done
  end
  redis.pcall('PEXPIREAT', record, string.format('%.0f', now + retention - 1))
else
  redis.call('SET', record, header)
end
return 1
