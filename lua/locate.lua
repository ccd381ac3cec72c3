-- locate.lua: tells which server process runs the scripts that have a key. Behind a proxy that spreads keys over
-- several servers, it is not the same for all keys. Changes nothing.
--
-- Needs  nothing
-- KEYS   1 key      any name; it decides where a proxy sends the call
-- ARGV   none
-- Reply  the address of a table of the process, empty if that does not tell processes apart
-- Errors BADARG  an argument is missing or wrong

if #KEYS ~= 1 or #ARGV ~= 0 then
  return redis.error_reply('BADARG takes one of KEYS and no ARGV')
end
-- Redis and Valkey have one Lua interpreter in each process. Servers without this function can have several.
local has_one_interpreter = redis.set_repl ~= nil
return has_one_interpreter and string.match(tostring(redis), '0x%x+$') or ''
