-- cluster/give_back.lua: gives frozen keys their names back. If a client has created the key anew, the two are joined
-- if nothing is lost by it: in a list, every message of both stays.
--
-- Needs  batch, cluster/parts/items, keyspace, renames/rename, keep_one, union, conflicts/merge
-- KEYS   none, or the hidden name and the key of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          hidden   the hidden name
--          key      the name that it had
--          family   its family
--          young    the time before which no other run reads the key, milliseconds since 1970
--          decided  1: a mark says that the key was refused; 0: no mark may exist, so that the key is given back
--                   only while it is young
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          alone    the key has its name, or was joined with the new key, before another run could read it
--          back     the same, later
--          gone     the hidden key does not exist
--          hidden   the key stays hidden: the new key has another value, or nothing is decided
--          error    and the error: the key stays hidden
--        3 values   empty
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('hidden, key, family, young, decided')
if problem then
  return redis.error_reply(problem)
end

local function join(hidden, key, family)
  local kind = type_in(family, hidden)
  if kind ~= type_in(family, key) then
    return false
  elseif kind == 'list' and (QUEUES[family] or STACKS[family]) then
    -- Without the family: an activity list is not cut to its length.
    join_lists(QUEUES[family] and 'queue' or 'stack', nil, hidden, key, outlives(hidden, key))
  elseif family == 'stop' and kind == 'string' then
    join_flags(hidden, key, outlives(hidden, key))
  elseif can_unite(family, kind) then
    unite(kind, hidden, key)
  elseif kind ~= 'list' and equal(hidden, key, kind) then
    keep_one(hidden, key, outlives(hidden, key))
  else
    return false
  end
  return true
end

local time = now()

local function give_back(hidden, key, family, young, decided)
  local is_young = time < tonumber(young)
  if decided ~= '1' and not is_young then
    return 'hidden'
  end
  local renamed = try('RENAMENX', hidden, key)
  if renamed == 0 then
    renamed = join(hidden, key, family) and 1 or 0
  end
  if renamed == 1 then
    return is_young and 'alone' or 'back'
  elseif renamed == 0 then
    return 'hidden'
  end
  local err = plain_error(renamed.err, 'RENAMENX')
  return find(err, 'no such key', 1, true) and 'gone' or 'error ' .. err
end

return results(give_back)
