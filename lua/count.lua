-- count.lua: one batch of counting the old keys. Reads only.
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
--        5 families    old keys of each family, in keyspace.lua's order
--        6 conflicts   how many of them have a destination that exists
--        7 ambiguous   names that may be a town's own
--        8 towns       other towns met in keys of the new format, and perhaps this one
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN or EXISTS; NOCOMMAND: the server has it renamed

local problem = scan_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local families, conflicts, ambiguous, towns, seen = {}, 0, 0, {}, {}
for family = 1, FAMILY_COUNT do
  families[family] = 0
end

local function visit(key)
  local family = family_of(key)
  if family == nil then
    local other = town_of(key, prefix)
    if other and not seen[other] then
      seen[other] = true
      towns[#towns + 1] = other
    end
  elseif family == AMBIGUOUS then
    ambiguous = ambiguous + 1
  else
    local exists = redis.pcall('EXISTS', new_key(prefix, key))
    if type(exists) == 'table' then
      local err = plain_error(exists.err)
      if not is_key_error(err) then
        return err
      end
    elseif exists == 1 then
      conflicts = conflicts + 1
    end
    families[family] = families[family] + 1
  end
end

local next_cursor, steps, elapsed, err = scan(cursor, count, budget, visit)
if err then
  return redis.error_reply(err)
end
return {next_cursor, steps, elapsed, key_total(), families, conflicts, ambiguous, towns}
