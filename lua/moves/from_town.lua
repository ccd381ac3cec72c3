-- moves/from_town.lua: which keys move, and to which destination: those of a town's former name get its new one.
--
-- Needs  batch, keyspace, owner, towns
-- Gives  FAMILIES, movers(town), ALL_NAMED, all_of(town), move_of(prefix, key), rival_of, in place of keyspace.lua's FAMILIES

local FROM = ARGV[6]
if FROM == '' or FROM == prefix_of(ARGV[1] or '') then
  return redis.error_reply('BADARG from: is empty, or of the town itself')
end

local FAMILIES = {'agent', 'inbox', 'urgent', 'task', 'activity', 'stop', 'backlog', 'mission', 'events', 'docket'}

local function movers(town)
  return escaped(FROM) .. '*'
end

local ALL_NAMED = 'tt:*'

local function all_of(town)
  return ALL_NAMED
end

-- Returns the family and the destination of a key of the former name, AMBIGUOUS if name and type do not tell
-- whose key it is or would be, nil for any other key.
local function move_of(prefix, key)
  if find(key, FROM, 1, true) ~= 1 then
    return nil
  elseif not form_of(FROM, key) then
    return is_unknown(FROM, key) and AMBIGUOUS or nil
  end
  local family = family_of(FROM, key)
  if not family or family == AMBIGUOUS then
    return family
  end
  local destination = prefix .. sub(key, #FROM + 1)
  if family_of(prefix, destination, key) ~= family then
    return AMBIGUOUS
  end
  return family, destination
end

-- As in old_keys.lua. Two keys of a town never have the same destination.
local rival_of
