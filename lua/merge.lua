-- merge.lua: a key whose destination exists is joined with it, where Tinytown's use of the family
-- says how. The key's values are the older ones.
--
--   inbox, backlog    consumers pop the head, messages are pushed to the tail: older values first
--   urgent, activity  values are pushed to the head: newer values first; of activity 10 are kept
--   stop              a flag: the one that lasts longer
--   agent, task       records: nothing to join
--
-- Equal values of any family are one. Of two times to live the longer one counts.
--
-- Gives: plan_conflict(family, key, destination), settle_conflict(family, key, destination)

local QUEUES = {[2] = true, [BACKLOG] = true}
local STACKS = {[3] = true, [5] = true}
local ACTIVITY, STOP = 5, 6
local ACTIVITY_MAX_ENTRIES = 10
-- Far below the 8,000 values that unpack can take.
local CHUNK = 1000

local function type_of(key)
  return redis.call('TYPE', key).ok
end

local function equal_lists(key, other)
  local length = redis.call('LLEN', key)
  if length ~= redis.call('LLEN', other) then
    return false
  end
  for first = 0, length - 1, CHUNK do
    local values = redis.call('LRANGE', key, first, first + CHUNK - 1)
    for n, value in ipairs(redis.call('LRANGE', other, first, first + CHUNK - 1)) do
      if values[n] ~= value then
        return false
      end
    end
  end
  return true
end

local function equal_hashes(key, other)
  if redis.call('HLEN', key) ~= redis.call('HLEN', other) then
    return false
  end
  local fields = redis.call('HGETALL', key)
  local values = {}
  for n = 1, #fields, 2 do
    values[fields[n]] = fields[n + 1]
  end
  fields = redis.call('HGETALL', other)
  for n = 1, #fields, 2 do
    if values[fields[n]] ~= fields[n + 1] then
      return false
    end
  end
  return true
end

local function equal(key, other, kind)
  if kind == 'list' then
    return equal_lists(key, other)
  elseif kind == 'hash' then
    return equal_hashes(key, other)
  elseif kind == 'string' then
    return redis.call('GET', key) == redis.call('GET', other)
  end
  return redis.call('DUMP', key) == redis.call('DUMP', other)
end

-- How the two are joined: 'equal', 'flag', 'queue' or 'stack'; or nil and why they are not.
local function way_to_join(family, key, destination)
  local kind, other = type_of(key), type_of(destination)
  if kind ~= other then
    return nil, 'destination exists and is a ' .. other .. ', this a ' .. kind
  elseif family == STOP and kind == 'string' then
    return 'flag'
  elseif equal(key, destination, kind) then
    return 'equal'
  elseif HOLDS_RECORDS[family] then
    return nil, 'destination exists and differs'
  elseif kind == 'list' and QUEUES[family] then
    return 'queue'
  elseif kind == 'list' and STACKS[family] then
    return 'stack'
  end
  return nil, 'destination exists, and a ' .. kind .. ' cannot be merged'
end

-- The milliseconds that the joined value lives, -1 for ever.
local function time_to_live(family, key, destination)
  local older, newer = redis.call('PTTL', key), redis.call('PTTL', destination)
  if older < 0 or newer < 0 then
    -- What Tinytown writes to activity ends; one that never does is no reason to keep the other.
    return family == ACTIVITY and newer >= 0 and math.max(newer, 1) or -1
  end
  return math.max(older, newer, 1)
end

local function describe(way, family, key, destination)
  if way == 'equal' then
    return 'merge: equal'
  elseif way == 'flag' then
    return 'merge: the longer time to live'
  end
  local older, newer = redis.call('LLEN', key), redis.call('LLEN', destination)
  if way == 'queue' then
    return 'merge: ' .. older .. ' older, then ' .. newer .. ' newer'
  end
  local bound = family == ACTIVITY and ', of which ' .. ACTIVITY_MAX_ENTRIES .. ' are kept' or ''
  return 'merge: ' .. newer .. ' newer, then ' .. older .. ' older'
    .. (older + newer > ACTIVITY_MAX_ENTRIES and bound or '')
end

-- The key is completed with what the destination has, then takes its place in one rename.
local function join(way, family, key, destination)
  -- Changes nothing, and finds out whether the user may rename while nothing is changed.
  redis.call('RENAME', key, key)
  local lives, lived = time_to_live(family, key, destination), redis.call('PTTL', key)
  if lives < 0 and lived >= 0 then
    redis.call('PERSIST', key)
  elseif lives >= 0 and lives ~= lived then
    redis.call('PEXPIRE', key, lives)
  end
  if way == 'queue' or way == 'stack' then
    local values = redis.call('LRANGE', destination, 0, -1)
    local first, last, step, push = 1, #values, 1, 'RPUSH'
    if way == 'stack' then
      first, last, step, push = #values, 1, -1, 'LPUSH'
    end
    local chunk = {}
    for n = first, last, step do
      chunk[#chunk + 1] = values[n]
      if #chunk == CHUNK or n == last then
        redis.call(push, key, unpack(chunk))
        chunk = {}
      end
    end
    if family == ACTIVITY then
      redis.call('LTRIM', key, 0, ACTIVITY_MAX_ENTRIES - 1)
    end
  end
  redis.call('RENAME', key, destination)
end

-- Calls a function that uses redis.call; its error comes back as plain_error has it.
local function protected(...)
  local fine, result, reason = pcall(...)
  if fine then
    return result, reason
  end
  return nil, nil, plain_error(type(result) == 'table' and result.err or tostring(result))
end

-- What a migration would do with the two: its description, or nil and why it would leave them, or
-- nil, nil and an error.
local function plan_conflict(family, key, destination)
  return protected(function()
    local way, reason = way_to_join(family, key, destination)
    return way and describe(way, family, key, destination), reason
  end)
end

-- Does it. Returns true when the key is gone, or false and why it is still there, or nil, nil and an
-- error.
local function settle_conflict(family, key, destination)
  return protected(function()
    local way, reason = way_to_join(family, key, destination)
    if way then
      join(way, family, key, destination)
    end
    return way ~= nil, reason
  end)
end
