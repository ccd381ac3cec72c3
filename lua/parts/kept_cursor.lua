-- parts/kept_cursor.lua: lets a client send calls ahead of replies. A key keeps the cursor for the next call, and the
-- time before which that call may not work.
--
-- The key's value is `<cursor> <ready> <wait>`. ready: the time from which a call may work, in microseconds; 0
-- until a call has seen that the last batch has ended. wait: the rest after a batch, in microseconds.
--
-- A script cannot know when it ends: TIME stands still in a script on Redis 8 and Valkey, and os.clock leaves out
-- the time in which other processes had the processor. So the first call after a batch only looks at the
-- clock.
--
-- Needs  batch
-- Gives  cursor_argument_error(more), kept_cursor(), put_off(cursor), keep(cursor)

CURSOR_WORDS.kept, CURSOR_WORDS['end'] = true, true

local KEPT_MILLISECONDS = 10000
-- The time in which a server answers the clients that waited for a batch, microseconds.
local SHORTEST_PAUSE = 200

-- Like scan_argument_error(), for scripts whose arguments `kept_in` and `nice` follow `from`.
local function cursor_argument_error(more)
  local problem = scan_argument_error('kept_in, nice' .. (more and ', ' .. more or ''))
  local nice = tonumber(ARGV[8])
  if problem then
    return problem
  elseif ARGV[7] == '' and CURSOR_WORDS[ARGV[2]] then
    return 'BADARG kept_in: is empty, so that no cursor is kept'
  elseif ARGV[7] ~= '' and string.find(ARGV[7], 'tt:' .. ARGV[1] .. ':flight:', 1, true) ~= 1 then
    return 'BADARG kept_in: does not begin with tt:<town>:flight:'
  elseif not (nice and nice >= 0 and nice <= 1000) then
    return 'BADARG nice: is not a number from 0 to 1000'
  end
  return nil
end

-- The address of a table of this process. A cursor means nothing to another process, which can have the data after
-- a restart or a failover, so the key's name contains the address. nil if the server does not show addresses: then no
-- cursor is kept. Nor is one kept by a compatible server that cannot leave the key out of its replication.
local ADDRESS = pcall(redis.set_repl, redis.REPL_ALL) and string.match(tostring(redis), '0x%x+$') or nil

local function kept_key()
  return ARGV[7] .. (ADDRESS or '')
end

-- Returns the time of the server's clock in microseconds, nil if the user may not run TIME.
local function clock()
  local time = try('TIME')
  return not time.err and time[1] * 1000000 + time[2] or nil
end

-- Sets the key. It is not passed on to replicas and to the append-only file, which have it only
-- if they are written whole meanwhile. Returns whether it was set.
local function set_kept(milliseconds, ...)
  local key, value = kept_key(), string.format('%s %.0f %.0f', ...)
  redis.set_repl(redis.REPL_NONE)
  local reply = try('SET', key, value, 'PX', milliseconds)
  if reply.err and string.find(reply.err, 'OOM', 1, true) then
    -- After any write command, even one without effect, a full server allows a script to write.
    try('RENAMENX', key, key)
    reply = try('SET', key, value, 'PX', milliseconds)
  end
  redis.set_repl(redis.REPL_ALL)
  return not reply.err
end

-- Deletes the key. Without the permission for DEL, it expires at once.
local function forget()
  if try('EXISTS', kept_key()) == 1 then
    redis.set_repl(redis.REPL_NONE)
    local deleted = try('DEL', kept_key())
    redis.set_repl(redis.REPL_ALL)
    if deleted ~= 1 then
      set_kept(1, '0', 0, 0)
    end
  end
end

-- Returns the cursor to scan from, or nil and the reply of this call: {'early'} if it comes too early to work,
-- {'gone'} if no cursor is kept, {'ended'} if it was told to forget the cursor.
local function kept_cursor()
  local cursor = ARGV[2]
  if cursor == 'end' then
    forget()
    return nil, {'ended'}
  elseif cursor ~= 'kept' then
    return cursor
  end
  local kept = try('GET', kept_key())
  local at, ready, wait = string.match(type(kept) == 'string' and kept or '', '^(%d+) (%d+) (%d+)$')
  local now = clock()
  if not at or at == '0' or not now or not ADDRESS then
    return nil, {'gone'}
  end
  ready, wait = tonumber(ready), tonumber(wait)
  if ready > 0 and now >= ready then
    return at
  end
  -- A call that comes too early delays the next batch by 0.2 ms, but not by the whole wait: calls that keep
  -- coming would delay it for ever. If the clock was set back, what is left is at most the wait.
  local left = ready > 0 and math.max(SHORTEST_PAUSE, math.min(ready - now, wait)) or wait
  set_kept(KEPT_MILLISECONDS, at, now + left, wait)
  return nil, {'early'}
end

-- Lets no call work for 50 ms, if the cursor is the one that is kept.
local function put_off(cursor)
  if ARGV[2] == 'kept' then
    set_kept(KEPT_MILLISECONDS, cursor, clock() + 50000, 50000)
  end
end

-- Keeps the cursor of a batch that has ended, unless ARGV's kept_in is empty. Returns 1 if the next call can go on
-- from it, else 0.
local function keep(cursor)
  if ARGV[7] == '' or not ADDRESS then
    return 0
  elseif cursor == '0' then
    forget()
    return 0
  end
  local wait = math.max(SHORTEST_PAUSE, tonumber(ARGV[8]) * spent())
  local is_kept = clock() and set_kept(KEPT_MILLISECONDS, cursor, 0, wait)
  return is_kept and 1 or 0
end
