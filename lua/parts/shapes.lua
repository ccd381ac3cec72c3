-- parts/shapes.lua: reads most records with one pattern. Tinytown writes nearly all of them in a few shapes: the same
-- members in the same order. A shape matches only records that fields.lua would read in the same way. All others
-- are read by fields.lua.
--
-- Needs  keyspace, json, fields
-- Gives  quick_fields_of(family, id, text)

local quick_fields_of
do
  -- A pattern can have 32 captures: two for each member.
  local MOST_SHAPES, MOST_MEMBERS, MOST_DIGITS = 8, 16, 15
  local shapes = {agent = {}, task = {}}

  -- The kinds of values, each with what its pattern captures: strings of plain characters, any strings, whole
  -- numbers, lists that hold no lists, and words.
  local PLAIN, ANY, NUMBER = '"(' .. json.PLAIN .. ')"', '"([ !#-\255]*)"', '(%d+)'
  local LIST, TRUE, FALSE, NULL = '(%[[^%]]*%])', '(true)', '(false)', 'null'

  -- Lists that were read, as they were written and as compact JSON: the tags of tasks repeat.
  local known_lists = {}

  local function compact_list(list)
    local fine, compact, after = pcall(json.value_at, list, 1, 1)
    known_lists[list] = fine and after > #list and not find(compact, json.SURROGATE) and compact or nil
    return known_lists[list]
  end

  -- Values that need work. Each function returns the text of a captured value, nil if the strict reader must decide.
  local READERS = {
    [ANY] = function(value)
      -- A value that ends with a backslash is refused: it goes on after the quote.
      local text = json.unless_refused(json.text_of, value)
      return text and not find(text, json.SURROGATE) and text
    end,
    [NUMBER] = function(value)
      return #value <= MOST_DIGITS and (byte(value) ~= 48 or #value == 1) and value
    end,
    [LIST] = function(value)
      return known_lists[value] or compact_list(value)
    end,
  }

  -- Kinds by the first byte of a value, in the order in which they are tried.
  local KINDS = {['"'] = {PLAIN, ANY}, ['['] = {LIST}, n = {NULL}, t = {TRUE}, f = {FALSE}}

  -- Returns the kind of the value at a position, or nil, and the position after it.
  local function kind_at(text, at)
    for _, kind in ipairs(KINDS[sub(text, at, at)] or {NUMBER}) do
      local _, last = find(text, '^' .. kind, at)
      if last then
        return kind, last + 1
      end
    end
  end

  -- Returns the shape of a record, or nil if it has none: a pattern that captures the names and values of its
  -- fields in turn, the positions of the values that need work, each with its reader, and those of special values.
  local function shape_of(family, text)
    local members, work, places, n = {}, {}, {}, 0
    local at = 2
    repeat
      local name, from = match(text, '^"([%w_]+)":()', at)
      local kind, after = kind_at(text, from or #text + 1)
      if not kind or n == 2 * MOST_MEMBERS or places[name] or (IS_COUNTER[name] and kind ~= NUMBER) then
        return nil
      elseif kind == NULL then
        members[#members + 1], places[name] = '"' .. name .. '":null', NULL
      else
        members[#members + 1] = '"(' .. name .. ')":' .. kind
        n = n + 2
        places[name], work[n] = n, READERS[kind]
      end
      at = after + 1
    until sub(text, after, after) ~= ','
    local model = family == 'agent' and (places.cli == NULL or not places.cli) and places.model
    if not places.id or places.id == NULL or work[places.id] then
      return nil
    end
    local pattern = '^{' .. table.concat(members, ',') .. '}$'
    return {pattern = pattern, work = work, id = places.id, model = model ~= NULL and model}
  end

  local function fields_by(shape, id, text)
    local fields = {match(text, shape.pattern)}
    if fields[shape.id] ~= id then
      return nil
    end
    for place, reader in pairs(shape.work) do
      local value = reader(fields[place])
      if not value then
        return nil
      end
      fields[place] = value
    end
    if shape.model then
      fields[#fields + 1], fields[#fields + 2] = 'cli', fields[shape.model]
    end
    return fields
  end

  -- As fields_of().
  function quick_fields_of(family, id, text)
    if #text > LARGE then
      return fields_of(family, id, text)
    end
    local known = shapes[family]
    for n, shape in ipairs(known) do
      local fields = fields_by(shape, id, text)
      if fields then
        -- Those that are frequent come first.
        known[n], known[1] = known[1], shape
        return fields
      end
    end
    local shape = #known < MOST_SHAPES and shape_of(family, text)
    local fields = shape and fields_by(shape, id, text)
    if fields then
      known[#known + 1] = shape
    end
    return fields or fields_of(family, id, text)
  end
end
