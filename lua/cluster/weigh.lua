-- cluster/weigh.lua: says what a merge would do with keys and their destinations, which another server has. Reads only.
--
-- Needs  batch, cluster/parts/items, keyspace, renames/rename, conflicts/merge, cluster/parts/digest
-- KEYS   none, or the destination of the only item
-- ARGV   1 denied       commands that the user may not run, separated by spaces
--        2 budget       time after which no further item begins, microseconds
--        3 until        not used
--        4 items    for each item, as one MessagePack array of strings:
--          destination  the new name of the key
--          family       the key's family
--          kind         the key's type, its length and the digest of its value, as facts.lua returns them
--          length
--          digest
--          fields       the digests of its fields, as facts.lua returns them
-- Reply  1 elapsed      time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          merge:       and how the two would be merged
--          error        and the error, also why the two streams cannot be united
--          or why the key would stay
--        3 values   empty
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('destination, family, kind, length, digest, fields')
if problem then
  return redis.error_reply(problem)
end

return results(function(destination, family, kind, length, digest, fields)
  local function is_equal()
    return digest_of(destination, kind) == digest
  end
  local way, reason = way_to_join(family, kind, destination, is_equal, function()
    return cmsgpack.unpack(fields)
  end)
  if way == 'stream' and not denied.XRANGE then
    check_alone(destination)
  end
  return way and describe(way, family, destination, tonumber(length), is_equal) or reason
end)
