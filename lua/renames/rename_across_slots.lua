-- renames/rename_across_slots.lua: as rename.lua, on a node that owns all slots of a cluster.
--
-- A command with two keys in different slots is refused even there. On Valkey 9.1 it also makes every later
-- script fail, for all clients, until the server restarts. So the key is copied and deleted. No other client
-- sees a state in between, because a script is atomic.
--
-- Needs  batch, keyspace
-- Gives  rename(key, destination), replace(key, other), discard(key, destination), must_wait(budget), in place of
--        rename.lua's

-- Bytes of values that were copied, and how many are enough for a call without a clock.
local copied = 0
local MUCH = 65536

-- Returns the part of a key that decides its slot, nil if that is the whole key (Redis Cluster specification, "Hash
-- tags").
local function hash_tag(key)
  local opening = find(key, '{', 1, true)
  local closing = opening and find(key, '}', opening + 1, true)
  return closing and closing > opening + 1 and sub(key, opening + 1, closing - 1) or nil
end

-- Returns whether two keys are surely in the same slot. Other keys can be too, by chance: copying works for them.
local function is_same_slot(key, other)
  local tag = hash_tag(key)
  return tag ~= nil and tag == hash_tag(other)
end

-- Copies a key and its TTL to another name. `...`: further arguments of RESTORE. Returns its reply, or the first
-- error.
local function copy(key, other, ...)
  local ttl, value = try('PTTL', key), try('DUMP', key)
  if type(ttl) == 'table' then
    return {err = plain_error(ttl.err, 'PTTL')}
  elseif type(value) ~= 'string' then
    return {err = value and plain_error(value.err, 'DUMP') or 'ERR no such key'}
  end
  copied = copied + #value
  -- For RESTORE, 0 means no TTL.
  ttl = ttl < 0 and 0 or math.max(ttl, 1)
  local reply = try('RESTORE', other, ttl, value, ...)
  if reply.err and find(reply.err, 'OOM', 1, true) then
    -- After any write command, even one without effect, a full server lets a script write. In the end, a renamed
    -- key takes no more memory than before.
    try('RENAMENX', key, key)
    reply = try('RESTORE', other, ttl, value, ...)
  end
  return reply
end

local function rename(key, destination)
  if is_same_slot(key, destination) then
    return redis.pcall('RENAMENX', key, destination)
  end
  local reply = copy(key, destination)
  if reply.err and find(reply.err, 'BUSYKEY', 1, true) then
    return 0
  elseif reply.err then
    return reply
  end
  local deleted = try('DEL', key)
  if type(deleted) == 'table' then
    take_back(destination)
    return deleted
  end
  return 1
end

local function replace(key, other)
  if is_same_slot(key, other) then
    call('RENAME', key, other)
    return
  end
  local reply = copy(key, other, 'REPLACE')
  if reply.err then
    error({err = plain_error(reply.err, 'RESTORE')}, 0)
  end
  call('DEL', key)
end

local function discard(key, destination)
  call('DEL', key)
end

local function must_wait(budget)
  return copied > 0 and is_time_spent(budget, copied > MUCH)
end
