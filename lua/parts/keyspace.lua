-- parts/keyspace.lua: the parts of a key's name and what they mean.
--
-- Needs  nothing
-- Gives  FAMILIES, RECORDS, IS_RECORD, AMBIGUOUS, WITH_ID, SINCE_0_7, TOWN_WIDE, prefix_of(town),
--        family_at(key, from), is_town_wide(key, from), escaped(text), glob_of(names, letters),
--        records_glob(town), record_of(prefix, key), has_no_old_form(prefix, key), zeros(names), in_order(names, counts), and
--        short names for string functions: find, sub, match, byte

local find, sub, match, byte = string.find, string.sub, string.match, string.byte

-- The key families, and those of them that hold records, in the order that replies use.
local FAMILIES = {'agent', 'inbox', 'urgent', 'task', 'activity', 'stop', 'backlog'}
local RECORDS = {'agent', 'task'}
local IS_RECORD = {agent = true, task = true}
-- Stands in place of a family for a key that may belong to another town.
local AMBIGUOUS = 'ambiguous'
local WITH_ID = {agent = true, inbox = true, urgent = true, task = true, activity = true, stop = true}
-- These words are never ids of a family. They name keys that each town has once, and a town can be named like
-- a family, or like a town and a family: tt:task:backlog is the backlog of the town "task", and
-- tt:x:task:backlog is the backlog of the town "x:task".
local TOWN_WIDE = {backlog = true, events = true, broadcast = true}
local LONGEST_TOWN_WIDE = #'broadcast'
-- What follows the town in keys that exist only since Tinytown 0.7.
local SINCE_0_7 = {events = true, docket = true, mission = true}

-- Returns the start of all keys of a town.
local function prefix_of(town)
  return 'tt:' .. town .. ':'
end

-- Returns the family of a key that continues as `family:id` at position `from`, and the position of the id.
-- Returns nil for any other key.
local function family_at(key, from)
  local colon = find(key, ':', from, true)
  local family = colon and sub(key, from, colon - 1)
  if not WITH_ID[family] or colon == #key or find(key, ':', colon + 1, true) then
    return nil
  end
  return family, colon + 1
end

-- Returns whether the id at position `from` is in TOWN_WIDE. Checks the length first: most ids are longer.
local function is_town_wide(key, from)
  return #key - from < LONGEST_TOWN_WIDE and TOWN_WIDE[sub(key, from)] == true
end

-- Returns a glob that matches only this text.
local function escaped(text)
  return (string.gsub(text, '[%[%]*?\\^-]', '\\%0'))
end

-- Returns a glob that matches every text that starts with one of the names and a colon, and few other texts.
-- It has one set of characters for each of the first `letters` letters. Filtering in SCAN costs a fifth of
-- filtering in a script.
local function glob_of(names, letters)
  local glob = {}
  for n = 1, letters do
    local seen, set = {}, {}
    for _, name in ipairs(names) do
      local letter = sub(name .. ':', n, n)
      if not seen[letter] then
        seen[letter] = true
        set[#set + 1] = letter
      end
    end
    glob[n] = '[' .. table.concat(set) .. ']'
  end
  return table.concat(glob) .. '*'
end

-- Returns a glob that matches the records of a town, and few other keys.
local function records_glob(town)
  return prefix_of(escaped(town)) .. glob_of(RECORDS, 4)
end

local RECORD_BY_LETTER = {}
for _, family in ipairs(RECORDS) do
  RECORD_BY_LETTER[byte(family)] = {start = family .. ':', family = family}
end

-- Returns 'agent' or 'task' for a record of the town with the given prefix, nil for any other key.
local function record_of(prefix, key)
  local from = #prefix + 1
  local known = RECORD_BY_LETTER[byte(key, from)]
  if not known or find(key, prefix, 1, true) ~= 1 or find(key, known.start, from, true) ~= from then
    return nil
  end
  local id = from + #known.start
  if #key < id or find(key, ':', id, true) or is_town_wide(key, id) then
    return nil
  end
  return known.family
end

local SINCE_LETTERS = {[byte('e')] = true, [byte('d')] = true, [byte('m')] = true}

-- Returns whether a key belongs to the town with the given prefix and to a kind that exists only since
-- Tinytown 0.7.
local function has_no_old_form(prefix, key)
  if not SINCE_LETTERS[byte(key, #prefix + 1)] or sub(key, 1, #prefix) ~= prefix then
    return false
  end
  local name = sub(key, #prefix + 1)
  return name == 'events' or SINCE_0_7[match(name, '^(%l+):')] == true
end

-- Returns a count of 0 for each name.
local function zeros(names)
  local counts = {}
  for _, name in ipairs(names) do
    counts[name] = 0
  end
  return counts
end

-- Returns the counts as a list, in the order of the names.
local function in_order(names, counts)
  local list = {}
  for n, name in ipairs(names) do
    list[n] = counts[name]
  end
  return list
end
