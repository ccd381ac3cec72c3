-- cluster/finish.lua: deletes frozen keys that were applied.
--
-- Needs  batch, cluster/parts/items
-- KEYS   none, or the hidden name of the only item
-- ARGV   1 denied   commands that the user may not run, separated by spaces
--        2 budget   time after which no further item begins, microseconds
--        3 until    not used
--        4 items    for each item, as one MessagePack array of strings:
--          hidden   the hidden name
--          young    the time before which no other run reads the key, milliseconds since 1970
-- Reply  1 elapsed  time of the call, microseconds; 0 if there is no clock
--        2 words    for each item, at least the first, separated by line feeds:
--          alone    the key was deleted before another run could read it
--          deleted  it was deleted later, or by another client
--          error    and the error
--        3 values   empty
-- Errors BADARG  an argument is missing or wrong

local problem = items_argument_error('hidden, young')
if problem then
  return redis.error_reply(problem)
end
local time = now()

local function finish(hidden, young)
  if call('DEL', hidden) == 1 then
    return time < tonumber(young) and 'alone' or 'deleted'
  end
  -- WAIT waits for the writes of its own connection. This makes it wait for another client's DEL too.
  call('SET', hidden, '')
  call('DEL', hidden)
  return 'deleted'
end

return results(finish)
