-- migrate.lua: one batch of the migration, renaming the keys that move.
--
-- KEYS   none: which keys it renames, it finds itself; not for a cluster
-- ARGV   1 town     the town's name, any bytes, not empty
--        2 cursor   SCAN cursor, '0' to begin
--        3 count    COUNT hint of one SCAN step, keys
--        4 budget   time after which no further step begins, microseconds
-- Reply  1 cursor      next SCAN cursor, '0' when the pass is complete
--        2 steps       SCAN steps done
--        3 elapsed     time of the steps, microseconds; 0 where no clock runs
--        4 dbsize      keys in the database, 0 when not permitted
--        5 families    keys renamed of each family, in keyspace.lua's order
--        6 merged      keys joined with their destination of each family
--        7 conflicts   keys left because their destination exists, each followed by why
--        8 failed      keys that could not be moved, each followed by the error
--        9 ambiguous   names that may be a town's own, left alone
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN or RENAMENX; NOCOMMAND: the server has it renamed
--        READONLY, MISCONF, NOREPLICAS, ...  the server takes no writes
--        With an error nothing was moved: a server does not change its mind while a script runs.

local problem = scan_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local rename = redis.pcall
local families, merged, conflicts, failed, ambiguous = {}, {}, {}, {}, {}
for family = 1, FAMILY_COUNT do
  families[family], merged[family] = 0, 0
end

local function note_error(key, err)
  if not is_key_error(err) then
    return err
  end
  -- A key that is gone since SCAN named it (TTL, a consumer) is nobody's loss.
  if not string.find(err, 'no such key', 1, true) then
    note(failed, key, err)
  end
end

local function visit(key)
  local family, destination = move_of(prefix, key)
  if family == nil then
    return nil
  elseif family == AMBIGUOUS then
    ambiguous[#ambiguous + 1] = key
    return nil
  end
  local rival = rival_of(key)
  if rival then
    local err = visit(rival)
    if err then
      return err
    end
  end
  local reply = rename('RENAMENX', key, destination)
  if reply == 1 then
    families[family] = families[family] + 1
  elseif reply == 0 then
    local gone, reason, problem = settle_conflict(family, key, destination)
    if problem then
      note(failed, key, problem)
    elseif gone then
      merged[family] = merged[family] + 1
    else
      note(conflicts, key, reason)
    end
  else
    return note_error(key, plain_error(reply.err))
  end
end

local next_cursor, steps, elapsed, err = scan(cursor, count, budget, movers(ARGV[1]), visit)
if err then
  return redis.error_reply(err)
end
return {next_cursor, steps, elapsed, key_total(), families, merged, conflicts, failed, ambiguous}
