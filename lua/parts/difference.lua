-- parts/difference.lua: says in which fields two records differ. One can be a hash and the other one the JSON of 0.6.
--
-- Needs  batch, keyspace, json, fields
-- Gives  digests_of(family, id, key, kind), difference(digests, kind, others, other_kind)

local digests_of, difference
do
  local SHORT = {['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t'}

  local function shown(name)
    return (string.gsub(name, '[%z\1-\31\127\\]', function(character)
      return SHORT[character] or string.format('\\x%02x', byte(character))
    end))
  end

  -- Returns the names of a record's fields, each followed by the digest of its value, as a list. It is empty if the
  -- key is no record that can be read. id: of the record. kind: the type of the key.
  function digests_of(family, id, key, kind)
    local fields = {}
    if kind == 'hash' then
      fields = call('HGETALL', key)
    elseif kind == 'string' then
      fields = json.unless_refused(fields_of, family, id, call('GET', key)) or {}
    end
    for n = 2, #fields, 2 do
      fields[n] = redis.sha1hex(fields[n])
    end
    return fields
  end

  local ALIKE = {hash = 'but other times to live of fields', string = 'but the JSON is not the same'}

  -- Returns why two records conflict, nil if one of them cannot be read. The lists are those of digests_of().
  function difference(digests, kind, others, other_kind)
    if #digests == 0 or #others == 0 then
      return nil
    end
    local digest_of_other, names = {}, {}
    for n = 1, #others, 2 do
      digest_of_other[others[n]] = others[n + 1]
    end
    for n = 1, #digests, 2 do
      local name = digests[n]
      if digest_of_other[name] ~= digests[n + 1] then
        names[#names + 1] = name
      end
      digest_of_other[name] = nil
    end
    for name in pairs(digest_of_other) do
      names[#names + 1] = name
    end
    if #names == 0 then
      local alike = kind == other_kind and ALIKE[kind] or 'one a JSON string and one a hash'
      return 'destination exists with the same fields, ' .. alike
    end
    table.sort(names)
    for n, name in ipairs(names) do
      names[n] = shown(name)
    end
    return 'destination exists and differs in ' .. table.concat(names, ', ')
  end
end
