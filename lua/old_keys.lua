-- old_keys.lua: which keys move, and where to: those of the old format into the town.
--
-- Gives: pattern_of(town), move_of(prefix, key), rival_of(key)

-- The glob that SCAN gets.
local function pattern_of(town)
  return 'tt:*'
end

-- The family's number of an old key and its new name, AMBIGUOUS for a name that may be a town's own,
-- nil for the rest.
local function move_of(prefix, key)
  if key == 'tt:backlog' then
    return BACKLOG, prefix .. 'backlog'
  end
  if sub(key, 1, 3) ~= 'tt:' then
    return nil
  end
  local family, id = family_and_id(key, 4)
  if family == nil then
    return nil
  elseif TOWN_WIDE[id] then
    return AMBIGUOUS
  end
  return family, prefix .. sub(key, 4)
end

-- Another old key that has a right to the same new name and goes first, nil for none.
local function rival_of(key)
  return nil
end
