-- conversions/to_hash_in_place.lua: turns records from JSON strings into hashes, and leaves all keys their names.
--
-- Needs  conversions/to_hash
-- Gives  CONVERTS_FIRST

local CONVERTS_FIRST = true
