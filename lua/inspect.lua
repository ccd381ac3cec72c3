-- inspect.lua: what a run must know about the server before it begins: which process it is, whether it
-- evicts keys, which commands the user may not run, and whether scripts may do what they need. Changes nothing.
--
-- Needs  batch
-- KEYS   none, or names in different slots: a service that spreads slots over several servers refuses the call; or
--        ARGV's key, for a service that takes scripts with declared keys only
-- ARGV   1 key       a key of the town that Tinytown does not use; in a cluster, one that the server has
--        2 try       for servers without redis.acl_check_cmd: '1' to try write commands, '0' to assume that
--                    they are permitted
--        3 refused   commands known to be denied or missing, separated by spaces; they are not tried again
--        then the commands to test, in capitals, each one of TRIALS
-- Reply  1 run_id    the server's run_id, empty if the user may not run INFO
--        2 evicted   keys that the process evicted since it started, 0 if the user may not run INFO
--        3 evicting  1 if maxmemory and a policy that evicts keys are set, else 0
--        4 denied    those of the commands that the user may not run, and COMMAND if it was refused on the way
--        5 missing   those of the commands that the server does not know or has renamed
--        6 obstacle  the server's error to SCAN or to a look at keys that are not in KEYS; empty if both work or
--                    no commands are to be tested
-- Errors BADARG  an argument is missing or wrong
--
-- Redis 7.0 and later have redis.acl_check_cmd, which adds no entry to ACL LOG. On older servers a command is
-- tried in a form that changes nothing: on a key that does not exist, HSET with an incomplete pair, and RESTORE
-- with no valid value. RPUSH, LPUSH, SADD and XSETID have no such form and count as permitted. A command that is
-- refused because of its keys counts as permitted too: a run finds protected keys when it reaches them.

-- Commands with two keys get the same key twice: in cluster mode, two keys may be in different slots.
local TOWN_KEY = ARGV[1]
local TRIALS = {
  DBSIZE = {},
  DEL = {TOWN_KEY},
  DUMP = {TOWN_KEY},
  EXISTS = {TOWN_KEY},
  GET = {TOWN_KEY},
  HGET = {TOWN_KEY, 'field'},
  HGETALL = {TOWN_KEY},
  HLEN = {TOWN_KEY},
  HSET = {TOWN_KEY, 'field', 'value', 'field'},
  INFO = {'server'},
  LLEN = {TOWN_KEY},
  LPUSH = {TOWN_KEY, 'value'},
  LRANGE = {TOWN_KEY, '0', '0'},
  LTRIM = {TOWN_KEY, '0', '-1'},
  PEXPIRE = {TOWN_KEY, '1'},
  PTTL = {TOWN_KEY},
  RENAME = {TOWN_KEY, TOWN_KEY},
  RENAMENX = {TOWN_KEY, TOWN_KEY},
  RESTORE = {TOWN_KEY, '0', ''},
  RPUSH = {TOWN_KEY, 'value'},
  SADD = {TOWN_KEY, 'member'},
  SCARD = {TOWN_KEY},
  SCAN = {'0', 'COUNT', '1'},
  SET = {TOWN_KEY, 'value', 'XX'},
  SETRANGE = {TOWN_KEY, '0', ''},
  SMEMBERS = {TOWN_KEY},
  TIME = {},
  TYPE = {TOWN_KEY},
  XADD = {TOWN_KEY, 'NOMKSTREAM', '*', 'field', 'value'},
  -- Tried on a key that does not exist, GROUPS would be counted as an error.
  XINFO = redis.acl_check_cmd and {'GROUPS', TOWN_KEY} or {'HELP'},
  XLEN = {TOWN_KEY},
  XRANGE = {TOWN_KEY, '-', '+', 'COUNT', '1'},
  XSETID = {TOWN_KEY, '0-0'},
}
-- Commands whose trial would change something, or count as an error.
local NOT_TRIED = {LPUSH = true, RPUSH = true, SADD = true, XSETID = true}
local WRITES = {
  DEL = true, HSET = true, LTRIM = true, PEXPIRE = true, RENAME = true, RENAMENX = true, RESTORE = true, SET = true,
  SETRANGE = true, XADD = true, XSETID = true,
}

if not ARGV[3] or ARGV[1] == '' or (ARGV[2] ~= '0' and ARGV[2] ~= '1') then
  return redis.error_reply("BADARG ARGV: a key, '0' or '1', refused commands, commands")
end
for n = 4, #ARGV do
  if not TRIALS[ARGV[n]] then
    return redis.error_reply('BADARG command ' .. n - 3 .. ': is not a command that can be tested')
  end
end

deny(ARGV[3])
-- The tried commands change nothing, but Redis before 7.0 would send an empty transaction to replicas and to
-- the append-only file.
if not redis.acl_check_cmd then
  pcall(redis.set_repl, redis.REPL_NONE)
end

local function is_permitted(command, ...)
  local known, permitted = pcall(redis.acl_check_cmd, command, ...)
  return known and permitted
end

-- Returns whether the user has any access to a key.
local function is_open(key)
  return is_permitted('EXISTS', key) or is_permitted('TYPE', key) or is_permitted('PTTL', key)
    or is_permitted('GET', key) or is_permitted('DEL', key)
end

-- Asks redis.acl_check_cmd about a command. Returns 'permitted', 'denied' or 'missing'.
local function asked(command)
  local known, permitted = pcall(redis.acl_check_cmd, command, unpack(TRIALS[command]))
  if not known then
    return 'missing'
  end
  local has_key = TRIALS[command][1] == TOWN_KEY or TRIALS[command][2] == TOWN_KEY
  local is_for_its_key = has_key and not is_open(TOWN_KEY)
  return (permitted or is_for_its_key) and 'permitted' or 'denied'
end

local existing = denied.EXISTS and {err = 'NOPERM EXISTS'} or nil

-- Returns 1 if the key exists on which commands are tried, 0 if not, or the error. Runs EXISTS once.
local function key_there()
  existing = existing or redis.pcall('EXISTS', TOWN_KEY)
  return existing
end

local may_ask_for_commands = not denied.COMMAND

-- Returns whether the server knows a command; true if the user may not run COMMAND INFO.
local function is_known(command)
  local reply = may_ask_for_commands and redis.pcall('COMMAND', 'INFO', command)
  may_ask_for_commands = reply and not reply.err
  return not may_ask_for_commands or reply[1] ~= false
end

-- Like asked(), but tries the command.
local function tried(command)
  if not is_known(command) then
    return 'missing'
  end
  local with_key = TRIALS[command][1] == TOWN_KEY
  if NOT_TRIED[command] or (WRITES[command] and ARGV[2] == '0') then
    return 'permitted'
  elseif with_key and command ~= 'EXISTS' and key_there() ~= 0 then
    return 'permitted'
  end
  local reply = command == 'EXISTS' and key_there() or redis.pcall(command, unpack(TRIALS[command]))
  local err = type(reply) == 'table' and reply.err or ''
  if string.find(err, "can't run this command", 1, true) then
    return 'denied'
  end
  return string.find(err, 'nknown.* command called') and 'missing' or 'permitted'
end

local answer = redis.acl_check_cmd and asked or tried
local found = {permitted = {}, denied = {}, missing = {}}
local may_ask_info = not denied.INFO
for n = 4, #ARGV do
  local said = answer(ARGV[n])
  found[said][#found[said] + 1] = ARGV[n]
  may_ask_info = may_ask_info and (ARGV[n] ~= 'INFO' or said == 'permitted')
end

if not may_ask_for_commands and not denied.COMMAND then
  found.denied[#found.denied + 1] = 'COMMAND'
end

-- Returns the error to a command. Returns an empty text if there is none or if the user may not run the command.
local function error_to(command, ...)
  if denied[command] or (redis.acl_check_cmd and not is_permitted(command, ...)) then
    return ''
  end
  local reply = command == 'EXISTS' and key_there() or redis.pcall(command, ...)
  return type(reply) == 'table' and reply.err and plain_error(reply.err, command) or ''
end

-- Returns the error to what every script does: SCAN, and a look at a key that is not in KEYS.
local function obstacle()
  deny(table.concat(found.denied, ' '))
  local err = KEYS[1] ~= TOWN_KEY and error_to('SCAN', '0', 'COUNT', '1') or ''
  if err == '' then
    err = error_to('EXISTS', TOWN_KEY)
  end
  local is_about_user = string.find(err, '^NOPERM') or string.find(err, '^NOCOMMAND')
    or string.find(err, "can't access", 1, true)
  return is_about_user and '' or err
end

-- Returns a field of a section of INFO, empty if there is none.
local function info(section, field)
  local text = may_ask_info and redis.pcall('INFO', section)
  return type(text) == 'string' and string.match(text, '\n' .. field .. ':([^\r\n]*)') or ''
end

local limit, policy = info('memory', 'maxmemory'), info('memory', 'maxmemory_policy')
return {
  info('server', 'run_id'),
  tonumber(info('stats', 'evicted_keys')) or 0,
  (limit ~= '' and limit ~= '0' and policy ~= '' and policy ~= 'noeviction') and 1 or 0,
  found.denied,
  found.missing,
  #ARGV > 3 and obstacle() or '',
}
