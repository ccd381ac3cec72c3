-- parts/replicas.lua: tells how far the replicas are behind.
--
-- Needs  batch
-- Gives  most_behind()

-- Returns how many bytes of the server's writes the slowest replica has not confirmed: 0 if there is no replica, or the
-- user may not run INFO. A replica that is being synchronised does not count. One that does not answer counts until
-- the server drops it, after `repl-timeout`.
local function most_behind()
  local info, most = try('INFO', 'replication'), 0
  if type(info) ~= 'string' or string.find(info, 'connected_slaves:0', 1, true) then
    return 0
  end
  local written = tonumber(string.match(info, 'master_repl_offset:(%d+)')) or 0
  for confirmed in string.gmatch(info, 'slave%d+:[^\r\n]*state=online,offset=(%d+)') do
    most = math.max(most, written - tonumber(confirmed))
  end
  return most
end
