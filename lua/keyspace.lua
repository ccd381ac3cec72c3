-- keyspace.lua: what the parts of a key's name mean. Put before every script that tells keys apart.
--
-- Gives: FAMILY_COUNT, AMBIGUOUS, family_of(key), prefix_of(town), new_key(prefix, key),
--        town_of(key, prefix)
--
-- The families' numbers are the order in which every reply counts them:
-- agent, inbox, urgent, task, activity, stop, backlog.

local find, sub, match = string.find, string.sub, string.match

local FAMILY_COUNT = 7
local BACKLOG = 7
local AMBIGUOUS = 0
local WITH_ID = {agent = 1, inbox = 2, urgent = 3, task = 4, activity = 5, stop = 6}
-- Third parts that a town named like a family has as well: tt:task:backlog is town "task"'s backlog.
local TOWN_WIDE = {backlog = true, events = true, broadcast = true}
local SINCE_0_7 = {events = true, docket = true, mission = true}

-- The family of a name that goes on as `family:id` at a position, and the id; nil for another name.
local function family_and_id(key, from)
  local colon = find(key, ':', from, true)
  local family = colon and WITH_ID[sub(key, from, colon - 1)]
  if not family or colon == #key or find(key, ':', colon + 1, true) then
    return nil
  end
  return family, sub(key, colon + 1)
end

-- The family's number of an old key, AMBIGUOUS for a name that may be a town's own, nil for the rest.
local function family_of(key)
  if key == 'tt:backlog' then
    return BACKLOG
  end
  if sub(key, 1, 3) ~= 'tt:' then
    return nil
  end
  local family, id = family_and_id(key, 4)
  if family and TOWN_WIDE[id] then
    return AMBIGUOUS
  end
  return family
end

-- What the names of a town's keys begin with.
local function prefix_of(town)
  return 'tt:' .. town .. ':'
end

local function new_key(prefix, key)
  return prefix .. sub(key, 4)
end

-- The town of a key of the new format, nil for any other key and for a family's key of the town with
-- the given prefix: nearly every key is one after a migration, and patterns are slow. A town's name
-- may hold colons, so names that end like a family's key are read from the end.
local function town_of(key, prefix)
  if sub(key, 1, #prefix) == prefix and family_and_id(key, #prefix + 1) then
    return nil
  end
  local town, part = match(key, '^tt:(.+):(%l+)$')
  if town and TOWN_WIDE[part] then
    return town
  end
  town, part = match(key, '^tt:(.+):(%l+):[^:]+$')
  if town and WITH_ID[part] then
    return town
  end
  town, part = match(key, '^tt:(.-):(%l+):')
  if town and town ~= '' and SINCE_0_7[part] then
    return town
  end
  return nil
end
