-- destinations/elsewhere.lua: in a cluster of several shards, the new name of a key can belong to another server.
-- Then the client asks that server whether the name is taken, and a script assumes that it is free.
--
-- Needs  nothing
-- Gives  occupant(destination, rival)

local function occupant(destination, rival)
  return nil
end
