-- moves/old_keys.lua: which keys move, and to which destination: keys of the old format get the town's name.
--
-- Needs  keyspace
-- Gives  movers(town), ALL_NAMED, all_of(town), move_of(prefix, key), rival_of

-- Returns a glob that matches the keys to move and few others. SCAN returns most renamed keys again, so the
-- glob must not match them.
local function movers(town)
  return 'tt:' .. glob_of(FAMILIES, 5)
end

-- A glob that matches the keys to move and the keys of all towns.
local ALL_NAMED = 'tt:*'

-- Returns a glob that matches the keys to move and those of the town.
local function all_of(town)
  return ALL_NAMED
end

-- How the old keys of each family begin, and the position of the id. The index is the family's second letter,
-- which is different for each family.
local BY_SECOND_LETTER = {}
for name in pairs(WITH_ID) do
  BY_SECOND_LETTER[byte(name, 2)] = {family = name, start = 'tt:' .. name .. ':', id = #name + 5}
end

-- Returns an old key's family and destination, AMBIGUOUS if the key may belong to another town, nil for any
-- other key. This runs for every key to move, so it avoids creating strings other than the destination.
local function move_of(prefix, key)
  local known = BY_SECOND_LETTER[byte(key, 5)]
  if not known or find(key, known.start, 1, true) ~= 1 then
    if key == 'tt:backlog' then
      return 'backlog', prefix .. 'backlog'
    end
    return nil
  end
  local id = known.id
  if #key < id or find(key, ':', id, true) then
    return nil
  elseif #key - id < LONGEST_TOWN_WIDE and TOWN_WIDE[sub(key, id)] then
    -- A key of this town is not ambiguous.
    return known.start ~= prefix and AMBIGUOUS or nil
  end
  return known.family, prefix .. sub(key, 4)
end

-- rival_of(key) returns another old key that has the same destination and is moved first, nil if there is
-- none. rival_of itself is nil if two old keys never have the same destination, as here.
local rival_of
