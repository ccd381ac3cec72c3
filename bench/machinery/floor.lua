-- floor.lua: the least that a script can do which finds keys, and renames them where it has a prefix. It
-- checks nothing, takes whatever SCAN names for an old key, and so must never meet a database that anybody
-- needs.
--
-- KEYS   none
-- ARGV   1 cursor   SCAN cursor, '0' to begin
--        2 pattern  glob of the keys to find
--        3 count    COUNT hint of one SCAN step, keys
--        4 steps    SCAN steps at most
--        5 prefix   what a new name begins with; '' renames nothing
-- Reply  the next SCAN cursor
-- Errors what SCAN and RENAMENX say

local cursor, prefix = ARGV[1], ARGV[5]
for _ = 1, tonumber(ARGV[4]) do
  local reply = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', ARGV[3])
  local keys = reply[2]
  if prefix ~= '' then
    for i = 1, #keys do
      redis.call('RENAMENX', keys[i], prefix .. string.sub(keys[i], 4))
    end
  end
  cursor = reply[1]
  if cursor == '0' then
    break
  end
end
return cursor
