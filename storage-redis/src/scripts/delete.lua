-- Removes a record. Returns 1, or 0 if there is none or if it is not the expected one.
-- KEYS: the record, its bucket's index, its bucket's deadlines
-- ARGV: the beginning of the only record to remove or ""; the record's name in index and deadlines
local record, index, deadlines = KEYS[1], KEYS[2], KEYS[3]
local only, member = unpack(ARGV)

if only ~= '' and redis.call('GETRANGE', record, 0, #only - 1) ~= only then return 0 end
redis.call('ZREM', index, member)
redis.call('ZREM', deadlines, member)
return redis.call('DEL', record)
