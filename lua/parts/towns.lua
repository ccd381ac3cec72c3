-- parts/towns.lua: collects the names of towns, found in keys of the new format.
--
-- Needs  batch, keyspace, owner
-- Gives  towns, town_of(key), is_unknown(prefix, key), note_town(prefix, key, is_own)

-- The towns found so far, each once.
local towns = {}
local seen = {}
-- The starts of the keys of towns that are known: most keys are told by them, and patterns are slow.
local known_prefixes = {}
local MOST_KNOWN = 8

-- Returns whether a key surely belongs to the town with the given prefix. What follows the prefix has one
-- colon, and too much after it for the name of a key that each town has once.
local function belongs_to(prefix, key)
  if find(key, prefix, 1, true) ~= 1 then
    return false
  end
  local colon = find(key, ':', #prefix + 1, true)
  return colon and #key - colon > LONGEST_TOWN_WIDE and not find(key, ':', colon + 1, true)
end

-- What follows the town in a key has one to three parts.
local READINGS = {'^tt:(.+):[^:]+$', '^tt:(.+):[^:]+:[^:]+$', '^tt:(.+):[^:]+:[^:]+:[^:]+$'}

-- Returns the town of a key whose name no Tinytown uses: broadcast, and unknown names after a word of SINCE_0_7.
local function town_of_odd(key)
  local town, part = match(key, '^tt:(.+):(%l+)$')
  if part == 'broadcast' then
    return town
  end
  town, part = match(key, '^tt:(.-):(%l+):')
  if town and town ~= '' and SINCE_0_7[part] then
    return town
  end
  return nil
end

-- Returns the town of a key of the new format, nil for any other key.
local function town_of(key)
  for _, reading in ipairs(READINGS) do
    local town = match(key, reading)
    local family = town and family_of(prefix_of(town), key)
    if family and family ~= AMBIGUOUS then
      return town
    end
  end
  return town_of_odd(key)
end

-- Returns whether a migration has made the key: kept_cursor.lua's key for a cursor, and the hidden names and marks of
-- clusters.
local function is_ours(key)
  return find(key, ':flight:%x+:0x%x+$') or find(key, '^tt:{.*}:mov[ie]%l+:%d+%-%x+%-%d+:')
end

-- Returns whether a key begins like those of the town with this prefix, and its name has no known form, of this town
-- or another. A future Tinytown may have made it.
local function is_unknown(prefix, key)
  for _, reading in ipairs(READINGS) do
    local town = match(key, reading)
    if town and form_of(prefix_of(town), key) then
      return false
    end
  end
  local town = town_of_odd(key)
  return (not town or prefix_of(town) == prefix) and not family_at(key, #'tt:' + 1) and not is_ours(key)
end

-- Whether it is known that the run's town has keys.
local has_own = false

-- Adds the town of a key to towns. prefix: of the run's town, which has most keys. is_own: whether the key is surely
-- one of them; else that is found out.
local function note_town(prefix, key, is_own)
  if is_own and has_own then
    return
  end
  has_own = has_own or is_own
  local colon = find(key, ':', #'tt:' + 1, true)
  if colon and #key - colon > LONGEST_TOWN_WIDE and not find(key, ':', colon + 1, true) then
    -- Most old keys: a town's name and a word of TOWN_WIDE would be shorter.
    return
  end
  for n = 1, #known_prefixes do
    if belongs_to(known_prefixes[n], key) then
      return
    end
  end
  local town = not is_ours(key) and town_of(key)
  if town and not seen[town] then
    seen[town] = true
    towns[#towns + 1] = town
    if prefix_of(town) == prefix or #known_prefixes < MOST_KNOWN then
      table.insert(known_prefixes, 1, prefix_of(town))
    end
  end
end
