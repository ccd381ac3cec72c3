-- cluster/parts/items.lua: a script that does one thing to each of several keys. In a cluster, the client chooses
-- keys that one server has. It declares them in KEYS where a service requires that, and then gives one item a call.
--
-- Needs  batch
-- Gives  now(), items_argument_error(names), results(visit)

local words, width

-- The server's time in milliseconds since 1970. Raises a plain error.
local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Checks the arguments denied, budget, until and items, and begins the batch. Returns a message, or nil.
-- names: of the words of each item, separated by commas. Together, the items are one MessagePack array of
-- strings: a client needs a fifth of the time to send one long text.
local function items_argument_error(names)
  local fine, given = pcall(cmsgpack.unpack, ARGV[4])
  local _, commas = string.gsub(names, ',', '')
  width = commas + 1
  if #ARGV ~= 4 then
    return 'BADARG takes 4 ARGV: denied, budget, until, items'
  elseif not whole_number(ARGV[2], 1, 60000000) then
    return 'BADARG budget: is not a whole number of microseconds from 1 to 60000000'
  elseif not whole_number(ARGV[3], 0, 9007199254740992) then
    return 'BADARG until: is not a whole number of milliseconds'
  elseif not fine or type(given) ~= 'table' or #given == 0 or #given % width ~= 0 then
    return 'BADARG items: is not a MessagePack array of, for each item, ' .. names
  end
  for _, word in ipairs(given) do
    if type(word) ~= 'string' then
      return 'BADARG items: a word is not a string'
    end
  end
  words = given
  deny(ARGV[1])
  spent()
  return nil
end

-- Calls visit() with the words of each item, until the time is used. visit() returns a word, and perhaps a
-- value, and whether the reply is large enough. Returns the reply: the time; the words, separated by line feeds,
-- with a '+' before those with a value; the values. The text of an error that visit() raises is its word.
local function results(visit)
  local said, values, budget = {}, {}, tonumber(ARGV[2])
  for n = 1, #words, width do
    local fine, word, value, is_enough = pcall(visit, unpack(words, n, n + width - 1))
    if not fine then
      word, value = 'error ' .. caught(word), nil
    end
    if value then
      values[#values + 1] = value
    end
    said[#said + 1] = (value and '+' or '') .. word
    if is_enough or is_time_spent(budget) then
      break
    end
  end
  return {spent(), table.concat(said, '\n'), values}
end
