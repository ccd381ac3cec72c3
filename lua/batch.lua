-- batch.lua: one batch, as many SCAN steps as fit into a time. Put before every script that scans.
--
-- Gives: microseconds(), whole_number(text, lowest, highest), scan_argument_error(),
--        plain_error(err), is_key_error(err), note(list, key, text),
--        occupant(destination, rival), key_total(),
--        scan(cursor, count, budget, pattern, visit, before_step)

-- Redis 6.2 with `lua-replicate-commands no` takes a write after SCAN or TIME only from a script that
-- asks for this; all later versions replicate a script's effects.
if redis.replicate_commands then
  redis.replicate_commands()
end

-- Scripts see a clock that runs either in os.clock (Redis 8, Valkey 8: TIME stands still there) or in
-- TIME (Redis 6.2 and 7.0, where naming the global `os` is an error).
local os_library = rawget(_G, 'os')

local function microseconds()
  if os_library and os_library.clock then
    return os_library.clock() * 1000000
  end
  local time = redis.pcall('TIME')
  -- A user who may not ask has no clock: then a batch is one step.
  return time.err and 0 or time[1] * 1000000 + time[2]
end

-- Whether a text is a whole number within bounds.
local function whole_number(text, lowest, highest)
  local number = string.match(text, '^%d+$') and tonumber(text)
  return number and number >= lowest and number <= highest
end

-- The message for the first of ARGV's town, cursor, count and budget that is wrong, nil for none.
-- `more` names what the operation takes besides, separated by commas.
local function scan_argument_error(more)
  local names = 'town, cursor, count, budget' .. (more and ', ' .. more or '')
  local _, commas = string.gsub(names, ',', '')
  if #KEYS ~= 0 or #ARGV ~= commas + 1 then
    return 'BADARG takes no KEYS and ' .. commas + 1 .. ' ARGV: ' .. names
  end
  if ARGV[1] == '' then
    return 'BADARG town: is empty'
  end
  if not whole_number(ARGV[2], 0, 18446744073709551615) then
    return 'BADARG cursor: is no unsigned 64-bit number'
  end
  if not whole_number(ARGV[3], 1, 1000000) then
    return 'BADARG count: is no whole number from 1 to 1000000'
  end
  if not whole_number(ARGV[4], 1, 60000000) then
    return 'BADARG budget: is no whole number of microseconds from 1 to 60000000'
  end
  return nil
end

-- An error of redis.pcall as a client would see it: Redis 6.2 wraps it in the script's position.
local function plain_error(err)
  local text = string.gsub(string.gsub(err, '^@user_script:[^:]*: *%-?', ''), '[\r\n]+', ' ')
  if string.find(text, 'run th', 1, true) then
    -- "can't run this command" or "no permissions to run the '...' command"
    text = 'NOPERM ' .. text
  elseif string.find(text, 'nknown.* command called') then
    text = 'NOCOMMAND ' .. text
  elseif not string.find(text, '^%u+ ') then
    text = 'ERR ' .. text
  end
  return (string.gsub(text, ' +$', ''))
end

-- Whether a plain error is about one key. The rest (READONLY, NOPERM for a command, NOCOMMAND,
-- MISCONF, NOREPLICAS, ...) are about the server or the user and would meet every key alike.
local function is_key_error(err)
  return string.find(err, '^ERR ') ~= nil
end

-- Adds a key and a text to a list of such pairs.
local function note(list, key, text)
  list[#list + 1] = key
  list[#list + 1] = text
end

-- The first of two keys that exists, nil when none does, nil and the error when the user may not ask.
-- The second may be nil.
local function occupant(destination, rival)
  local exists = redis.pcall('EXISTS', destination)
  if exists == 1 then
    return destination
  elseif exists == 0 then
    return rival and occupant(rival)
  end
  return nil, plain_error(exists.err)
end

-- Runs SCAN steps of `count` keys from `cursor`, calling visit(key) for each key that a glob matches,
-- until the cursor is '0' again, or another step as long as the longest would pass `budget`
-- microseconds, or SCAN fails or visit returns an error. before_step(cursor), where given, is called
-- before each step and can end the batch by returning true, after at least one step.
-- Returns the next cursor, the steps and the microseconds, or nil, nil, nil and the error.
local function scan(cursor, count, budget, pattern, visit, before_step)
  local started = microseconds()
  local steps, elapsed, longest = 0, 0, 0
  repeat
    if before_step and before_step(cursor) and steps > 0 then
      break
    end
    local reply = redis.pcall('SCAN', cursor, 'MATCH', pattern, 'COUNT', count)
    if reply.err then
      return nil, nil, nil, plain_error(reply.err)
    end
    local keys = reply[2]
    for i = 1, #keys do
      local err = visit(keys[i])
      if err then
        return nil, nil, nil, err
      end
    end
    cursor = reply[1]
    steps = steps + 1
    local now = microseconds() - started
    longest = math.max(longest, now - elapsed)
    -- A clock that stood still over a step cannot bound the next one.
    if now <= elapsed then
      break
    end
    elapsed = now
  until cursor == '0' or elapsed + longest > budget
  return cursor, steps, elapsed
end

-- The keys in the database, 0 when the user may not ask.
local function key_total()
  local size = redis.pcall('DBSIZE')
  return type(size) == 'number' and size or 0
end
