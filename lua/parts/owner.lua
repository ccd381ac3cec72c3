-- parts/owner.lua: tells which town has a key. A town's name may contain colons, so some names can be read in two ways.
-- tt:a:events:agent:<id> is a stream of the town "a", or an agent of the town "a:events": the type tells which.
--
-- Needs  batch, keyspace
-- Gives  form_of(prefix, key), family_of(prefix, key, holder), is_of_other(prefix, key),
--        own_record_of(prefix, key)

local STREAM, LIST, RECORD, NONE = {stream = true}, {list = true}, {hash = true, string = true}, {}
local MISSION_PARTS = {work = true, watch = true, control = true, dispatch_lock = true}

-- Returns whether a text can be the id of a mission in the name of one of its parts. A word that stands before
-- ids is none: tt:a:mission:task:work is a task of the town "a:mission".
local function is_mission(text)
  return not (WITH_ID[text] or SINCE_0_7[text] or TOWN_WIDE[text])
end

-- How the start of a town's keys can be read as a part of a shorter town's: 'events' for tt:a:events:, 'docket' for
-- tt:a:docket:, 'mission' for tt:a:mission:<id>:, false if it cannot.
local READ_AS = setmetatable({}, {__index = function(known, prefix)
  local mission = match(prefix, '^tt:.*:mission:([^:]+):$')
  local word = match(prefix, '^tt:.*:(%l+):$')
  known[prefix] = mission and is_mission(mission) and 'mission' or (word == 'events' or word == 'docket') and word
  return known[prefix]
end})

-- Returns the family of a key of the town with this prefix, by its name; nil for a name that no key of the town
-- has. If another town can have a key of this name, also returns the types of the town's key, and those of the
-- other's.
local function form_of(prefix, key)
  local from = #prefix + 1
  local family, at = family_at(key, from)
  if family and is_town_wide(key, at) then
    return nil
  elseif family == 'agent' and READ_AS[prefix] == 'events' then
    return family, RECORD, STREAM
  elseif family then
    return family
  end
  local name = sub(key, from)
  if name == 'backlog' then
    return 'backlog'
  elseif name == 'docket:tasks' then
    return 'docket'
  elseif name == 'docket:events' or (name == 'events' and READ_AS[prefix] == 'docket') then
    return match(name, '^%l+'), NONE, NONE
  elseif name == 'events' and READ_AS[prefix] == 'mission' then
    return 'events', STREAM, LIST
  elseif name == 'events' then
    return 'events'
  end
  local kind, id = match(name, '^events:(%l+):([^:]+)$')
  if (kind == 'agent' or (kind == 'mission' and id ~= 'active')) and not TOWN_WIDE[id] then
    return 'events', STREAM, RECORD
  end
  local mission = match(name, '^mission:([^:]+)$')
  if mission and not TOWN_WIDE[mission] then
    if READ_AS[prefix] == 'events' and mission ~= 'active' then
      return 'mission', RECORD, STREAM
    end
    return 'mission'
  end
  local of, part = match(name, '^mission:([^:]+):([%l_]+)$')
  if not of or not is_mission(of) then
    return nil
  elseif part == 'events' then
    return 'mission', LIST, STREAM
  end
  return MISSION_PARTS[part] and 'mission' or nil
end

-- Returns the family of a key of the town with this prefix, AMBIGUOUS if neither name nor type tells whose key it is,
-- nil for any other key. holder: the key that has the value now, if that is another one.
local function family_of(prefix, key, holder)
  if find(key, prefix, 1, true) ~= 1 then
    return nil
  end
  local family, own, others = form_of(prefix, key)
  if not own then
    return family
  end
  local kind = try('TYPE', holder or key).ok
  if own[kind] then
    return family
  end
  return not (others[kind] or kind == 'none') and AMBIGUOUS or nil
end

-- Returns whether a key that begins like those of the town with this prefix is another town's by its type.
local function is_of_other(prefix, key)
  local _, _, others = form_of(prefix, key)
  return others ~= nil and others[try('TYPE', key).ok] == true
end

-- Like record_of(), but nil for a key that is another town's by its type.
local function own_record_of(prefix, key)
  local record = record_of(prefix, key)
  -- Only then can a record's name be read in two ways, as in form_of().
  local is_odd = record and READ_AS[prefix] == 'events'
  return not (is_odd and is_of_other(prefix, key)) and record or nil
end
