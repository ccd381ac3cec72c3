-- keyspace.lua: what the parts of a key's name mean. Put before every script that tells keys apart.
--
-- Gives: FAMILY_COUNT, BACKLOG, AMBIGUOUS, family_of(key), town_of(key), new_key(town, key)
--
-- The families' numbers are the order in which every reply counts them:
-- agent, inbox, urgent, task, activity, stop, backlog.
--
-- Names are taken apart with plain finds: a town or an id may hold any byte, pattern characters too.

local FAMILY_COUNT = 7
local BACKLOG = 7
local AMBIGUOUS = 0
local WITH_ID = {agent = 1, inbox = 2, urgent = 3, task = 4, activity = 5, stop = 6}
-- Third parts that a town named like a family has as well: tt:task:backlog is town "task"'s backlog.
local TOWN_WIDE = {backlog = true, events = true, broadcast = true}
local SINCE_0_7 = {events = true, docket = true, mission = true}

-- The family's number of an old key, AMBIGUOUS for a name that may be a town's own, nil for the rest.
local function family_of(key)
  if key == 'tt:backlog' then
    return BACKLOG
  end
  local colon = string.find(key, ':', 4, true)
  if not colon or colon == #key or string.sub(key, 1, 3) ~= 'tt:' then
    return nil
  end
  local family = WITH_ID[string.sub(key, 4, colon - 1)]
  if not family or string.find(key, ':', colon + 1, true) then
    return nil
  end
  if TOWN_WIDE[string.sub(key, colon + 1)] then
    return AMBIGUOUS
  end
  return family
end

-- The town of a key of the new format, nil for any other key. A town's name may hold colons, so
-- names that end like a family's key are read from the end.
local function town_of(key)
  local town, part = string.match(key, '^tt:(.+):(%l+)$')
  if town and TOWN_WIDE[part] then
    return town
  end
  town, part = string.match(key, '^tt:(.+):(%l+):[^:]+$')
  if town and WITH_ID[part] then
    return town
  end
  town, part = string.match(key, '^tt:(.-):(%l+):')
  if town and town ~= '' and SINCE_0_7[part] then
    return town
  end
  return nil
end

local function new_key(town, key)
  return 'tt:' .. town .. ':' .. string.sub(key, 4)
end
