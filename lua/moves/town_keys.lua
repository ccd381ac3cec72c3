-- moves/town_keys.lua: which keys move, and to which destination: keys of one town get their old names back.
--
-- Needs  batch, keyspace, owner
-- Gives  movers(town), ALL_NAMED, all_of(town), move_of(prefix, key), rival_of

local function movers(town)
  return prefix_of(escaped(town)) .. '*'
end

local ALL_NAMED = 'tt:*'
local all_of = movers

-- Returns the family and the old name of a key of the town, AMBIGUOUS if the key or its old name may belong
-- to another town, nil for any other key.
local function move_of(prefix, key)
  if sub(key, 1, #prefix) ~= prefix then
    return nil
  end
  local family, id = family_at(key, #prefix + 1)
  if family then
    if is_town_wide(key, id) then
      return AMBIGUOUS
    end
    local owned = family_of(prefix, key)
    if owned ~= family then
      return owned
    end
    return family, 'tt:' .. sub(key, #prefix + 1)
  elseif key == prefix .. 'backlog' then
    return 'backlog', 'tt:backlog'
  end
  return nil
end

-- As in old_keys.lua. Two keys of a town never have the same old name.
local rival_of
