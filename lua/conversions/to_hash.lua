-- conversions/to_hash.lua: turns records from JSON strings, of Tinytown 0.6, into hashes.
--
-- Needs  batch, keyspace, shapes
-- Gives  CONVERTED, CONVERTS_FIRST, converted(family, key, id), convert(key, name, fields)

-- The type of the records that are converted, and whether they are converted before they are renamed.
local CONVERTED, CONVERTS_FIRST = 'string', false

-- Returns what a record becomes, and the size of what was read. Returns nil if the key has just expired, as it can on
-- some compatible servers. Raises a refusal, or a plain error.
local function converted(family, key, id)
  local text = call('GET', key) or nil
  return text and quick_fields_of(family, id, text), #(text or '')
end

local function build(key, fields, ttl)
  for from = 1, #fields, CHUNK do
    call('HSET', key, unpack(fields, from, math.min(from + CHUNK - 1, #fields)))
  end
  if ttl >= 0 then
    call('PEXPIRE', key, math.max(ttl, 1))
  end
end

-- Builds the hash under a name that no key has, and then deletes the record. Raises a plain error.
local function build_and_delete(name, key, fields)
  build(name, fields, call('PTTL', key))
  call('DEL', key)
end

-- Whether HSET was found to be permitted, on a server that cannot be asked: on Redis 6.2, for all keys that are
-- permitted. The trial counts as an error, so there is none for a user to whom nothing is denied.
local may_build = false

-- Raises a plain error if the user may not run HSET on a record. Redis before 7.0 does not say so, but it refuses
-- HSET on a string with another error if the user may run it.
local function check_hset(key, fields)
  if redis.acl_check_cmd and not redis.acl_check_cmd('HSET', key, fields[1], fields[2]) then
    error({err = 'ERR the user has no permissions to run HSET on this key'}, 0)
  elseif not redis.acl_check_cmd and not may_build and not denied.nothing then
    local err = plain_error(try('HSET', key, fields[1], fields[2]).err, 'HSET')
    may_build = find(err, '^WRONGTYPE') ~= nil
    if not may_build then
      error({err = err}, 0)
    end
  end
end

-- Builds the hash in the record's place. Nothing that comes after DEL is refused: the user may run HSET on this
-- key, and PEXPIRE was run before. A full server refuses SETRANGE, which changes nothing here, and has more memory
-- when the string is gone. Raises a plain error.
local function replace_in_place(name, key, fields)
  check_hset(key, fields)
  local ttl = call('PTTL', key)
  call('SETRANGE', key, 0, '')
  if ttl >= 0 then
    call('PEXPIRE', key, math.max(ttl, 1))
  end
  call('DEL', key)
  build(key, fields, ttl)
end

-- Makes a record what converted() has returned, under its own name or one that no key has. The TTL is kept. A refused
-- command leaves the record as it was. Returns nil, or what was raised.
local function convert(key, name, fields)
  local is_in_place = name == key
  local fine, err = pcall(is_in_place and replace_in_place or build_and_delete, name, key, fields)
  -- Only if the key exists: after any write command, even one without effect, a full server lets the rest of the
  -- script write.
  if not fine and not is_in_place and try('EXISTS', name) == 1 then
    take_back(name)
  end
  return err
end
