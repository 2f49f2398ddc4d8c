-- Removes the names of records that the server has expired from the sets of a bucket. Returns their number.
-- KEYS: the bucket's index and deadlines
-- ARGV: the maximum number
local index, deadlines = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

local gone = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(gone) do
  redis.call('ZREM', index, name)
  redis.call('ZREM', deadlines, name)
end
return #gone
