-- count.lua: one batch of counting the keys that move, and the town's records. Reads only.
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
--        5 families    keys that move of each family, in keyspace.lua's order
--        6 conflicts   how many of them have a destination that exists
--        7 ambiguous   names that may be a town's own
--        8 towns       other towns met in keys of the new format, and perhaps this one
--        9 strings     records of the town that are strings: agents, tasks
--       10 old_strings old records that are strings, with a destination that is free: agents, tasks
--       11 hashes      records of the town that are hashes
--       12 others      records of the town of another type
--       13 untyped     records whose type the user may not ask for
--       14 new_only    keys of the town that the old format does not have
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN or EXISTS; NOCOMMAND: the server has it renamed

local problem = scan_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, cursor, count, budget = prefix_of(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local families, conflicts, ambiguous, towns, seen = {}, 0, 0, {}, {}
local strings, old_strings, hashes, others, untyped, new_only = {0, 0}, {0, 0}, 0, 0, 0, 0
for family = 1, FAMILY_COUNT do
  families[family] = 0
end

-- nil when the user may not ask, as a user who only renames keys need not.
local function type_or_nil(key)
  local kind = redis.pcall('TYPE', key).ok
  untyped = untyped + (kind and 0 or 1)
  return kind
end

local function visit_record(record, key)
  local kind = type_or_nil(key)
  if kind == 'string' then
    strings[record] = strings[record] + 1
  elseif kind == 'hash' then
    hashes = hashes + 1
  elseif kind and kind ~= 'none' then
    others = others + 1
  end
end

local function visit_new(key)
  if has_no_old_form(prefix, key) then
    new_only = new_only + 1
    return
  end
  local other = town_of(key, prefix)
  if other and not seen[other] then
    seen[other] = true
    towns[#towns + 1] = other
  end
end

local function visit(key)
  local family, destination = move_of(prefix, key)
  local record = record_of(prefix, key)
  if record then
    visit_record(record, key)
  end
  if family == AMBIGUOUS then
    ambiguous = ambiguous + 1
  elseif family then
    local taken, err = occupant(destination, rival_of(key))
    if err and not is_key_error(err) then
      return err
    end
    families[family] = families[family] + 1
    conflicts = conflicts + (taken and 1 or 0)
    local old_record = not record and not taken and HOLDS_RECORDS[family]
    if old_record and type_or_nil(key) == 'string' then
      old_strings[old_record] = old_strings[old_record] + 1
    end
  elseif not record then
    visit_new(key)
  end
end

local next_cursor, steps, elapsed, err = scan(cursor, count, budget, all_named(ARGV[1]), visit)
if err then
  return redis.error_reply(err)
end
return {
  next_cursor, steps, elapsed, key_total(), families, conflicts, ambiguous, towns,
  strings, old_strings, hashes, others, untyped, new_only,
}
