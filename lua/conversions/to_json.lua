-- conversions/to_json.lua: turns records from hashes into the JSON strings that Tinytown 0.6 reads.
--
-- The fields of 0.6 come first, in its order (its agent.rs and task.rs); those that are missing and may be are null.
-- Fields that 0.6 does not know follow: a text that is compact JSON of a number, boolean, list or object as such,
-- every other text as text. What 0.6 would not read is refused.
--
-- Needs  batch, keyspace, json, plain_hash
-- Gives  CONVERTED, CONVERTS_FIRST, json_of(family, id, flat), converted(family, key, id),
--        convert(key, name, text)

local CONVERTED, CONVERTS_FIRST, json_of, converted, convert
do
  local function set_of(names)
    local set = {}
    for _, name in ipairs(names) do
      set[name] = true
    end
    return set
  end

  local FIELDS = {
    agent = {
      'id', 'name', 'agent_type', 'state', 'cli', 'current_task', 'created_at', 'last_heartbeat', 'tasks_completed',
      'rounds_completed',
    },
    task = {
      'id', 'description', 'state', 'assigned_to', 'created_at', 'updated_at', 'completed_at', 'result', 'parent_id',
      'tags',
    },
  }
  -- How each member begins.
  local STARTS = {agent = {}, task = {}}
  for family, names in pairs(FIELDS) do
    for n, name in ipairs(names) do
      STARTS[family][n] = (n == 1 and '{' or ',') .. '"' .. name .. '":'
    end
  end
  local IS_FIELD = {agent = set_of(FIELDS.agent), task = set_of(FIELDS.task)}
  local IS_STATE = {
    agent = set_of({'starting', 'idle', 'working', 'paused', 'stopped', 'error'}),
    task = set_of({'pending', 'assigned', 'running', 'completed', 'failed', 'cancelled'}),
  }
  -- States since 0.7, and those of 0.6 that come closest.
  local OLDER_STATES = {draining = 'stopped', cold = 'stopped', in_flight = 'running'}
  local IS_AGENT_TYPE = set_of({'supervisor', 'worker'})
  local IS_OPTION = set_of({'current_task', 'assigned_to', 'completed_at', 'result', 'parent_id'})
  local DEFAULTS = {
    name = '', cli = '', agent_type = 'worker', description = '', tasks_completed = '0', rounds_completed = '0',
  }
  local UUID = '^' .. string.rep('%x', 8) .. string.rep('%-' .. string.rep('%x', 4), 4) .. string.rep('%x', 8) .. '$'
  local LARGEST_COUNTER = '18446744073709551615'

  -- Returns the characters of a string in JSON that stand for a text. Refuses bytes that are not UTF-8.
  local function characters(text)
    if find(text, json.ALL_PLAIN) then
      return text
    elseif not json.is_utf8(text) then
      json.refuse('has bytes that are not UTF-8')
    end
    return json.escaped(text)
  end

  -- Most times: the day is in each month. A month and an hour have one text each.
  local TIME = '^%d%d%d%d%-(%d%d)%-[0-2]([1-8])[Tt ](%d%d):[0-5]%d:[0-5]%d%.%d+[Zz]$'
  local IS_MONTH, IS_HOUR = {}, {}
  for n = 0, 23 do
    local text = string.format('%02d', n)
    IS_HOUR[text], IS_MONTH[text] = true, n >= 1 and n <= 12
  end

  -- Returns whether 0.6 reads a text as a time (its chrono, `impl FromStr for DateTime`). chrono takes 60 for a leap
  -- second in any minute. It also takes forms that nobody writes, with more blanks or fewer digits; they are
  -- refused here.
  local function is_time(text)
    local month, _, hour = match(text, TIME)
    if IS_MONTH[month] and IS_HOUR[hour] then
      return true
    end
    local year, day, minute, second, rest
    year, month, day, hour, minute, second, rest =
      match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$')
    local zone = rest and string.gsub(rest, '^%.%d+', '')
    if not zone or not (zone == 'Z' or zone == 'z' or find(zone, '^[+-]%d%d:[0-5]%d$')) then
      return false
    end
    year, day = tonumber(year), tonumber(day)
    local is_leap_year = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
    local days = ({31, is_leap_year and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[tonumber(month)]
    return days and day >= 1 and day <= days and IS_HOUR[hour] and tonumber(minute) < 60 and tonumber(second) <= 60
      and (#zone == 1 or IS_HOUR[sub(zone, 2, 3)])
  end

  -- Each checks the value of a field, and refuses what 0.6 would not read. Returns the value for 0.6, and whether
  -- it is a string in JSON.

  local function reference(name, text)
    return find(text, UUID) and text or json.refuse(name .. ' is no UUID'), true
  end

  local function time(name, text)
    return is_time(text) and text or json.refuse(name .. ' is no time with a zone'), true
  end

  local function counter(name, text)
    local digits = #text <= 20 and match(text, '^0*(%d+)$')
    if not digits or (#digits == 20 and digits > LARGEST_COUNTER) then
      json.refuse(name .. ' is no whole number')
    end
    return digits, false
  end

  local function agent_type(name, text)
    return IS_AGENT_TYPE[text] and text or json.refuse('has an agent_type that 0.6 does not know'), true
  end

  -- Returns whether compact JSON is a list of strings.
  local function has_only_texts(list)
    -- Half a surrogate pair is refused later.
    local readable = string.gsub(list, json.SURROGATE, '?')
    local at = byte(list) == json.OPEN_LIST and json.first_at(readable, 1, json.CLOSE_LIST)
    while at and byte(readable, at) == json.QUOTE do
      local _, behind = json.text_at(readable, at)
      at = json.next_at(readable, behind, json.CLOSE_LIST)
    end
    return at == nil
  end

  -- Lists of tags that were checked, by their text: they repeat.
  local known_tags = {}

  local function tags(name, text)
    if not known_tags[text] then
      local fine, list, after = pcall(json.value_at, text, json.skip(text, 1), 0)
      if not fine or json.skip(text, after) <= #text or not has_only_texts(list) then
        json.refuse('tags are no list of texts')
      end
      json.check_unicode(list)
      known_tags[text] = list
    end
    return known_tags[text], false
  end

  local CHECKS = {
    agent_type = agent_type, tags = tags,
    current_task = reference, assigned_to = reference, parent_id = reference,
    created_at = time, last_heartbeat = time, updated_at = time, completed_at = time,
    tasks_completed = counter, rounds_completed = counter,
  }

  -- As those of CHECKS. Adds to `changes` what a rule has changed.
  local function state(family, text, changes)
    if IS_STATE[family][text] then
      return text, true
    end
    local older = OLDER_STATES[text]
    if not IS_STATE[family][older] then
      json.refuse('has a state that 0.6 does not know')
    end
    changes[#changes + 1] = 'state ' .. text .. ' became ' .. older
    return older, true
  end

  -- As those of CHECKS, for any field of 0.6. text: nil if it is missing.
  local function known(family, name, text, changes)
    if IS_OPTION[name] and (text == '' or not text) then
      if text and name ~= 'result' then
        changes[#changes + 1] = 'an empty ' .. name .. ' became null'
      end
      return text and name == 'result' and '""' or 'null', false
    elseif name == 'tags' and not text then
      return '[]', false
    elseif not text then
      text = DEFAULTS[name] or json.refuse('has no ' .. name)
      changes[#changes + 1] = 'a missing ' .. name .. ' became ' .. (text == '' and 'empty' or text)
    end
    if name == 'state' then
      return state(family, text, changes)
    elseif CHECKS[name] then
      return CHECKS[name](name, text)
    end
    return characters(text), true
  end

  -- Returns whether a text is compact JSON of a number, boolean, list or object.
  local function is_json(text)
    if text == 'true' or text == 'false' then
      return true
    elseif not find(text, '^[[{]') and not find(text, '^%-?%d[%d.eE+-]*$') then
      return false
    end
    local fine, compact, after = pcall(json.value_at, text, 1, 0)
    return fine and compact == text and after > #text
  end

  -- Adds the value of a member to the parts of an object in JSON. The parts are put together once.
  local function add(parts, start, value, is_text)
    local n = #parts
    if is_text then
      parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = start, '"', value, '"'
    else
      parts[n + 1], parts[n + 2] = start, value
    end
  end

  local function written(family, id, flat)
    local record, parts, changes = {}, {}, {}
    for n = 1, #flat, 2 do
      record[flat[n]] = flat[n + 1]
    end
    if record.id ~= id then
      json.refuse(record.id and 'has another id than its key' or 'has no id')
    elseif not find(id, UUID) then
      json.refuse('id is no UUID')
    end
    for n, name in ipairs(FIELDS[family]) do
      add(parts, STARTS[family][n], known(family, name, record[name], changes))
    end
    for n = 1, #flat, 2 do
      local name, text = flat[n], flat[n + 1]
      if not IS_FIELD[family][name] then
        local is_text = not is_json(text)
        add(parts, ',"' .. characters(name) .. '":', is_text and characters(text) or text, is_text)
      end
    end
    return table.concat(parts) .. '}', changes
  end

  -- Returns the JSON for the fields of a record's hash, names and values in turn, and what a rule has changed.
  function json_of(family, id, flat)
    local fine, text, changes = pcall(written, family, id, flat)
    if fine then
      return text, changes
    end
    -- What else is wrong does not matter if a text is not UTF-8.
    for _, part in ipairs(flat) do
      characters(part)
    end
    error(text, 0)
  end

  -- Whether fields of hashes may have times to live. INFO says so since Redis 7.4 and Valkey 9, which first had them.
  local function have_fields_ttls()
    local info = try('INFO', 'keyspace')
    return type(info) ~= 'string' or find(info, 'subexpiry=[1-9]') or find(info, 'volatile_items=[1-9]')
  end

  -- As in to_hash.lua. 0.6 cannot read a hash, so a record that stays one keeps its name too.
  CONVERTED, CONVERTS_FIRST = 'hash', true
  local may_have_ttls

  function converted(family, key, id)
    local fields = call('HGETALL', key)
    if #fields == 0 then
      return nil, 0
    end
    local text, changes = json_of(family, id, fields)
    if may_have_ttls == nil then
      may_have_ttls = have_fields_ttls() and true or false
    end
    -- A migration needs the permission for DUMP. A preview can do without.
    if may_have_ttls and not denied.DUMP and not is_plain_hash(call('DUMP', key)) then
      json.refuse('ERR its fields have times to live, which a string cannot keep')
    end
    return text, #text, changes
  end

  function convert(key, name, text)
    local reply = try('SET', key, text, 'KEEPTTL')
    return reply.err and {err = plain_error(reply.err, 'SET')}
  end
end
