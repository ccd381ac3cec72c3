-- parts/json.lua: reads JSON strictly (RFC 8259), and keeps every digit as it was written. cjson does not: it turns []
-- into {}, and rounds long numbers. What is refused, and in which words, is what Python's json says.
--
-- Needs  keyspace
-- Gives  json (a table: it has the functions and constants at its end)

-- A script has at most 200 local variables, so most are in a block.
local json
do
  local concat, gsub = table.concat, string.gsub
  local DEEPEST = 500

  -- Characters of a string that stand for themselves: ASCII without control characters, quote and backslash. In this
  -- order of the ranges most letters match the first one.
  local PLAIN = '[]-\127#-[ !]*'
  local RUN, ALL_PLAIN = '^' .. PLAIN .. '()', '^' .. PLAIN .. '$'
  local NAME, TEXT = '^"(' .. PLAIN .. ')":()', '^"(' .. PLAIN .. ')"()'
  local QUOTE, COMMA, COLON, BACKSLASH, OPEN_LIST, OPEN_OBJECT, CLOSE_LIST, CLOSE_OBJECT = byte('",:\\[{]}', 1, 8)

  -- What follows the first byte of a character that is not ASCII, by the largest first byte of each form (Unicode
  -- standard, table 3-7: well-formed UTF-8).
  local FORMS = {
    {193}, {223, ''}, {224, '[\160-\191]'}, {236, '[\128-\191]'}, {237, '[\128-\159]'}, {239, '[\128-\191]'},
    {240, '[\144-\191][\128-\191]'}, {243, '[\128-\191][\128-\191]'}, {244, '[\128-\143][\128-\191]'}, {255},
  }
  -- The patterns that were needed so far: most calls need few.
  local REST = setmetatable({}, {__index = function(known, first)
    local n = 1
    while FORMS[n][1] < first do
      n = n + 1
    end
    known[first] = FORMS[n][2] ~= nil and '^' .. FORMS[n][2] .. '[\128-\191]()'
    return known[first]
  end})
  local SURROGATE = '\237[\160-\191][\128-\191]'

  -- Ends reading. reason: what the record has or is, for a person.
  local function refuse(reason)
    error({refusal = reason}, 0)
  end

  -- Calls read(...). Returns its results, or nil and the reason of refuse().
  local function unless_refused(read, ...)
    local fine, value, more = pcall(read, ...)
    if fine then
      return value, more
    elseif type(value) == 'table' and value.refusal then
      return nil, value.refusal
    end
    error(value, 0)
  end

  -- Returns the position after a character that is not ASCII, nil if it is not UTF-8.
  local function after_character(text, at)
    local rest = REST[byte(text, at)]
    return rest and match(text, rest, at + 1)
  end

  local function is_utf8(text)
    local at = 1
    repeat
      at = match(text, '^[ -\127]*()', at)
      local c = byte(text, at)
      if not c then
        return true
      end
      at = c < 128 and at + 1 or after_character(text, at)
    until not at
    return false
  end

  -- Refuses a text with half a surrogate pair.
  local function check_unicode(text)
    if find(text, SURROGATE) then
      refuse('has text that is no valid Unicode')
    end
  end

  -- Refuses a text. What else is wrong does not matter if it is not UTF-8.
  local function refuse_text(text, reason)
    refuse(is_utf8(text) and reason or 'is no JSON: not UTF-8')
  end

  -- Refuses JSON that is broken at a position.
  local function fail(text, what, at)
    local _, characters = gsub(sub(text, 1, at - 1), '[^\128-\191]', '')
    refuse_text(text, 'is no JSON: ' .. what .. ' at character ' .. characters)
  end

  -- Returns the position of the next character that is no blank.
  local function skip(text, at)
    return match(text, '^[ \t\n\r]*()', at)
  end

  local ESCAPES = {
    ['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t', ['\b'] = '\\b', ['\f'] = '\\f',
  }
  local UNESCAPED = {b = '\b', f = '\f', n = '\n', r = '\r', t = '\t', ['"'] = '"', ['\\'] = '\\', ['/'] = '/'}

  local function escape(character)
    return ESCAPES[character] or string.format('\\u%04x', byte(character))
  end

  -- Returns the characters of a string in JSON that stand for a text.
  local function escaped(text)
    return find(text, ALL_PLAIN) and text or gsub(text, '["\\%z\1-\31]', escape)
  end

  -- Returns a text as a string in JSON.
  local function quoted(text)
    return '"' .. escaped(text) .. '"'
  end

  -- Returns the UTF-8 of a code point below 65536. Half a surrogate pair becomes what SURROGATE matches.
  local function utf8_of(code)
    local char, floor, last = string.char, math.floor, 0x80 + code % 0x40
    if code < 0x80 then
      return char(code)
    elseif code < 0x800 then
      return char(0xC0 + floor(code / 0x40), last)
    end
    return char(0xE0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, last)
  end

  -- Returns what an escape stands for, and the hexadecimal digits after it. letter: what follows the backslash.
  local function unescape(letter, digits)
    return letter == 'u' and utf8_of(tonumber(digits, 16)) or UNESCAPED[letter] .. digits
  end

  -- Returns the UTF-8 of a surrogate pair, of which each half looks like a character of three bytes.
  local function unite(high, low)
    local _, a, b = byte(high, 1, 3)
    local _, c, d = byte(low, 1, 3)
    local code = 0x10000 + ((a % 0x10) * 0x40 + b % 0x40) * 0x400 + (c % 0x10) * 0x40 + d % 0x40
    local floor = math.floor
    return string.char(
      0xF0 + floor(code / 0x40000), 0x80 + floor(code / 0x1000) % 0x40, 0x80 + floor(code / 0x40) % 0x40,
      0x80 + code % 0x40
    )
  end

  -- Returns the text that the characters of a string with escapes stand for. The escapes are well-formed.
  local function unescaped(characters)
    local text = gsub(characters, '\\(.)(%x?%x?%x?%x?)', unescape)
    if not find(text, '\237', 1, true) then
      return text
    end
    return (gsub(text, '(\237[\160-\175][\128-\191])(\237[\176-\191][\128-\191])', unite))
  end

  -- Returns the position after an escape. at: of the backslash, which is not the last character.
  local function after_escape(text, at)
    if UNESCAPED[sub(text, at + 1, at + 1)] then
      return at + 2
    elseif byte(text, at + 1) ~= 117 then
      fail(text, 'Invalid \\escape', at)
    elseif at + 6 > #text or not find(text, '^%x%x%x%x', at + 2) then
      fail(text, 'Invalid \\uXXXX escape', at + 1)
    end
    return at + 6
  end

  -- Returns the first position from `at` where a quote, a control character or nothing is, and whether there are
  -- escapes before it. begun: the position of the opening quote.
  local function end_of_text(text, at, begun)
    local has_escapes = false
    while true do
      at = match(text, RUN, at)
      local c = byte(text, at)
      if c == BACKSLASH then
        if at == #text then
          fail(text, 'Unterminated string starting at', begun)
        end
        at, has_escapes = after_escape(text, at), true
      elseif c and c >= 128 then
        at = after_character(text, at) or refuse('is no JSON: not UTF-8')
      else
        return at, has_escapes
      end
    end
  end

  -- Returns the value of any string, and the position after it. at: of the opening quote.
  local function odd_text_at(text, at)
    local last, has_escapes = end_of_text(text, at + 1, at)
    if byte(text, last) ~= QUOTE then
      fail(text, last > #text and 'Unterminated string starting at' or 'Invalid control character at',
        last > #text and at or last)
    end
    local characters = sub(text, at + 1, last - 1)
    return has_escapes and unescaped(characters) or characters, last + 1
  end

  -- Returns the text that the characters of a string stand for. They have no quote, unless it is in an escape.
  -- Refuses what is no JSON.
  local function text_of(characters)
    local last, has_escapes = end_of_text(characters, 1, 1)
    if last <= #characters then
      fail(characters, 'Invalid control character at', last)
    end
    return has_escapes and unescaped(characters) or characters
  end

  -- Returns the value of a string, and the position after it. at: of the opening quote.
  local function text_at(text, at)
    local value, after = match(text, TEXT, at)
    if value then
      return value, after
    end
    return odd_text_at(text, at)
  end

  -- Returns the name of an object's member, and the position of its value.
  local function name_at(text, at)
    local name, after = match(text, NAME, at)
    if not name then
      if byte(text, at) ~= QUOTE then
        fail(text, 'Expecting property name enclosed in double quotes', at)
      end
      name, after = text_at(text, at)
      after = skip(text, after)
      if byte(text, after) ~= COLON then
        fail(text, "Expecting ':' delimiter", after)
      end
      after = after + 1
    end
    local c = byte(text, after)
    return name, c and c <= 32 and skip(text, after) or after
  end

  -- Returns the position of the first member of a list or an object; nil, and the position after it, if it is empty.
  -- at: of its start. close: the byte that ends it.
  local function first_at(text, at, close)
    at = at + 1
    local c = byte(text, at)
    if c ~= QUOTE then
      at = skip(text, at)
      c = byte(text, at)
    end
    if c == close then
      return nil, at + 1
    end
    return at
  end

  -- Returns the position of the next member of a list or an object; nil, and the position after it, if there is none.
  -- at: after a member. close: the byte that ends it.
  local function next_at(text, at, close)
    local c = byte(text, at)
    if c ~= COMMA and c ~= close then
      at = skip(text, at)
      c = byte(text, at)
    end
    if c == close then
      return nil, at + 1
    elseif c ~= COMMA then
      fail(text, "Expecting ',' delimiter", at)
    end
    c = byte(text, at + 1)
    return c and c <= 32 and skip(text, at + 1) or at + 1
  end

  -- Refuses a text that goes on after a value.
  local function check_end(text, at)
    at = skip(text, at)
    if at <= #text then
      fail(text, 'Extra data', at)
    end
  end

  local WORDS = {[byte('t')] = 'true', [byte('f')] = 'false', [byte('n')] = 'null'}

  -- Returns a number as it is written, or a word, and the position after it.
  local function word_at(text, at)
    local word = WORDS[byte(text, at)]
    if word and sub(text, at, at + #word - 1) == word then
      return word, at + #word
    end
    local after = match(text, '^%-?0()', at) or match(text, '^%-?[1-9]%d*()', at)
    if after then
      after = match(text, '^%.%d+()', after) or after
      after = match(text, '^[eE][+-]?%d+()', after) or after
      return sub(text, at, after - 1), after
    end
    for _, constant in ipairs({'NaN', 'Infinity', '-Infinity'}) do
      if sub(text, at, at + #constant - 1) == constant then
        refuse_text(text, 'is no JSON: ' .. constant .. ' is no number')
      end
    end
    fail(text, 'Expecting value', at)
  end

  -- Returns any value as compact JSON, and the position after it. depth: of the lists and objects around it.
  local function value_at(text, at, depth)
    local c = byte(text, at)
    if c == QUOTE then
      local value, after = text_at(text, at)
      return quoted(value), after
    elseif c ~= OPEN_LIST and c ~= OPEN_OBJECT then
      return word_at(text, at)
    elseif depth == DEEPEST then
      refuse_text(text, 'is nested too deeply')
    end
    local close = c == OPEN_LIST and CLOSE_LIST or CLOSE_OBJECT
    local parts, seen, has_twin = {}, {}, false
    local following, after = first_at(text, at, close)
    while following do
      local start, name, value = '', nil, nil
      if c == OPEN_OBJECT then
        name, following = name_at(text, following)
        has_twin, seen[name] = has_twin or seen[name], true
        start = quoted(name) .. ':'
      end
      value, after = value_at(text, following, depth + 1)
      parts[#parts + 1] = start .. value
      following, after = next_at(text, after, close)
    end
    if has_twin then
      refuse_text(text, 'has a field twice')
    end
    parts = concat(parts, ',')
    return c == OPEN_LIST and '[' .. parts .. ']' or '{' .. parts .. '}', after
  end

  json = {
    refuse = refuse, unless_refused = unless_refused, is_utf8 = is_utf8, check_unicode = check_unicode,
    refuse_text = refuse_text, fail = fail, skip = skip, escaped = escaped, text_at = text_at,
    text_of = text_of, odd_text_at = odd_text_at, name_at = name_at, first_at = first_at, next_at = next_at,
    check_end = check_end, word_at = word_at, value_at = value_at, PLAIN = PLAIN, ALL_PLAIN = ALL_PLAIN,
    SURROGATE = SURROGATE, QUOTE = QUOTE, OPEN_LIST = OPEN_LIST, CLOSE_LIST = CLOSE_LIST,
    OPEN_OBJECT = OPEN_OBJECT, CLOSE_OBJECT = CLOSE_OBJECT,
  }
end
