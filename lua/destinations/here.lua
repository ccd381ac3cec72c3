-- destinations/here.lua: which key has the new name of another key already.
--
-- Needs  batch
-- Gives  occupant(destination, rival)

-- Returns the first of two keys that exists, nil if neither exists, or nil and the error of EXISTS. rival may
-- be nil.
local function occupant(destination, rival)
  local exists = try('EXISTS', destination)
  if exists == 1 then
    return destination
  elseif exists == 0 then
    return rival and occupant(rival)
  end
  return nil, plain_error(exists.err, 'EXISTS')
end
