-- floor.lua: the least that a script can do which renames the keys it finds. It checks nothing, takes
-- whatever SCAN names for an old key, and so must never meet a database that anybody needs.
--
-- KEYS   none
-- ARGV   1 prefix   what a new name begins with
--        2 cursor   SCAN cursor, '0' to begin
--        3 pattern  glob of the keys to rename
--        4 count    COUNT hint of one SCAN step, keys
--        5 steps    SCAN steps at most
-- Reply  the next SCAN cursor
-- Errors what SCAN and RENAMENX say

local prefix, cursor = ARGV[1], ARGV[2]
for _ = 1, tonumber(ARGV[5]) do
  local reply = redis.call('SCAN', cursor, 'MATCH', ARGV[3], 'COUNT', ARGV[4])
  local keys = reply[2]
  for i = 1, #keys do
    redis.call('RENAMENX', keys[i], prefix .. string.sub(keys[i], 4))
  end
  cursor = reply[1]
  if cursor == '0' then
    break
  end
end
return cursor
