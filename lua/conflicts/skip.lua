-- conflicts/skip.lua: leaves a key whose destination exists where it is.
--
-- Needs  nothing
-- Gives  MERGES, plan_conflict(family, key, destination), settle_conflict(family, key, destination)

-- Whether conflicts are settled by merging, which can take longer than renaming a key.
local MERGES = false

-- Returns a description of what a migration would do with the two keys, or nil and the reason if it would
-- leave them.
local function plan_conflict(family, key, destination)
  return nil, 'destination exists'
end

-- Returns true and how if the key is gone, or false and the reason if it is still there.
local function settle_conflict(family, key, destination)
  return false, 'destination exists'
end
