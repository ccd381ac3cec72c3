-- records.lua: one batch of reading the records that are strings. Reads only.
--
-- KEYS   none
-- ARGV   1 town      the town's name, any bytes, not empty
--        2 cursor    SCAN cursor, '0' to begin
--        3 count     COUNT hint of one SCAN step, keys
--        4 budget    time after which no further step begins, microseconds
--        5 enough    records after which no further step begins
--        6 old       '1': also old keys whose new name is free, '0': only the town's own
-- Reply  1 cursor    next SCAN cursor, '0' when the pass is complete
--        2 steps     SCAN steps done
--        3 elapsed   time of the steps, microseconds; 0 where no clock runs
--        4 dbsize    keys in the database, 0 when not permitted
--        5 records   the town's records that are strings: keys, each followed by its value
--        6 coming    the same of old keys, by the names that they will have
--        7 failed    records of another type but hash, or that may not be read, each followed by why
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN, TYPE, GET or EXISTS; NOCOMMAND: the server has it renamed

local problem = scan_argument_error('enough, old')
if problem then
  return redis.error_reply(problem)
elseif not whole_number(ARGV[5], 1, 1000000) then
  return redis.error_reply('BADARG enough: is no whole number from 1 to 1000000')
elseif ARGV[6] ~= '0' and ARGV[6] ~= '1' then
  return redis.error_reply("BADARG old: is not '0' or '1'")
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local enough, with_old = tonumber(ARGV[5]), ARGV[6] == '1'

local records, coming, failed = {}, {}, {}

-- The name that an old key will have as a record of the town, nil for another key, or nil and an error.
local function coming_name(key)
  local family, destination = move_of(prefix, key)
  if not HOLDS_RECORDS[family] then
    return nil
  end
  local taken, err = occupant(destination, rival_of(key))
  return not taken and not err and destination or nil, err
end

-- Notes a record's value, under its name or the one it will have. Returns an error that is not about
-- this key alone.
local function read(list, key, name)
  local kind = redis.pcall('TYPE', key)
  if kind.ok == 'hash' or kind.ok == 'none' then
    return nil
  elseif kind.ok and kind.ok ~= 'string' then
    note(failed, name, 'is a ' .. kind.ok .. ', neither string nor hash')
    return nil
  end
  local value = kind.err and kind or redis.pcall('GET', key)
  if type(value) == 'string' then
    note(list, name, value)
    return nil
  end
  local err = plain_error(value.err)
  if not is_key_error(err) then
    return err
  end
  note(failed, name, err)
end

local function visit(key)
  if record_of(prefix, key) then
    return read(records, key, key)
  elseif with_old then
    local name, err = coming_name(key)
    if name then
      return read(coming, key, name)
    end
    return err and not is_key_error(err) and err or nil
  end
end

local function is_enough()
  return (#records + #coming) / 2 >= enough
end

local pattern = with_old and all_named(ARGV[1]) or prefix_of(escaped(ARGV[1])) .. '[at][ga]*'
local next_cursor, steps, elapsed, err = scan(cursor, count, budget, pattern, visit, is_enough)
if err then
  return redis.error_reply(err)
end
return {next_cursor, steps, elapsed, key_total(), records, coming, failed}
