-- town_keys.lua: which keys move, and where to: those of one town back to the old format.
--
-- Gives: pattern_of(town), move_of(prefix, key), rival_of(key), as old_keys.lua does

-- The glob that SCAN gets: a town's name may hold what a glob gives a meaning to.
local function pattern_of(town)
  return prefix_of((string.gsub(town, '[%[%]*?\\^-]', '\\%0'))) .. '*'
end

-- The family's number of a key of the town and its old name, AMBIGUOUS where the old name might be
-- another town's own, nil for the rest.
local function move_of(prefix, key)
  if sub(key, 1, #prefix) ~= prefix then
    return nil
  end
  local name = sub(key, #prefix + 1)
  if name == 'backlog' then
    return BACKLOG, 'tt:backlog'
  end
  local family, id = family_and_id(name, 1)
  if family == nil then
    return nil
  elseif TOWN_WIDE[id] then
    return AMBIGUOUS
  end
  return family, 'tt:' .. name
end

local function rival_of(key)
  return nil
end
