-- cluster/forget.lua: deletes marks that nobody needs any more, at once or after a time. A mark that is to expire keeps
-- the time that it has.
--
-- Needs  batch, cluster/parts/items
-- KEYS   none, or the mark of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          mark     the name of the mark
--          ttl      how long it is kept, milliseconds, 0 to delete it
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          done     and
--          error    and the error
--        3 values   empty
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('mark, ttl')
if problem then
  return redis.error_reply(problem)
end

return results(function(mark, ttl)
  if ttl == '0' then
    call('DEL', mark)
  elseif call('PTTL', mark) == -1 then
    call('PEXPIRE', mark, ttl)
  end
  return 'done'
end)
