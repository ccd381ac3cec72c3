-- conversions/as_they_are.lua: leaves records as they are: what it gives is nil.
--
-- Needs  nothing
-- Gives  CONVERTED, CONVERTS_FIRST, converted, convert

local CONVERTED, CONVERTS_FIRST, converted, convert
