-- moves/string_keys.lua: which keys move, in a downgrade: those of town_keys.lua, but no records that are hashes, which
-- Tinytown 0.6 cannot read.
--
-- Needs  batch, keyspace, moves/town_keys
-- Gives  move_of(prefix, key), in place of town_keys.lua's

local move_of_town_key = move_of

-- As in town_keys.lua.
local function move_of(prefix, key)
  local family, destination = move_of_town_key(prefix, key)
  if IS_RECORD[family] and try('TYPE', key).ok == 'hash' then
    return nil
  end
  return family, destination
end
