-- cluster/facts.lua: says of keys what their servers must know of each other. Reads only.
--
-- Needs  batch, cluster/parts/items, keyspace, renames/rename, conflicts/merge, cluster/parts/digest, difference
-- KEYS   none, or the key of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          key      the key
--          what     type, digest or union
--          family   the key's family
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds: the type as TYPE returns it; for
--                   `digest`, with a `+` before it, as merge.lua tells it, and the length of a list, set or stream,
--                   else 0, and the digest of the value, separated by spaces; or:
--          error    and the error, for `union` also why a stream cannot be united with another one
--        3 values   for `digest`, of a record, the names of its fields and the digests of their values in turn, as
--                   one MessagePack array; of another key, an empty array
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('key, what, family')
if problem then
  return redis.error_reply(problem)
end

return results(function(key, what, family)
  local kind = type_in(family, key)
  if what == 'union' and kind == 'stream' and not denied.XRANGE then
    check_alone(key)
  end
  if what ~= 'digest' or kind == 'none' then
    return kind
  end
  local fields = IS_RECORD[family] and digests_of(family, match(key, '([^:]*)$'), key, kind) or {}
  return kind .. ' ' .. length_of(key, kind) .. ' ' .. digest_of(key, kind), cmsgpack.pack(fields)
end)
