-- scan.lua: looks at every key's name in a script and does nothing with it: what finding keys costs there.
--
-- KEYS   none
-- ARGV   1 cursor   SCAN cursor, '0' to begin
--        2 pattern  glob of the keys to look at
--        3 count    COUNT hint of one SCAN step, keys
--        4 steps    SCAN steps at most
-- Reply  the next SCAN cursor
-- Errors what SCAN says

local cursor = ARGV[1]
for _ = 1, tonumber(ARGV[4]) do
  cursor = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', ARGV[3])[1]
  if cursor == '0' then
    break
  end
end
return cursor
