-- scopes/town.lua: which keys a count looks at: the keys to move and those of the run's town. It names no towns.
--
-- Needs  <moves>
-- Gives  towns, note_town(prefix, key, is_own), scope(town), TYPE_WANTED, in place of towns.lua's

local towns = {}

local function note_town(prefix, key, is_own)
end

-- As in database.lua.
local function scope(town)
  return all_of(town)
end

local TYPE_WANTED
