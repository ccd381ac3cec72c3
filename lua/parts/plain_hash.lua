-- parts/plain_hash.lua: tells hashes whose fields may have TTLs of their own.
--
-- Needs  keyspace
-- Gives  is_plain_hash(dump)

-- The first byte of DUMP for hashes that hold only fields and values.
local PLAIN_HASHES = {[4] = true, [9] = true, [13] = true, [16] = true}

-- Returns whether the hash with this DUMP holds only fields and values.
local function is_plain_hash(dump)
  return PLAIN_HASHES[byte(dump)] == true
end
