"""The Lua scripts for what a Redis ledger keeps beside its events. KEYS[1] is the hash of the ledger's facts.

Each that changes something takes the writer's epoch as ARGV[1] and refuses an old one.
"""

_WRITER = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch ~= ARGV[1] then return {'epoch', epoch or ''} end
"""

# KEYS: snapshots by sequence. ARGV: epoch, sequence, blob, number of snapshots to keep.
SAVE_SNAPSHOT = f"""#!lua
{_WRITER}
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
local kept = redis.call('HKEYS', KEYS[2])
table.sort(kept, function(one, other) return tonumber(one) > tonumber(other) end)
for number = tonumber(ARGV[4]) + 1, #kept do redis.call('HDEL', KEYS[2], kept[number]) end
return {{'ok'}}
"""

# KEYS: snapshots, damaged snapshots. ARGV: epoch, sequence, why.
DISCARD_SNAPSHOT = f"""#!lua flags=allow-oom
{_WRITER}
local blob = redis.call('HGET', KEYS[2], ARGV[2])
if blob then
    redis.call('HSET', KEYS[3], 'snapshot ' .. ARGV[2] .. ': ' .. ARGV[3], blob)
    redis.call('HDEL', KEYS[2], ARGV[2])
end
return {{'ok'}}
"""

# KEYS: events. ARGV: epoch, sequence, most to drop.
COMPACT = f"""#!lua flags=allow-oom
{_WRITER}
local base = tonumber(redis.call('HGET', KEYS[1], 'base') or '0')
local last = base + redis.call('LLEN', KEYS[2])
local count = math.max(0, math.min(tonumber(ARGV[2]), last) - base)
local dropped = math.min(count, tonumber(ARGV[3]))
if dropped > 0 then
    redis.call('LTRIM', KEYS[2], dropped, -1)
    redis.call('HINCRBY', KEYS[1], 'base', dropped)
end
return {{'ok', count - dropped}}
"""

# KEYS: archive, requests, then the indices of the rows. ARGV: epoch, then of each row: name, blob, request (or empty)
# and the places in KEYS of its tenant's index, and of that of its tenant and state.
ARCHIVE = f"""#!lua
{_WRITER}
for row = 2, #ARGV, 5 do
    redis.call('HSET', KEYS[2], ARGV[row], ARGV[row + 1])
    if ARGV[row + 2] ~= '' then redis.call('HSET', KEYS[3], ARGV[row + 2], ARGV[row]) end
    redis.call('ZADD', KEYS[tonumber(ARGV[row + 3])], 0, ARGV[row])
    redis.call('ZADD', KEYS[tonumber(ARGV[row + 4])], 0, ARGV[row])
end
return {{'ok'}}
"""

# KEYS: archive, requests, the indices of the row. ARGV: epoch, name, request (empty: none).
DELETE_ARCHIVED = f"""#!lua flags=allow-oom
{_WRITER}
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3]) == ARGV[2] then redis.call('HDEL', KEYS[3], ARGV[3]) end
for index = 4, #KEYS do redis.call('ZREM', KEYS[index], ARGV[2]) end
return {{'ok'}}
"""

# KEYS: a scratch key. ARGV: epoch, something to write.
PROBE = f"""#!lua
{_WRITER}
redis.call('SET', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[2])
return {{'ok'}}
"""

# KEYS: the facts, and a hash.
FIELDS = """#!lua flags=no-writes
return redis.call('HKEYS', KEYS[2])
"""

# KEYS: the facts, and a list.
LENGTH = """#!lua flags=no-writes
return {redis.call('LLEN', KEYS[2])}
"""

# KEYS: the facts, and a hash. ARGV: fields; the answer has an empty list for one that is missing.
VALUES = """#!lua flags=no-writes
local values = {}
for place, field in ipairs(ARGV) do
    local value = redis.call('HGET', KEYS[2], field)
    values[place] = value and {value} or {}
end
return values
"""

# KEYS: the facts, and a sorted set of names. ARGV: below which name (`-` form of Redis), limit.
NAMES = """#!lua flags=no-writes
return redis.call('ZREVRANGEBYLEX', KEYS[2], ARGV[1], '-', 'LIMIT', 0, ARGV[2])
"""

# KEYS: the facts, and the feed of a tenant. ARGV: sequence, limit.
FEED = """#!lua flags=no-writes
return redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
"""

# KEYS: the facts, and feeds. ARGV: sequence.
UNINDEX = """#!lua flags=allow-oom
for feed = 2, #KEYS do redis.call('ZREMRANGEBYSCORE', KEYS[feed], ARGV[1], ARGV[1]) end
return {'ok'}
"""

# KEYS: all of the ledger. ARGV: epoch. A ledger of this format cannot be opened until `INSTALLED` has run.
INSTALL = """#!lua
redis.call('HSET', KEYS[1], 'format', 'being restored', 'epoch', ARGV[1])
return {'ok'}
"""

# KEYS: events. ARGV: epoch, frames.
INSTALL_EVENTS = f"""#!lua
{_WRITER}
for first = 2, #ARGV, 1000 do
    redis.call('RPUSH', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return {{'ok'}}
"""

# KEYS: the feed of a tenant. ARGV: epoch, and of each completion its sequence and its member.
INSTALL_FEED = f"""#!lua
{_WRITER}
for place = 2, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[place], ARGV[place + 1]) end
return {{'ok'}}
"""

# ARGV: epoch, format, uid, number of events that were compacted away.
INSTALLED = f"""#!lua
{_WRITER}
redis.call('HSET', KEYS[1], 'format', ARGV[2], 'uid', ARGV[3], 'base', ARGV[4], 'beat', 0, 'released', 1, 'barrier', 0)
return {{'ok'}}
"""
