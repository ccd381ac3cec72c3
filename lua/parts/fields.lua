-- parts/fields.lua: reads a record of Tinytown 0.6, which is JSON, as the fields of a hash, as Tinytown 0.7 writes it.
--
-- Strings become plain text. Numbers and booleans stay as they are in JSON. Lists and objects become compact JSON.
-- Fields that are null are left out; unknown fields are kept. Counters become decimal integers, which HINCRBY
-- requires. The `model` of an agent of version 0.2 also becomes its `cli`, if it has none.
--
-- Needs  batch, keyspace, json
-- Gives  IS_COUNTER, LARGE, fields_of(family, id, text)

local IS_COUNTER = {tasks_completed = true, rounds_completed = true}
-- The size of a record, in bytes, from which patterns that may fail at its end are not tried.
local LARGE = 65536
local fields_of
do
  local COUNTERS = {'tasks_completed', 'rounds_completed'}
  local MOST_DIGITS = 20

  -- Returns a counter as a decimal integer. value: a number in JSON, or a text.
  local function integer(name, value)
    if #value <= 15 and find(value, '^%d+$') and (byte(value) ~= 48 or #value == 1) then
      return value
    end
    local number, exponent = match(value, '^(.-)[eE]([+-]?%d+)$')
    local sign, digits, fraction = match(number or value, '^(%-?)(%d+)%.?(%d*)$')
    local is_number = digits and #digits <= 100 and #fraction <= 100 and not find(number or value, '%.$')
    if not is_number or #match(exponent or '', '%d*$') > 6 then
      json.refuse(name .. ' is no whole number')
    end
    local zeros_before = #match(digits .. fraction, '^0*')
    local significant = match(digits .. fraction, '^0*(.-)0*$')
    local before_point = #digits + tonumber(exponent or 0) - zeros_before
    if significant == '' then
      return '0'
    elseif before_point < #significant or before_point > MOST_DIGITS then
      json.refuse(name .. ' is no whole number')
    end
    return sign .. significant .. string.rep('0', before_point - #significant)
  end

  -- Most members, up to the next one: a string without escapes, a word or a number.
  local TEXT_MEMBER = '^"(' .. json.PLAIN .. ')":"(' .. json.PLAIN .. ')",()"'
  local WORD_MEMBER = '^"(' .. json.PLAIN .. ')":([%w.+-]+),()"'

  -- Which texts are words or numbers in JSON.
  local IS_WORD = setmetatable({}, {__index = function(known, text)
    local fine, _, after = pcall(json.word_at, text, 1)
    known[text] = fine and after > #text
    return known[text]
  end})

  -- The number of the record that is read, of the last one that had a member of each name, and the position of that
  -- member's value, false if it was null. Tables that are used again need not grow again.
  local number, last_with, places = 0, {}, {}

  local function place_of(name)
    return last_with[name] == number and places[name]
  end

  -- Reads the members of the object that is a record. Returns names and values in turn, without those that are null.
  local function members_of(text)
    local at = json.skip(text, 1)
    if byte(text, at) ~= json.OPEN_OBJECT then
      if find(text, '\239\187\191', 1, true) == 1 then
        json.fail(text, 'Unexpected UTF-8 BOM (decode using utf-8-sig)', 1)
      end
      local _, after = json.value_at(text, at, 0)
      json.check_end(text, after)
      json.refuse('is JSON, but no object')
    end
    local fields, n, has_twin, is_large = {}, 0, false, #text > LARGE
    number = number + 1
    local following, after = json.first_at(text, at, json.CLOSE_OBJECT)
    while following do
      local name, value, next_member
      if not is_large then
        name, value, next_member = match(text, TEXT_MEMBER, following)
      end
      if not name then
        name, value, next_member = match(text, WORD_MEMBER, following)
        if value == 'null' then
          value = nil
        elseif not name or not IS_WORD[value] then
          name, at = json.name_at(text, following)
          if byte(text, at) == json.QUOTE then
            value, after = json.odd_text_at(text, at)
          else
            value, after = json.value_at(text, at, 1)
            value = value ~= 'null' and value or nil
          end
          next_member, after = json.next_at(text, after, json.CLOSE_OBJECT)
        end
      end
      following = next_member
      has_twin, last_with[name] = has_twin or last_with[name] == number, number
      if value then
        fields[n + 1], fields[n + 2] = name, value
        n = n + 2
        places[name] = n
      else
        places[name] = false
      end
    end
    if has_twin then
      json.refuse_text(text, 'has a field twice')
    end
    json.check_end(text, after)
    return fields
  end

  -- Returns the fields of the hash for a stored record, names and values in turn. id: the id in the record's key.
  function fields_of(family, id, text)
    local fields = members_of(text)
    for _, counter in ipairs(COUNTERS) do
      local place = place_of(counter)
      if place then
        fields[place] = integer(counter, fields[place])
      end
    end
    local model = family == 'agent' and place_of('model')
    if model and not place_of('cli') then
      note(fields, 'cli', fields[model])
    end
    if find(text, '\\u', 1, true) then
      for _, part in ipairs(fields) do
        json.check_unicode(part)
      end
    end
    local own = place_of('id')
    if not own then
      json.refuse('has no id')
    elseif fields[own] ~= id then
      json.refuse('has another id than its key')
    end
    return fields
  end
end
