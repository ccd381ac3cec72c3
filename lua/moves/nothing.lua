-- moves/nothing.lua: which keys move, in a plan that changes records where they are: none.
--
-- Needs  nothing
-- Gives  ALL_NAMED, move_of(prefix, key), rival_of

local ALL_NAMED = 'tt:*'

local function move_of(prefix, key)
  return nil
end

local rival_of
