-- towns.lua: collects the names of other towns, found in keys of the new format.
--
-- Needs  keyspace
-- Gives  note_town(prefix, key), other_towns

-- The other towns found so far, each once.
local other_towns = {}
local seen = {}
-- The starts of the keys of towns that are known: most keys are told by them, and patterns are slow.
local known_prefixes
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

-- Returns the town of a key of the new format, nil for any other key. A town's name may contain colons, so a
-- key that ends like a family key is parsed from the end.
local function town_of(key)
  local town, part = match(key, '^tt:(.+):(%l+)$')
  if town and TOWN_WIDE[part] then
    return town
  end
  town, part = match(key, '^tt:(.+):(%l+):[^:]+$')
  if town and WITH_ID[part] then
    return town
  end
  town, part = match(key, '^tt:(.-):(%l+):')
  if town and town ~= '' and SINCE_0_7[part] then
    return town
  end
  return nil
end

-- Returns whether a migration has made the key: flight.lua's key for a cursor, and the hidden names and marks of
-- clusters.
local function is_ours(key)
  return find(key, ':flight:%x+:0x%x+$') or find(key, '^tt:{.*}:mov[ie]%l+:%d+%-%x+%-%d+:')
end

-- Adds the town of a key to other_towns, unless it is the town with the given prefix.
local function note_town(prefix, key)
  known_prefixes = known_prefixes or {prefix}
  for n = 1, #known_prefixes do
    if belongs_to(known_prefixes[n], key) then
      return
    end
  end
  local town = not is_ours(key) and town_of(key)
  if town and not seen[town] then
    seen[town] = true
    if prefix_of(town) ~= prefix then
      other_towns[#other_towns + 1] = town
    end
    if #known_prefixes < MOST_KNOWN then
      known_prefixes[#known_prefixes + 1] = prefix_of(town)
    end
  end
end
