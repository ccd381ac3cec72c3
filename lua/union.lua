-- union.lua: unites a key with its destination: sets of active missions, and streams of events.
--
-- Needs  batch, keyspace, <renames>
-- Gives  can_unite(family, kind), unite(kind, key, destination)

local MEMBERS_A_CALL = 1000

-- Returns whether two keys of a family and a type can be united. kind: as type_in() of merge.lua returns it.
local function can_unite(family, kind)
  return (family == 'mission' and kind == 'set') or (family == 'events' and kind == 'stream')
end

-- Returns the two parts of the id of a stream's entry, as texts: numbers to 2^64-1 are too long for Lua.
local function id_of(entry)
  return match(entry[1], '^(%d+)-(%d+)$')
end

-- Returns whether an id comes before another.
local function comes_before(time, number, other_time, other_number)
  if time ~= other_time then
    return #time < #other_time or (#time == #other_time and time < other_time)
  end
  return #number < #other_number or (#number == #other_number and number < other_number)
end

-- Returns whether two entries have the same fields and values.
local function are_same(fields, others)
  for n = 1, math.max(#fields, #others) do
    if fields[n] ~= others[n] then
      return false
    end
  end
  return true
end

-- Returns the smallest id after another one.
local function id_after(time, number)
  if #number > 15 then
    error({err = 'ERR an entry has no id that is free: ' .. time .. '-' .. number}, 0)
  end
  return time, string.format('%.0f', tonumber(number) + 1)
end

-- Returns the entries of two streams in the order of their ids. Two equal entries of one id become one. Of two
-- different ones, the other stream's gets the next free id.
local function entries_of_both(key, other)
  local streams, at, entries = {call('XRANGE', key, '-', '+'), call('XRANGE', other, '-', '+')}, {1, 1}, {}
  local last_time, last_number, last_id, last_fields
  while streams[1][at[1]] or streams[2][at[2]] do
    local one, two = streams[1][at[1]], streams[2][at[2]]
    local which = one and 1 or 2
    if one and two then
      local time, number = id_of(one)
      which = (one[1] == two[1] or comes_before(time, number, id_of(two))) and 1 or 2
    end
    local entry = streams[which][at[which]]
    at[which] = at[which] + 1
    if entry[1] ~= last_id or not are_same(entry[2], last_fields) then
      local time, number = id_of(entry)
      if last_time and not comes_before(last_time, last_number, time, number) then
        time, number = id_after(last_time, last_number)
      end
      last_time, last_number, last_id, last_fields = time, number, entry[1], entry[2]
      entries[#entries + 1] = {time .. '-' .. number, entry[2]}
    end
  end
  return entries
end

-- Returns the members of two sets, each once.
local function members_of_both(key, other)
  local found, members = {}, {}
  for _, name in ipairs({key, other}) do
    for _, member in ipairs(call('SMEMBERS', name)) do
      if not found[member] then
        found[member] = true
        members[#members + 1] = member
      end
    end
  end
  return members
end

local BUILD = {
  set = function(key, members)
    for from = 1, #members, MEMBERS_A_CALL do
      call('SADD', key, unpack(members, from, math.min(from + MEMBERS_A_CALL - 1, #members)))
    end
  end,
  stream = function(key, entries)
    for _, entry in ipairs(entries) do
      call('XADD', key, entry[1], unpack(entry[2]))
    end
  end,
}
local VALUES = {set = members_of_both, stream = entries_of_both}

-- Builds the union in the key's place, and then lets it replace the destination. The longer of two TTLs is kept; no
-- TTL counts as the longest. If the server refuses a command, the key gets its value back.
local function unite(kind, key, destination)
  local values = VALUES[kind](key, destination)
  if #values == 0 then
    return discard(key, destination)
  end
  local copy, ttl, other_ttl = call('DUMP', key), call('PTTL', key), call('PTTL', destination)
  -- This changes nothing, but fails with another error if RESTORE is refused.
  local refused = try('RESTORE', key, 0, copy)
  if not find(refused.err or '', 'BUSYKEY', 1, true) then
    error({err = plain_error(refused.err or 'ERR the key is gone', 'RESTORE')}, 0)
  end
  local fine, err = pcall(function()
    call('DEL', key)
    BUILD[kind](key, values)
    if ttl >= 0 and other_ttl >= 0 then
      call('PEXPIRE', key, math.max(ttl, other_ttl, 1))
    end
    replace(key, destination)
  end)
  if not fine then
    try('DEL', key)
    call('RESTORE', key, ttl < 0 and 0 or math.max(ttl, 1), copy)
    error(err, 0)
  end
end
