-- convert.lua: turns records from string to hash, those that still are what was read.
--
-- KEYS   the records' keys
-- ARGV   1 budget     time after which no further record is begun, microseconds
--        then for each key
--        - expected   the string that was read
--        - fields     how many fields follow, 1 or more
--        - field, value, field, value, ...
-- Reply  1 done       keys dealt with, from the first one; at least one
--        2 converted  the positions among KEYS of those that are hashes now
--        3 elapsed    time spent, microseconds; 0 where no clock runs
--        4 changed    keys that hold another string by now, each followed by it
--        5 failed     keys left as they were, each followed by the error
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run GET, EXISTS, PTTL, HSET, PEXPIRE or RENAME; NOCOMMAND: the server
--                has it renamed
--        READONLY, MISCONF, NOREPLICAS, ...  the server takes no writes
--        With an error none is half converted.
--
-- A hash is built under a name of its own and takes the record's place in one RENAME, so a full server
-- (OOM) refuses while the record is still whole. The time to live is kept.

local CHUNK = 1000

-- Where each key's part of ARGV begins, or nil and what is wrong.
local function parts_of_arguments()
  if #KEYS == 0 or not (ARGV[1] and whole_number(ARGV[1], 1, 60000000)) then
    return nil, 'BADARG takes KEYS, and as ARGV first the budget, microseconds from 1 to 60000000'
  end
  local parts, at = {}, 2
  for n, key in ipairs(KEYS) do
    local fields = ARGV[at + 1] and whole_number(ARGV[at + 1], 1, 1000000) and tonumber(ARGV[at + 1])
    if key == '' or not fields then
      return nil, 'BADARG key ' .. n .. ': is empty or has no number of fields from 1 to 1000000'
    end
    parts[n] = at
    at = at + 2 + 2 * fields
  end
  if at ~= #ARGV + 1 then
    return nil, 'BADARG takes as many fields and values as were announced'
  end
  return parts
end

local parts, problem = parts_of_arguments()
if problem then
  return redis.error_reply(problem)
end

local converted, changed, failed = {}, {}, {}

-- Builds the hash of ARGV from a position on, as `key`, and gives it a time to live.
local function build(key, first, fields, ttl)
  local last = first + 2 * fields - 1
  for from = first, last, CHUNK do
    redis.call('HSET', key, unpack(ARGV, from, math.min(from + CHUNK - 1, last)))
  end
  if ttl >= 0 then
    redis.call('PEXPIRE', key, math.max(ttl, 1))
  end
end

-- Whether a record was converted; raises what redis.call does.
local function convert(key, part)
  local value = redis.call('GET', key)
  if value ~= ARGV[part] then
    -- One that is gone (TTL, a user) is nobody's loss.
    if value then
      note(changed, key, value)
    end
    return false
  end
  local hash = key .. ':tt-migrate'
  if redis.call('EXISTS', hash) == 1 then
    error({err = 'ERR the key that it would be built in exists: ' .. hash})
  end
  local fine, err = pcall(function()
    build(hash, part + 2, tonumber(ARGV[part + 1]), redis.call('PTTL', key))
    redis.call('RENAME', hash, key)
  end)
  if not fine then
    redis.pcall('DEL', hash)
    error(err)
  end
  return true
end

local started, done = microseconds(), 0
local elapsed
repeat
  done = done + 1
  local key = KEYS[done]
  local fine, result = pcall(convert, key, parts[done])
  if fine and result then
    converted[#converted + 1] = done
  elseif not fine then
    local err = plain_error(type(result) == 'table' and result.err or tostring(result))
    if string.find(err, '^WRONGTYPE') then
      -- Somebody else has replaced it: a reading pass tells with what.
      err = nil
    elseif not is_key_error(err) and not string.find(err, '^OOM') then
      return redis.error_reply(err)
    end
    if err then
      note(failed, key, err)
    end
  end
  elapsed = microseconds() - started
until done == #KEYS or elapsed >= tonumber(ARGV[1])
return {done, converted, elapsed, changed, failed}
