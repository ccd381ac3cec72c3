-- scopes/hashes.lua: which keys a count looks at: the records of the run's town that are hashes. It names no towns.
--
-- Needs  keyspace, scopes/town
-- Gives  scope(town), TYPE_WANTED, in place of town.lua's

-- As in database.lua.
local function scope(town)
  return records_glob(town)
end

local TYPE_WANTED = 'hash'
