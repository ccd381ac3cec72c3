-- cluster/parts/digest.lua: compares the values of keys that different servers of a cluster have.
--
-- Needs  batch, keyspace, plain_hash, conflicts/merge
-- Gives  digest_of(key, kind)

local function digest_of_list(key)
  local digest = ''
  for first = 0, call('LLEN', key) - 1, CHUNK do
    local values = call('LRANGE', key, first, first + CHUNK - 1)
    for n, value in ipairs(values) do
      values[n] = #value .. ':' .. value
    end
    digest = redis.sha1hex(digest .. table.concat(values))
  end
  return digest
end

-- The fields of a hash have no fixed order.
local function digest_of_hash(key)
  local fields, texts = call('HGETALL', key), {}
  for n = 1, #fields, 2 do
    texts[#texts + 1] = #fields[n] .. ':' .. fields[n] .. #fields[n + 1] .. ':' .. fields[n + 1]
  end
  table.sort(texts)
  return redis.sha1hex(table.concat(texts))
end

-- Returns a text that two keys of this type have in common if equal() of merge.lua says that they are equal.
local function digest_of(key, kind)
  if kind == 'list' then
    return digest_of_list(key)
  elseif kind == 'string' then
    return redis.sha1hex(call('GET', key))
  end
  local dump = call('DUMP', key) or ''
  if kind == 'hash' and is_plain_hash(dump) then
    return digest_of_hash(key)
  end
  return redis.sha1hex(dump)
end
