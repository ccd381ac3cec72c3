-- facts.lua: says of keys what their servers must know of each other. Reads only.
--
-- Needs  batch, items, keyspace, rename, merge, digest
-- KEYS   none, or the key of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          key      the key
--          what     type, digest, value or union
--          family   the key's family, for `digest`; else empty
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds: the type as TYPE returns it; for
--                   `digest`, as merge.lua tells it, and the length of a list, set or stream, else 0, and the
--                   digest of the value, separated by spaces; for `value`, with a `+` before it; or:
--          error    and the error, for `union` also why a stream cannot be united with another one
--        3 values   for `value`, the value of a string or hash, as GET and HGETALL return it, or an empty text
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('key, what, family')
if problem then
  return redis.error_reply(problem)
end

-- The number of values after which a reply ends.
local ENOUGH = 100
local values = 0

local function value_of(key, kind)
  if kind == 'string' then
    return call('GET', key) or ''
  end
  return kind == 'hash' and call('HGETALL', key) or ''
end

return results(function(key, what, family)
  local kind = type_in(family, key)
  if what == 'value' then
    values = values + 1
    return kind, value_of(key, kind), values == ENOUGH
  elseif what == 'union' and kind == 'stream' and not denied.XRANGE then
    check_alone(key)
  end
  if what ~= 'digest' or kind == 'none' then
    return kind
  end
  return kind .. ' ' .. length_of(key, kind) .. ' ' .. digest_of(key, kind)
end)
