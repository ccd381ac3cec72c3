-- swap.lua: replaces the values of records, if they still have the values that were read. Each new value is built
-- under a temporary name and then replaces the record in one step. If the server is full (OOM), the record is
-- still intact. The TTL is kept.
--
-- Needs  batch, keyspace, <renames>
-- Gives  records_of_arguments(parse), unpacked_fields(text), swap(record, kind, build),
--        reply_for(records, convert)

-- Checks the arguments `denied` and key, site, expected and new of each record, and begins the call. Returns a list
-- of tables with these names, or nil and a message. parse(expected, new) returns the two values, or nil and a
-- message.
local function records_of_arguments(parse)
  local is_named = #KEYS == 0 or (#ARGV == 5 and #KEYS == 2 and KEYS[1] == ARGV[2] and KEYS[2] == ARGV[3])
  if not is_named or #ARGV < 5 or #ARGV % 4 ~= 1 then
    return nil, 'BADARG takes no KEYS; ARGV: denied, then key, site, expected and new of each record'
  end
  local records = {}
  for n = 1, (#ARGV - 1) / 4 do
    local key, site, expected, new = unpack(ARGV, 4 * n - 2, 4 * n + 1)
    local value, replacement = parse(expected, new)
    if key == '' or site == '' or not value then
      return nil, 'BADARG record ' .. n .. ': ' .. (value and 'has no key or no site' or replacement)
    end
    records[n] = {key = key, site = site, expected = value, new = replacement}
  end
  deny(ARGV[1])
  spent()
  return records
end

-- Returns the strings of a MessagePack array of names and values in turn, or nil.
local function unpacked_fields(text)
  local fine, fields = pcall(cmsgpack.unpack, text)
  if not fine or type(fields) ~= 'table' or #fields == 0 or #fields % 2 ~= 0 then
    return nil
  end
  for _, field in ipairs(fields) do
    if type(field) ~= 'string' then
      return nil
    end
  end
  return fields
end

-- Deletes what a crashed run left under the temporary name. Tinytown does not use this name, unless the record's id
-- is a word that can precede an id: `tt:a:agent:task:tt-migrate` is a task of the town `a:agent`. In that case, or
-- if the key has another type, the key is kept and an error is raised.
local function clear(site, key, kind)
  if call('EXISTS', site) == 0 then
    return
  end
  local id = match(key, '([^:]*)$')
  if WITH_ID[id] or SINCE_0_7[id] or call('TYPE', site).ok ~= kind then
    error({err = 'ERR the key that it would be built in exists: ' .. site})
  end
  call('DEL', site)
end

-- Calls build(site), which makes a key of this type, and replaces the record with it. Raises what call() raises.
local function swap(record, kind, build)
  local key, site = record.key, record.site
  clear(site, key, kind)
  local fine, err = pcall(function()
    build(site)
    local ttl = call('PTTL', key)
    if ttl >= 0 then
      call('PEXPIRE', site, math.max(ttl, 1))
    end
    replace(site, key)
  end)
  if not fine then
    -- DEL is called only if the key exists: after any write command, even one without effect, a full
    -- server allows the rest of the script to write.
    if call('EXISTS', site) == 1 then
      call('DEL', site)
    end
    error(err, 0)
  end
end

-- Calls convert(record) for each record. It returns 'converted', 'changed', or nil if the record is gone, or raises
-- what call() raises. Returns the reply.
local function reply_for(records, convert)
  local positions = {converted = {}, changed = {}}
  local failed, problem_of_all = {}, ''
  for n, record in ipairs(records) do
    local fine, result = pcall(convert, record)
    local list = fine and positions[result]
    if list then
      list[#list + 1] = n
    elseif not fine then
      local err = caught(result)
      if is_key_error(err) or find(err, '^OOM') then
        note(failed, record.key, err)
      elseif not find(err, '^WRONGTYPE') then
        problem_of_all = err
        break
      end
      -- WRONGTYPE: another client replaced the record. The final counting pass counts it by its new type.
    end
  end
  return {spent(), positions.converted, positions.changed, failed, problem_of_all}
end
