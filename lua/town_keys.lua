-- town_keys.lua: which keys move, and where to: those of one town back to the old format.
--
-- Gives: movers(town), all_named(town), move_of(prefix, key), rival_of(key), as old_keys.lua does

local function movers(town)
  return prefix_of(escaped(town)) .. '*'
end

local all_named = movers

-- The family's number of a key of the town and its old name, AMBIGUOUS where the old name might be
-- another town's own, nil for the rest.
local function move_of(prefix, key)
  if sub(key, 1, #prefix) ~= prefix then
    return nil
  end
  local family, id = family_at(key, #prefix + 1)
  if family then
    if is_town_wide(key, id) then
      return AMBIGUOUS
    end
    return family, 'tt:' .. sub(key, #prefix + 1)
  elseif key == prefix .. 'backlog' then
    return BACKLOG, 'tt:backlog'
  end
  return nil
end

local function rival_of(key)
  return nil
end
