-- preview.lua: one batch of the preview, naming the keys that a migration would meet. Reads only.
--
-- KEYS   none
-- ARGV   1 town     the town's name, any bytes, not empty
--        2 cursor   SCAN cursor, '0' to begin
--        3 count    COUNT hint of one SCAN step, keys
--        4 budget   time after which no further step begins, microseconds
-- Reply  1 cursor      next SCAN cursor, '0' when the pass is complete
--        2 steps       SCAN steps done
--        3 elapsed     time of the steps, microseconds; 0 where no clock runs
--        4 dbsize      keys in the database, 0 when not permitted
--        5 moves       old keys that would be renamed
--        6 conflicts   old keys whose destination exists
--        7 failed      old keys whose destination may not be looked at, each followed by the error
--        8 ambiguous   names that may be a town's own
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN or EXISTS; NOCOMMAND: the server has it renamed

local problem = scan_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local moves, conflicts, failed, ambiguous = {}, {}, {}, {}

local function visit(key)
  local family = family_of(key)
  if family == nil then
    return nil
  end
  if family == AMBIGUOUS then
    ambiguous[#ambiguous + 1] = key
    return nil
  end
  local exists = redis.pcall('EXISTS', new_key(prefix, key))
  if exists == 0 then
    moves[#moves + 1] = key
  elseif exists == 1 then
    conflicts[#conflicts + 1] = key
  else
    local err = plain_error(exists.err)
    if not is_key_error(err) then
      return err
    end
    failed[#failed + 1] = key
    failed[#failed + 1] = err
  end
end

local next_cursor, steps, elapsed, err = scan(cursor, count, budget, visit)
if err then
  return redis.error_reply(err)
end
return {next_cursor, steps, elapsed, key_total(), moves, conflicts, failed, ambiguous}
