-- moves/oldest_keys.lua: which keys move: those of old_keys.lua, and mt:agent|inbox|task:<id> of version 0.1.
--
-- Needs  keyspace, moves/old_keys
-- Gives  movers(town), ALL_NAMED, all_of(town), move_of(prefix, key), rival_of(key), in place of old_keys.lua's

local movers_of_old_keys, move_of_old_key = movers, move_of
local MAY_BE_V0_1 = {agent = true, inbox = true, task = true}

local function movers(town)
  return '[mt]' .. sub(movers_of_old_keys(town), 2)
end

local ALL_NAMED = '[mt]t:*'

local function all_of(town)
  return ALL_NAMED
end

-- As in old_keys.lua. Version 0.1 had no towns, so its keys are never ambiguous.
local function move_of(prefix, key)
  if sub(key, 1, 3) ~= 'mt:' then
    return move_of_old_key(prefix, key)
  end
  local family = family_at(key, 4)
  if MAY_BE_V0_1[family] then
    return family, prefix .. sub(key, 4)
  end
  return nil
end

-- mt:agent:1 and tt:agent:1 have the same destination. The tt: key is newer, so it is moved first.
local function rival_of(key)
  local rival = 'tt' .. sub(key, 3)
  if sub(key, 1, 3) == 'mt:' and move_of_old_key('', rival) ~= AMBIGUOUS then
    return rival
  end
  return nil
end
