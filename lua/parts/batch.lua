-- parts/batch.lua: what all operations share: argument checks, the clock, errors, and time-limited SCAN.
--
-- Needs  nothing
-- Gives  denied, deny(names), spent(), is_time_spent(budget, unknown), whole_number(text, lowest, highest),
--        CURSOR_WORDS, scan_argument_error(more), plain_error(err, command), is_key_error(err), caught(err),
--        try(command, ...), call(command, ...), take_back(key), note(list, key, text), key_total(), CHUNK,
--        scan(cursor, count, budget, pattern, visit, before_step, kind, most),
--        scan_or_visit(cursor, count, budget, pattern, visit, from, before_step, kind, most)

-- On Redis 6.2 with `lua-replicate-commands no`, a script may write after SCAN or TIME only if it makes
-- this call. Later versions always replicate a script's effects. Some compatible servers have no such function,
-- or one that raises an error.
pcall(redis.replicate_commands)

-- The clock that advances during a script is os.clock on Redis 8 and Valkey 8, where TIME stands still.
-- It is TIME on Redis 6.2 and 7.0, where reading the global `os` raises an error.
local os_library = rawget(_G, 'os')

-- Commands that the user may not run. They are not called: each refused call adds an entry to ACL LOG.
local denied = {}

-- Adds commands to `denied`. names: separated by spaces; `nothing` for a user who may run all.
local function deny(names)
  for name in string.gmatch(names, '%S+') do
    denied[name] = true
  end
end

local function microseconds()
  if os_library and os_library.clock then
    return os_library.clock() * 1000000
  end
  local time = not denied.TIME and redis.pcall('TIME')
  -- If the user may not run TIME, there is no clock, and a batch is one step.
  return time and not time.err and time[1] * 1000000 + time[2] or 0
end

local started

-- Returns the microseconds since the first call of this function, which begins a batch. Returns 0 if there
-- is no clock or if it was set back.
local function spent()
  started = started or microseconds()
  return math.max(0, microseconds() - started)
end

-- Returns whether a batch has used its time, in microseconds. unknown: what to return without a clock, true if left
-- out.
local function is_time_spent(budget, unknown)
  local now = microseconds()
  if now == 0 then
    return unknown ~= false
  end
  return now - started > budget
end

-- Returns whether a text is a whole number from lowest to highest.
local function whole_number(text, lowest, highest)
  local number = string.match(text, '^%d+$') and tonumber(text)
  return number and number >= lowest and number <= highest
end

-- Words that may stand in place of a cursor.
local CURSOR_WORDS = {}

-- Checks the arguments town, cursor, count, budget, denied and from, and begins the batch. Returns the message
-- for the first wrong argument, nil if all are valid. more: the names of further arguments, separated by commas.
-- Keys may follow. A service can require that such a key is in KEYS too.
local function scan_argument_error(more)
  local names = 'town, cursor, count, budget, denied, from, ' .. more
  local _, commas = string.gsub(names, ',', '')
  local is_named = #KEYS == 0 or (#ARGV == commas + 2 and #KEYS == 1 and KEYS[1] == ARGV[#ARGV])
  if not is_named or #ARGV <= commas then
    return 'BADARG takes no KEYS and ' .. commas + 1 .. ' ARGV: ' .. names
  end
  if ARGV[1] == '' then
    return 'BADARG town: is empty'
  end
  if not CURSOR_WORDS[ARGV[2]] and not whole_number(ARGV[2], 0, 18446744073709551615) then
    return 'BADARG cursor: is not an unsigned 64-bit number'
  end
  if not whole_number(ARGV[3], 1, 1000000) then
    return 'BADARG count: is not a whole number from 1 to 1000000'
  end
  if not whole_number(ARGV[4], 1, 60000000) then
    return 'BADARG budget: is not a whole number of microseconds from 1 to 60000000'
  end
  if ARGV[6] ~= '' and not string.find(ARGV[6], '^tt:.*:$') then
    return 'BADARG from: does not begin with tt: and end with a colon'
  end
  deny(ARGV[5])
  spent()
  return nil
end

-- Returns an error of redis.pcall as a client would see it: one code, then the message. Redis 6.2 puts the
-- script's position in front, which is removed. command: the command that was called, for an error that does
-- not name it.
local function plain_error(err, command)
  local text = string.gsub(string.gsub(err, '^@user_script:[^:]*: *%-?', ''), '[\r\n]+', ' ')
  local code, rest = string.match(text, '^(%u+) (.*)$')
  if string.find(text, 'run th', 1, true) then
    -- "can't run this command" or "no permissions to run the '...' command"
    code, rest = 'NOPERM', rest or text
    if command and not string.find(rest, "the '", 1, true) then
      rest = 'the user has no permissions to run ' .. command
    end
  elseif string.find(text, 'nknown.* command called') then
    code, rest = 'NOCOMMAND', command or rest or text
  elseif string.find(text, 'cluster is down', 1, true) or string.find(text, 'slot not served', 1, true) then
    code, rest = 'CLUSTERDOWN', rest or text
  elseif string.find(text, 'during rehashing', 1, true) then
    code, rest = 'TRYAGAIN', rest or text
  elseif string.find(text, 'non local key', 1, true) then
    code, rest = 'NOTLOCAL', rest or text
  elseif not code then
    code, rest = 'ERR', text
  end
  return code .. ' ' .. string.gsub(rest, ' +$', '')
end

-- Returns whether a plain error concerns one key. Other errors (READONLY, NOPERM for a command, NOCOMMAND,
-- MISCONF, NOREPLICAS, NOTLOCAL, ...) concern the server or the user and would occur for every key.
local function is_key_error(err)
  return string.find(err, '^ERR ') ~= nil
end

-- Returns the text of what pcall caught. Since Redis 7.0, it is a text already.
local function caught(err)
  return plain_error(type(err) == 'table' and err.err or tostring(err))
end

local run = redis.pcall

-- Like redis.pcall, but does not run a denied command.
local function try(command, ...)
  if denied[command] then
    return {err = 'NOPERM the user has no permissions to run ' .. command}
  end
  return run(command, ...)
end

-- Like redis.call, but raises a plain error.
local function call(command, ...)
  local reply = denied[command] and try(command) or run(command, ...)
  if type(reply) == 'table' and reply.err then
    error({err = plain_error(reply.err, command)}, 0)
  end
  return reply
end

-- Deletes a key that this script has made, or lets it expire at once if DEL is refused.
local function take_back(key)
  if try('DEL', key) ~= 1 then
    try('PEXPIRE', key, 0)
  end
end

-- Appends a key and a text to a flat list of such pairs.
local function note(list, key, text)
  list[#list + 1] = key
  list[#list + 1] = text
end

-- Runs SCAN steps of `count` keys from `cursor`, and calls visit(key) for each key that the glob `pattern`
-- matches. Ends when the cursor is '0' again, when another step as long as the last one would exceed `budget`
-- microseconds, when SCAN fails, or when visit returns an error. before_step(cursor), if given, is called
-- before each step. If it returns true after at least one step, the batch ends. kind: the type of the keys, nil for any;
-- a server that cannot filter by it gives keys of others too. It ends after `most` steps, if given and not 0.
-- Returns the next cursor and the number of steps, or nil, nil and the error.
local function scan(cursor, count, budget, pattern, visit, before_step, kind, most)
  local steps, elapsed = 0, spent()
  repeat
    if before_step and before_step(cursor) and steps > 0 then
      break
    end
    local reply = kind and try('SCAN', cursor, 'MATCH', pattern, 'COUNT', count, 'TYPE', kind)
    if not reply or reply.err then
      reply = try('SCAN', cursor, 'MATCH', pattern, 'COUNT', count)
    end
    if reply.err then
      return nil, nil, plain_error(reply.err, 'SCAN')
    end
    local keys = reply[2]
    for i = 1, #keys do
      local err = visit(keys[i])
      if err then
        return nil, nil, err
      end
    end
    cursor = reply[1]
    steps = steps + 1
    local now = spent()
    local step = now - elapsed
    elapsed = now
    -- If the clock did not advance during a step, it cannot limit the next one.
  until cursor == '0' or steps == most or step <= 0 or elapsed + step > budget
  return cursor, steps
end

-- Like scan(), but if ARGV holds keys (at position `from` and after), which an earlier batch has postponed or the
-- client has found, calls visit(key) for them instead.
local function scan_or_visit(cursor, count, budget, pattern, visit, from, before_step, kind, most)
  if #ARGV < from then
    return scan(cursor, count, budget, pattern, visit, before_step, kind, most)
  end
  for n = from, #ARGV do
    -- Meanwhile the key may have expired or been consumed.
    local err = try('EXISTS', ARGV[n]) ~= 0 and visit(ARGV[n])
    if err then
      return nil, nil, err
    end
  end
  return cursor, 0
end

-- Returns the number of keys in the database, 0 if the user may not run DBSIZE.
local function key_total()
  local size = not denied.DBSIZE and redis.pcall('DBSIZE')
  return type(size) == 'number' and size or 0
end

-- Number of values in one command, far below the 8,000 that unpack accepts.
local CHUNK = 1000
