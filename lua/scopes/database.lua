-- scopes/database.lua: which keys a count looks at: all keys of all towns. It names the towns.
--
-- Needs  keyspace, owner, towns, <moves>
-- Gives  scope(town), TYPE_WANTED

-- Returns the glob of the keys to visit. Their type, nil for keys of any type.
local function scope(town)
  return ALL_NAMED
end

local TYPE_WANTED
