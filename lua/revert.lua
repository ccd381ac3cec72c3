-- revert.lua: converts records from hashes to strings if they still have the fields that were read.
--
-- Needs  batch, keyspace, plain_hash, swap
-- KEYS   none: if an ACL protects one key in KEYS, the server refuses the whole call; or the key and the site of
--        the only record
-- ARGV   1 denied     commands that the user may not run, separated by spaces
--        then for each record, 1 or more
--        - key
--        - site       the name under which its new value is built; in a cluster, in the same slot
--        - expected   the fields and values that were read, in turn, as one MessagePack array of strings
--        - new        the string
-- Reply  1 elapsed    time of the call, microseconds; 0 if there is no clock
--        2 converted  positions of the records that are strings now, from 1
--        3 changed    positions of the records that hold another value now
--        4 failed     keys that were left as they were, each followed by the error
--        5 error      why the call ended before its last record, empty if it did not: NOPERM, the user may
--                     not run HGETALL, DUMP, EXISTS, TYPE, PTTL, SET, PEXPIRE, RENAME or DEL; NOCOMMAND, the
--                     server does not know one of them; READONLY, MISCONF, NOREPLICAS, ..., it accepts no writes
-- Errors BADARG  an argument is missing or wrong

local records, problem = records_of_arguments(function(expected, new)
  local fields = unpacked_fields(expected)
  if not fields then
    return nil, 'has no MessagePack array of fields and values'
  end
  return fields, new
end)
if problem then
  return redis.error_reply(problem)
end

-- Returns whether two flat lists have the same fields and values. Their order may differ.
local function are_same(fields, others)
  local values = {}
  for n = 1, #fields, 2 do
    values[fields[n]] = fields[n + 1]
  end
  for n = 1, #others, 2 do
    if values[others[n]] ~= others[n + 1] then
      return false
    end
  end
  return #fields == #others
end

return reply_for(records, function(record)
  local fields = call('HGETALL', record.key)
  if #fields == 0 then
    return nil
  elseif not are_same(fields, record.expected) then
    return 'changed'
  elseif not is_plain_hash(call('DUMP', record.key)) then
    error({err = 'ERR its fields have times to live, which a string cannot keep'})
  end
  swap(record, 'string', function(site)
    call('SET', site, record.new)
  end)
  return 'converted'
end)
