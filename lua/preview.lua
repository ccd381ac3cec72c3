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
--        5 moves       keys that would be renamed, joined by line feeds: one long text is made, sent
--                      and taken apart in a third of the time of many short ones
--        6 odd_moves   those among them that hold a line feed, as a list
--        7 merges      keys that would be joined with their destination, each followed by how
--        8 conflicts   keys whose destination exists, each followed by why they would stay
--        9 failed      keys that may not be looked at, each followed by the error
--       10 ambiguous   names that may be a town's own
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN, EXISTS or what merge.lua asks; NOCOMMAND: the server has it
--                renamed

local problem = scan_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local moves, odd_moves, merges, conflicts, failed, ambiguous = {}, {}, {}, {}, {}, {}

local function visit(key)
  local family, destination = move_of(prefix, key)
  if family == nil then
    return nil
  elseif family == AMBIGUOUS then
    ambiguous[#ambiguous + 1] = key
    return nil
  end
  local plan, reason
  local taken, err = occupant(destination, rival_of(key))
  if taken then
    plan, reason, err = plan_conflict(family, key, taken)
  end
  if err then
    if not is_key_error(err) then
      return err
    end
    note(failed, key, err)
  elseif taken and plan then
    note(merges, key, plan)
  elseif taken then
    note(conflicts, key, reason)
  else
    local list = find(key, '\n', 1, true) and odd_moves or moves
    list[#list + 1] = key
  end
end

local next_cursor, steps, elapsed, err = scan(cursor, count, budget, movers(ARGV[1]), visit)
if err then
  return redis.error_reply(err)
end
return {
  next_cursor, steps, elapsed, key_total(), table.concat(moves, '\n'), odd_moves, merges, conflicts,
  failed, ambiguous,
}
