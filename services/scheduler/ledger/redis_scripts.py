"""The Lua scripts of the Redis ledger. Each runs atomically; KEYS are the list of events and the hash of its facts.

The hash: `format`, `uid`, `epoch` (term of the writer), `base` (events that were compacted away), `barrier` (append
attempts of this epoch up to it come too late), and of the leader `owner`, `address`, `beat` (renewals of its term) and
`released`. Scripts that keep a term or settle a doubt may run when memory is full (`allow-oom`); `APPEND` may not.
"""

# ARGV: format, uid for a new ledger, owner, address, epoch and beat that the taker saw (empty: whoever leads).
OPEN = """#!lua flags=allow-oom
local meta = KEYS[2]
local found = redis.call('HMGET', meta, 'format', 'epoch', 'beat', 'released', 'uid', 'base')
local length = redis.call('LLEN', KEYS[1])
if found[1] and found[1] ~= ARGV[1] then return {'format', found[1]} end
if not found[5] and length > 0 then return {'headless'} end
local epoch = tonumber(found[2] or '0')
if ARGV[5] ~= '' and (epoch ~= tonumber(ARGV[5]) or (found[3] or '0') ~= ARGV[6]) then return {'beaten', epoch} end
redis.call('HSETNX', meta, 'uid', ARGV[2])
redis.call('HSET', meta, 'format', ARGV[1], 'epoch', epoch + 1, 'owner', ARGV[3], 'address', ARGV[4],
    'beat', 0, 'released', 0, 'barrier', 0)
local answer = {'ok', epoch + 1, redis.call('HGET', meta, 'uid'), tonumber(found[6] or '0') + length}
if length > 0 then answer[5] = redis.call('LINDEX', KEYS[1], -1) end
return answer
"""

# KEYS: then feeds of tenants. ARGV: epoch, expected sequence, attempt, number of frames, frames, and of each completion
# the place of its feed in KEYS, its sequence and its member.
APPEND = """#!lua
local found = redis.call('HMGET', KEYS[2], 'epoch', 'barrier', 'base')
if found[1] ~= ARGV[1] then return {'epoch', found[1] or ''} end
if tonumber(found[2]) >= tonumber(ARGV[3]) then return {'late'} end
local last = tonumber(found[3] or '0') + redis.call('LLEN', KEYS[1])
if last ~= tonumber(ARGV[2]) then return {'sequence', last} end
local behind = 5 + tonumber(ARGV[4])
for first = 5, behind - 1, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, behind - 1)))
end
for entry = behind, #ARGV, 3 do
    redis.call('ZADD', KEYS[tonumber(ARGV[entry])], ARGV[entry + 1], ARGV[entry + 2])
end
return {'ok'}
"""

# ARGV: epoch, attempt, number of frames. After it the attempt has been stored or never will be, durably.
SETTLE = """#!lua flags=allow-oom
local found = redis.call('HMGET', KEYS[2], 'epoch', 'base')
if found[1] ~= ARGV[1] then return {'epoch', found[1] or ''} end
redis.call('HSET', KEYS[2], 'barrier', ARGV[2])
return {'ok', tonumber(found[2] or '0') + redis.call('LLEN', KEYS[1]), redis.call('LRANGE', KEYS[1], -ARGV[3], -1)}
"""

# ARGV: sequence after which to read, limit.
READ = """#!lua flags=no-writes
local base = tonumber(redis.call('HGET', KEYS[2], 'base') or '0')
local after = tonumber(ARGV[1]) - base
if after < 0 then return {'compacted', base} end
return {'ok', redis.call('LRANGE', KEYS[1], after, after + tonumber(ARGV[2]) - 1), base + redis.call('LLEN', KEYS[1])}
"""

# KEYS: then the list of damaged records and the hash of snapshots. ARGV: epoch, sequence of the last record.
# A snapshot at that record stands for it and all before it.
SET_ASIDE = """#!lua flags=allow-oom
local found = redis.call('HMGET', KEYS[2], 'epoch', 'base')
if found[1] ~= ARGV[1] then return {'epoch', found[1] or ''} end
local last = tonumber(found[2] or '0') + redis.call('LLEN', KEYS[1])
if last ~= tonumber(ARGV[2]) then return {'sequence', last} end
redis.call('RPUSH', KEYS[3], redis.call('RPOP', KEYS[1]))
if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 0 then return {'ok', last - 1} end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], 'base', last)
return {'ok', last}
"""

# ARGV: epoch.
RENEW = """#!lua flags=allow-oom
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch ~= ARGV[1] then return {'epoch', epoch or ''} end
return {'ok', redis.call('HINCRBY', KEYS[2], 'beat', 1)}
"""

# ARGV: epoch.
RELEASE = """#!lua flags=allow-oom
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch ~= ARGV[1] then return {'epoch', epoch or ''} end
return {'ok', redis.call('HSET', KEYS[2], 'released', 1)}
"""
