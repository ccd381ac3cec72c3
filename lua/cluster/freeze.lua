-- cluster/freeze.lua: gives keys hidden names, under which no other client changes them, and reads their values.
--
-- Needs  batch, cluster/parts/items, keyspace
-- KEYS   none, or the key and the hidden name of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          key      the key. If it is the hidden name, the key was frozen earlier and is only read
--          hidden   the name that it gets, in the same slot
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          +frozen  and when the key expires, milliseconds since 1970, 0 for never
--          gone     the key does not exist
--          error    and the error: the key has the name that it had
--        3 values   of the frozen keys, as DUMP returns them
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('key, hidden')
if problem then
  return redis.error_reply(problem)
end

-- The size of the values at which a reply ends.
local ENOUGH = 1048576
local size = 0

local function read(key)
  local value, ttl = call('DUMP', key), call('PTTL', key)
  return value or nil, ttl < 0 and 0 or now() + math.max(ttl, 1)
end

local function freeze(key, hidden)
  local renamed = try('RENAMENX', key, hidden)
  if type(renamed) == 'table' then
    local err = plain_error(renamed.err, 'RENAMENX')
    return find(err, 'no such key', 1, true) and 'gone' or 'error ' .. err
  elseif renamed == 0 and key ~= hidden then
    return 'error ERR the hidden name exists'
  end
  local fine, value, expires = pcall(read, hidden)
  if fine and value and key == hidden then
    -- WAIT waits for the writes of its own connection. This one makes it wait for the write of the client that
    -- froze the key.
    fine, value = pcall(function()
      call('RESTORE', hidden, expires, value, 'REPLACE', 'ABSTTL')
      return value
    end)
  end
  if not fine then
    if key ~= hidden then
      call('RENAMENX', hidden, key)
    end
    error(value, 0)
  elseif not value then
    return 'gone'
  end
  size = size + #value
  return 'frozen ' .. string.format('%.0f', expires), value, size > ENOUGH
end

return results(freeze)
