-- cluster/apply.lua: creates frozen keys under their new names, or merges them with the keys that have these names. A
-- mark in the same slot says what was decided, so that applying a key twice is applying it once.
--
-- Needs  batch, cluster/parts/items, keyspace, renames/rename, <conflicts>
-- KEYS   none, or the destination, the mark and the staged name of the only item
-- ARGV   1 denied       commands that the user may not run, separated by spaces
--        2 budget       time after which no further item begins, microseconds
--        3 until        the time after which nothing new is decided, milliseconds since 1970
--        4 items    for each item, as one MessagePack array of strings:
--          destination  the new name
--          mark         the name of the mark, in the same slot
--          staged       a name in the same slot, where a value waits to be merged
--          hidden       the hidden name that the key has now, which the mark names
--          family       the key's family
--          expires      when the key expires, milliseconds since 1970, 0 for never
--          value        its value, as DUMP returns it
-- Reply  1 elapsed      time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          moved        the destination has been created
--          merged       and how: the destination has been merged with the key
--          refused      and why: the key must get its old name back
--          was          and one of these: that had been decided before
--          late         `until` is over, and there is no mark
--          error        and the error: nothing was changed and nothing decided
--        3 values   empty
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('destination, mark, staged, hidden, family, expires, value')
if problem then
  return redis.error_reply(problem)
end
-- The error of a full server, which counts for the rest of the call.
local full
local is_late = now() > tonumber(ARGV[3])

-- Returns a decision about an error, or raises it if it does not concern this key alone.
local function refusal(err)
  if is_key_error(err) or find(err, '^OOM ') then
    return 'refused ' .. err
  end
  error({err = err}, 0)
end

local function merge(destination, staged, family, expires, value)
  local stored = try('RESTORE', staged, expires, value, 'REPLACE', 'ABSTTL')
  if stored.err then
    return refusal(plain_error(stored.err, 'RESTORE'))
  end
  local gone, how, err = settle_conflict(family, staged, destination)
  if gone then
    return 'merged ' .. how
  end
  call('DEL', staged)
  return err and refusal(err) or 'refused ' .. how
end

local function decide(destination, staged, family, expires, value)
  local stored = try('RESTORE', destination, expires, value, 'ABSTTL')
  if not stored.err then
    return 'moved'
  end
  local err = plain_error(stored.err, 'RESTORE')
  if not find(err, 'BUSYKEY', 1, true) then
    return refusal(err)
  elseif not MERGES then
    local _, why = settle_conflict(family, staged, destination)
    return 'refused ' .. why
  end
  return merge(destination, staged, family, expires, value)
end

local function apply(destination, mark, staged, hidden, family, expires, value)
  local said = call('GET', mark)
  if said then
    -- A write, so that WAIT waits for the decision too.
    call('SET', mark, said)
    return 'was ' .. match(said, '^[^\n]*')
  elseif is_late then
    return 'late'
  end
  -- The mark comes first: once a script has written, a full server refuses it no other write.
  local marked = full or try('SET', mark, 'undecided')
  if marked.err then
    local err = plain_error(marked.err, 'SET')
    if not find(err, '^OOM ') then
      error({err = err}, 0)
    end
    full = marked
    call('DEL', mark)
    call('SET', mark, 'refused ' .. err .. '\n' .. hidden)
    return 'refused ' .. err
  end
  local fine, decision = pcall(decide, destination, staged, family, expires, value)
  if not fine then
    call('DEL', mark)
    error(decision, 0)
  end
  call('SET', mark, decision .. '\n' .. hidden)
  return decision
end

return results(apply)
