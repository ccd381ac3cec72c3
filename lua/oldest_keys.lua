-- oldest_keys.lua: adds version 0.1's keys, mt:agent|inbox|task:<id>, to those that move. Put after
-- old_keys.lua.
--
-- Gives: pattern_of(town), move_of(prefix, key), rival_of(key), in place of old_keys.lua's

local move_of_old_key = move_of

pattern_of = function(town)
  return '[mt]t:*'
end

-- As in old_keys.lua. Version 0.1 knew no towns: none of its names is ambiguous.
move_of = function(prefix, key)
  if sub(key, 1, 3) ~= 'mt:' then
    return move_of_old_key(prefix, key)
  end
  local family = family_and_id(key, 4)
  if family and MAY_BE_V0_1[family] then
    return family, prefix .. sub(key, 4)
  end
  return nil
end

-- Of mt:agent:1 and tt:agent:1 the second is the younger: it gets the name.
rival_of = function(key)
  local rival = 'tt' .. sub(key, 3)
  if sub(key, 1, 3) == 'mt:' and move_of_old_key('', rival) ~= AMBIGUOUS then
    return rival
  end
  return nil
end
