-- agents.lua: one batch that lists the ids and names of the agents under the town's name and its former name. Reads
-- only.
--
-- Needs  batch, reading_ahead, keyspace
-- KEYS   none, or the only key that the client has found
-- ARGV   1 town     the town's name, any bytes, not empty
--        2 cursor   SCAN cursor, '0' to begin
--        3 count    COUNT hint of one SCAN step, keys
--        4 budget   time after which no further step begins, microseconds
--        5 denied   commands that the user may not run, separated by spaces
--        6 from     how the keys of the town's former name begin, tt:<name>:; empty in other plans
--        7 ahead    SCAN steps to pass over before the batch begins
--        8 steps    after so many SCAN steps the batch ends, 0 for no limit
--        then keys that the client has found, 0 or more: they are visited in place of SCAN steps
-- Reply  1 cursor   next SCAN cursor, '0' when the pass is complete
--        2 steps    number of SCAN steps
--        3 elapsed  time of the batch, microseconds; 0 if there is no clock
--        4 dbsize   keys in the database, 0 if the user may not run DBSIZE
--        5 agents   ids of agents, each followed by the agent's name; agents whose name cannot be read are left out
--        6 begin    the cursor at which the batch began; empty if the scan ended before, or the time
--        7 passing  the time of passing over steps, microseconds
-- Errors BADARG  an argument is missing or wrong
--        NOPERM  the user may not run SCAN
--        NOCOMMAND  the server does not know it

local problem = reading_argument_error()
if problem then
  return redis.error_reply(problem)
end
local prefix, from = prefix_of(ARGV[1]), ARGV[6]
local agents = {}

-- Returns the name of an agent, which is a hash, or a JSON string if Tinytown 0.6 has written it. Returns nil or
-- another value if it has no name that can be read.
local function name_of(key)
  local kind = try('TYPE', key).ok
  if kind == 'hash' then
    return try('HGET', key, 'name')
  end
  local text = kind == 'string' and try('GET', key)
  local fine, record = pcall(cjson.decode, text)
  return fine and type(record) == 'table' and record.name
end

local function visit(key)
  for _, start in ipairs({prefix, from}) do
    if start ~= '' and record_of(start, key) == 'agent' then
      local name = name_of(key)
      if type(name) == 'string' then
        note(agents, sub(key, #start + #'agent:' + 1), name)
      end
    end
  end
end

local next_cursor, steps, err = read_from_here('tt:*:agent:*', visit)
if err then
  return redis.error_reply(err)
end
return {next_cursor, steps, spent(), key_total(), agents, begin, passing}
