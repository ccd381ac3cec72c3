-- conflicts/merge.lua: merges a key with its destination if the destination exists and Tinytown's use of the family
-- shows how. The key's values are the older ones.
--
--   inbox, backlog    messages are pushed to the tail and popped from the head: older values first
--   urgent, activity  values are pushed to the head: newer values first; activity keeps 10
--   stop              a flag: the newer value
--   mission           the set of active missions: the union; lists of events: newer values first
--   events            streams, if they have no consumer groups: all entries in the order of their ids
--   agent, task       records: not merged unless they are equal
--
-- Two equal values of any family become one. The longer of two TTLs is kept; no TTL counts as the longest.
--
-- A merge happens completely or not at all, even if the server refuses a command: the first call of each
-- command changes nothing, is the first change, or can be undone by a command that has just been permitted.
--
-- Needs  batch, keyspace, plain_hash, difference, keep_one, union, <renames>
-- Gives  MERGES, QUEUES, STACKS, type_in(family, key), length_of(key, kind), equal(key, other, kind),
--        way_to_join(family, kind, destination, is_equal, digests),
--        describe(way, family, destination, length, is_same),
--        join_flags(key, destination, key_stays), join_lists(way, family, key, destination, key_stays),
--        plan_conflict(family, key, destination), settle_conflict(family, key, destination)

-- Whether conflicts are settled by merging, which can take longer than renaming a key.
local MERGES = true
local QUEUES = {inbox = true, backlog = true}
local STACKS = {urgent = true, activity = true, mission = true}
local ACTIVITY_MAX_ENTRIES = 10
-- What each way to join two keys does.
local HOW = {
  equal = 'equal values', flag = 'the newer value', queue = 'older values first', stack = 'newer values first',
  set = 'the members of both', stream = 'in the order of their ids',
}
local LENGTHS = {list = 'LLEN', set = 'SCARD', stream = 'XLEN'}
-- Lists are compared in at most PARTS parts, each of at least SMALLEST_PART values. LRANGE walks the list to
-- reach a part, so without a limit on the number of parts long lists would take quadratic time.
local PARTS, SMALLEST_PART = 256, 50

-- Returns the type of a key of a family. A stream of events with consumer groups has a type of its own: what groups
-- know of a stream cannot be merged.
local function type_in(family, key)
  local kind = call('TYPE', key).ok
  if family == 'events' and kind == 'stream' and #call('XINFO', 'GROUPS', key) > 0 then
    return 'stream with consumer groups'
  end
  return kind
end

-- Returns how many values a list, set or stream has, 0 for any other key.
local function length_of(key, kind)
  return LENGTHS[kind] and call(LENGTHS[kind], key) or 0
end

local function equal_lists(key, other)
  local length = call('LLEN', key)
  if length ~= call('LLEN', other) then
    return false
  end
  local part = math.max(SMALLEST_PART, math.ceil(length / PARTS))
  for first = 0, length - 1, part do
    local last = first + part - 1
    local values = call('LRANGE', key, first, last)
    for n, value in ipairs(call('LRANGE', other, first, last)) do
      if values[n] ~= value then
        return false
      end
    end
  end
  return true
end

local function equal_hashes(key, other)
  if call('HLEN', key) ~= call('HLEN', other) then
    return false
  end
  local dump, other_dump = call('DUMP', key), call('DUMP', other)
  if dump == other_dump then
    return true
  elseif not (is_plain_hash(dump) and is_plain_hash(other_dump)) then
    -- HGETALL does not show the TTLs of fields.
    return false
  end
  -- The fields may be the same in another order or encoding.
  local fields = call('HGETALL', key)
  local values = {}
  for n = 1, #fields, 2 do
    values[fields[n]] = fields[n + 1]
  end
  fields = call('HGETALL', other)
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
    return call('GET', key) == call('GET', other)
  end
  return call('DUMP', key) == call('DUMP', other)
end

-- Returns how to merge a key of a type with its destination: 'equal', 'flag', 'queue', 'stack', 'set' or 'stream'; or
-- nil and why they stay apart. is_equal(): whether the two are equal. digests(): those of the key's fields, if it
-- is a record.
local function way_to_join(family, kind, destination, is_equal, digests)
  local other, reason = type_in(family, destination), nil
  if WITH_ID[family] and TOWN_WIDE[match(destination, '([^:]*)$')] then
    return nil, 'destination exists, and may be another town\'s own'
  elseif kind ~= other then
    reason = 'destination exists and is a ' .. other .. ', this a ' .. kind
  elseif family == 'stop' and kind == 'string' then
    return 'flag'
  elseif is_equal() then
    return 'equal'
  elseif IS_RECORD[family] then
    reason = 'destination exists and differs'
  elseif kind == 'list' and QUEUES[family] then
    return 'queue'
  elseif kind == 'list' and STACKS[family] then
    return 'stack'
  elseif can_unite(family, kind) then
    return kind
  else
    reason = 'destination exists, and a ' .. kind .. ' cannot be merged'
  end
  if IS_RECORD[family] then
    local others = digests_of(family, match(destination, '([^:]*)$'), destination, other)
    reason = difference(digests(), kind, others, other) or reason
  end
  return nil, reason
end

-- Returns what joining a key of so many values with its destination does. is_same(): whether the two have the
-- same value.
local function describe(way, family, destination, length, is_same)
  if way == 'equal' then
    return 'merge: equal'
  elseif way == 'flag' then
    return 'merge: ' .. (is_same() and '' or 'the newer value, ') .. 'the longer time to live'
  end
  if way == 'set' or way == 'stream' then
    local what = way == 'set' and ' members, ' or ' entries, '
    return 'merge: ' .. length .. ' and ' .. length_of(destination, way) .. what .. HOW[way]
  end
  local older, newer = length, call('LLEN', destination)
  if way == 'queue' then
    return 'merge: ' .. older .. ' older, then ' .. newer .. ' newer'
  end
  local bound = family == 'activity' and ', of which ' .. ACTIVITY_MAX_ENTRIES .. ' are kept' or ''
  return 'merge: ' .. newer .. ' newer, then ' .. older .. ' older'
    .. (older + newer > ACTIVITY_MAX_ENTRIES and bound or '')
end

local function join_flags(key, destination, key_stays)
  local older, newer = call('GET', key), call('GET', destination)
  if older == newer or not key_stays then
    return keep_one(key, destination, key_stays)
  end
  call('SET', key, newer, 'KEEPTTL')
  local fine, err = pcall(keep_one, key, destination, key_stays)
  if not fine then
    call('SET', key, older, 'KEEPTTL')
    error(err, 0)
  end
end

-- Moves all values of a list to the tail or the head of another list and keeps their order.
local function move_values(from, to, to_tail)
  for _ = 1, math.ceil(call('LLEN', from) / CHUNK) do
    if to_tail then
      call('RPUSH', to, unpack(call('LRANGE', from, 0, CHUNK - 1)))
      call('LTRIM', from, CHUNK, -1)
    else
      local values, reversed = call('LRANGE', from, -CHUNK, -1), {}
      for n, value in ipairs(values) do
        reversed[#values + 1 - n] = value
      end
      call('LPUSH', to, unpack(reversed))
      call('LTRIM', from, 0, -CHUNK - 1)
    end
  end
end

local function join_lists(way, family, key, destination, key_stays)
  local from, to = key, destination
  if key_stays then
    from, to = destination, key
  end
  -- These calls change nothing, but fail if LTRIM is refused. A refused push changes nothing either.
  call('LTRIM', from, 0, -1)
  call('LTRIM', to, 0, -1)
  move_values(from, to, (way == 'queue') == key_stays)
  if family == 'activity' then
    call('LTRIM', to, 0, ACTIVITY_MAX_ENTRIES - 1)
  end
  local reply = key_stays and rename(key, destination)
  if type(reply) == 'table' then
    error(reply, 0)
  end
end

-- The key with the longer TTL stays and takes the other key's values, so no TTL has to be set.
local function join(way, family, key, destination)
  if way == 'set' or way == 'stream' then
    return unite(way, key, destination)
  end
  -- Compared once: time passes between calls, so for nearly equal TTLs the result could change.
  local key_stays = outlives(key, destination)
  if way == 'equal' then
    keep_one(key, destination, key_stays)
  elseif way == 'flag' then
    join_flags(key, destination, key_stays)
  else
    join_lists(way, family, key, destination, key_stays)
  end
end

-- Calls a function that uses call(). Returns its two results, or nil, nil and the error as a text.
local function protected(...)
  local fine, result, reason = pcall(...)
  if fine then
    return result, reason
  end
  return nil, nil, caught(result)
end

local function way_for(family, key, destination)
  local kind = type_in(family, key)
  return way_to_join(family, kind, destination, function()
    return equal(key, destination, kind)
  end, function()
    return digests_of(family, match(destination, '([^:]*)$'), key, kind)
  end)
end

-- Returns a description of what a migration would do with the two keys, nil and the reason if it would leave
-- them, or nil, nil and an error. Streams are read: a merge can fail because of what they hold.
local function plan_conflict(family, key, destination)
  return protected(function()
    local way, reason = way_for(family, key, destination)
    if not way then
      return nil, reason
    elseif way == 'stream' and not denied.XRANGE then
      check_union(key, destination)
    end
    return describe(way, family, destination, length_of(key, call('TYPE', key).ok), function()
      return equal(key, destination, 'string')
    end)
  end)
end

-- Merges the two keys if possible. Returns true and how if the key is gone, false and the reason if it is
-- still there, or nil, nil and an error.
local function settle_conflict(family, key, destination)
  return protected(function()
    local way, reason = way_for(family, key, destination)
    if way then
      join(way, family, key, destination)
    end
    return way ~= nil, HOW[way] or reason
  end)
end
