-- keyspace.lua: what the parts of a key's name mean. Put before every script that tells keys apart.
--
-- Gives: FAMILY_COUNT, BACKLOG, AMBIGUOUS, MAY_BE_V0_1, HOLDS_RECORDS, prefix_of(town),
--        family_at(key, from), family_of_old(key), is_town_wide(key, from), escaped(text), record_of(prefix, key),
--        town_of(key, prefix), has_no_old_form(prefix, key)
--
-- The families' numbers are the order in which every reply counts them:
-- agent, inbox, urgent, task, activity, stop, backlog.

local find, sub, match, byte = string.find, string.sub, string.match, string.byte

local FAMILY_COUNT = 7
local BACKLOG = 7
-- In place of a family's number: a name that may be a town's own.
local AMBIGUOUS = 0
local WITH_ID = {agent = 1, inbox = 2, urgent = 3, task = 4, activity = 5, stop = 6}
-- By family number: agent, inbox and task are as old as version 0.1; agents and tasks are records.
local MAY_BE_V0_1 = {[1] = true, [2] = true, [4] = true}
local HOLDS_RECORDS = {[1] = 1, [4] = 2}
-- Third parts that a town named like a family has as well: tt:task:backlog is town "task"'s backlog.
local TOWN_WIDE = {backlog = true, events = true, broadcast = true}
local LONGEST_TOWN_WIDE = #'broadcast'
local SINCE_0_7 = {events = true, docket = true, mission = true}

-- What the names of a town's keys begin with.
local function prefix_of(town)
  return 'tt:' .. town .. ':'
end

-- The family of a name that goes on as `family:id` at a position, and where the id begins; nil for
-- another name.
local function family_at(key, from)
  local colon = find(key, ':', from, true)
  local family = colon and WITH_ID[sub(key, from, colon - 1)]
  if not family or colon == #key or find(key, ':', colon + 1, true) then
    return nil
  end
  return family, colon + 1
end

-- The family of an old key and where its id begins; nil for another name. As family_at(), but quicker:
-- every key that moves comes by here, the second letter tells families with an id apart, and a plain
-- find makes no string.
local BY_SECOND_LETTER = {}
for name, family in pairs(WITH_ID) do
  BY_SECOND_LETTER[byte(name, 2)] = {family = family, start = 'tt:' .. name .. ':', id = #name + 5}
end

local function family_of_old(key)
  local known = BY_SECOND_LETTER[byte(key, 5)]
  if not known or find(key, known.start, 1, true) ~= 1 then
    return nil
  end
  local id = known.id
  if #key < id or find(key, ':', id, true) then
    return nil
  end
  return known.family, id
end

-- Whether the id that begins at a position is one that TOWN_WIDE has. Most are longer than any.
local function is_town_wide(key, from)
  return #key - from < LONGEST_TOWN_WIDE and TOWN_WIDE[sub(key, from)] == true
end

-- A text as a glob that matches just it.
local function escaped(text)
  return (string.gsub(text, '[%[%]*?\\^-]', '\\%0'))
end

-- 1 for an agent of the town with the given prefix, 2 for a task, nil for any other key.
local function record_of(prefix, key)
  if sub(key, 1, #prefix) ~= prefix then
    return nil
  end
  local family = family_at(key, #prefix + 1)
  return family and HOLDS_RECORDS[family]
end

-- The town of a key of the new format, nil for any other key and for a family's key of the town with
-- the given prefix: nearly every key is one after a migration, and patterns are slow. A town's name
-- may hold colons, so names that end like a family's key are read from the end.
local function town_of(key, prefix)
  if sub(key, 1, #prefix) == prefix and family_at(key, #prefix + 1) then
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

-- Whether a key is one that the town with the given prefix did not have before 0.7.
local function has_no_old_form(prefix, key)
  if sub(key, 1, #prefix) ~= prefix then
    return false
  end
  local name = sub(key, #prefix + 1)
  return name == 'events' or SINCE_0_7[match(name, '^(%l+):')] == true
end
