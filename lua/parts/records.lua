-- parts/records.lua: reads the records that are to be converted, and converts them.
--
-- Needs  batch, keyspace, owner, <conversions>
-- Gives  record_to_convert(prefix, key, destination), read_record(prefix, family, key, name, kind),
--        convert_record(key, name, value), is_reading_enough(budget), adjusted, note_adjusted(changes), adjustments()

local IS_RECORD_TYPE = {string = true, hash = true, none = true}

-- Bytes of values since the clock was looked at, how many are worth a look, and whether the budget is spent.
local unlooked, MUCH, has_enough = 0, 16384, false

-- Returns whether reading records has taken all time of a call.
local function is_reading_enough(budget)
  if unlooked > MUCH and not has_enough then
    unlooked, has_enough = 0, is_time_spent(budget)
  end
  return has_enough
end

-- Returns the family of a record that may have to be converted, nil for any other key, and the key's name in the
-- town. destination: its new name, nil if it does not move.
local function record_to_convert(prefix, key, destination)
  local name = not CONVERTS_FIRST and destination or key
  return CONVERTED and own_record_of(prefix, name), name
end

local function read_if_converted(family, key, id, kind)
  kind = kind or call('TYPE', key).ok
  if kind == CONVERTED then
    local value, size, changes = converted(family, key, id)
    unlooked = unlooked + size
    return value, changes
  elseif not IS_RECORD_TYPE[kind] then
    return nil, 'is a ' .. kind .. ', neither string nor hash'
  end
end

-- Returns what a pcall of a function that converts has raised: why it concerns this record alone, or nil and an error
-- that ends the batch.
local function problem_of(err)
  if type(err) == 'table' and err.refusal then
    return err.refusal
  end
  local plain = caught(err)
  if is_key_error(plain) or find(plain, '^OOM') then
    return plain
  end
  return nil, plain
end

-- Returns what a record becomes, and what a rule has changed for it. Returns nil, and why if it cannot be converted
-- but should be, or nil, nil and an error that ends the batch. name: that of the key in the town. kind: the key's
-- type, nil if unknown.
local function read_record(prefix, family, key, name, kind)
  local fine, value, changes = pcall(read_if_converted, family, key, sub(name, #prefix + #family + 2), kind)
  if fine then
    return value, changes
  end
  return nil, problem_of(value)
end

-- Makes a record what read_record() has returned, under its own name or one that no key has. Returns whether it
-- has, and why not, as read_record().
local function convert_record(key, name, value)
  local err = convert(key, name, value)
  if err then
    return false, problem_of(err)
  end
  return true
end

-- What rules have changed in records, and how often.
local adjusted = {}

local function note_adjusted(changes)
  for _, change in ipairs(changes or {}) do
    adjusted[change] = (adjusted[change] or 0) + 1
  end
end

-- Returns `adjusted` as a flat list.
local function adjustments()
  local list = {}
  for change, times in pairs(adjusted) do
    note(list, change, tostring(times))
  end
  return list
end
