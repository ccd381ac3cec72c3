-- parts/reading_ahead.lua: lets a client send calls of a pass that only reads ahead of replies. Nothing is written and
-- nothing is kept: each call begins at the cursor of the last reply, and first passes over the SCAN steps of the calls
-- that were sent before it.
--
-- A step ends where it does whatever keys it returns, because COUNT counts keys before MATCH filters them. So the call
-- begins to read at the cursor at which the call before it ends, unless keys have come or gone there meanwhile. The
-- reply names that cursor, and the client drops a reply that does not go on from the one before.
--
-- Needs  batch
-- Gives  reading_argument_error(), read_from_here(pattern, visit, kind), begin, passing

local begin, passing = '', 0

-- Like scan_argument_error(), for scripts whose arguments `ahead` and `steps` follow `from`. Keys may follow them.
local function reading_argument_error()
  local problem = scan_argument_error('ahead, steps')
  if problem then
    return problem
  end
  for n, name in pairs({[7] = 'ahead', [8] = 'steps'}) do
    if not whole_number(ARGV[n], 0, 1000000) then
      return 'BADARG ' .. name .. ': is not a whole number of SCAN steps from 0 to 1000000'
    end
  end
  return nil
end

-- Passes over `ahead` SCAN steps. Returns the cursor after them; '0' if the pass ends before it, or if the time is
-- spent. Returns nil and the error of SCAN.
local function pass_over(cursor, pattern)
  -- It matches nothing, so nothing is returned, which costs a tenth. In cluster mode, Redis 8 and Valkey look at one
  -- slot only if a glob begins with a hash tag. So this one begins like the other.
  local nothing = string.match(pattern, '^[^*?%[\\]*') .. '[]'
  for _ = 1, tonumber(ARGV[7]) do
    local reply = try('SCAN', cursor, 'MATCH', nothing, 'COUNT', ARGV[3])
    if reply.err then
      return nil, plain_error(reply.err, 'SCAN')
    end
    cursor = reply[1]
    if cursor == '0' or spent() > tonumber(ARGV[4]) then
      return '0'
    end
  end
  return cursor
end

-- Like scan_or_visit(), for a script with these arguments. kind: as for scan(). Sets `begin` and `passing` for its
-- reply.
local function read_from_here(pattern, visit, kind)
  local is_ahead = ARGV[7] ~= '0'
  local cursor, err = ARGV[2], nil
  if is_ahead then
    cursor, err = pass_over(cursor, pattern)
    passing = spent()
  end
  if err or (is_ahead and cursor == '0') then
    return not err and '0' or nil, 0, err
  end
  begin = cursor
  return scan_or_visit(cursor, ARGV[3], tonumber(ARGV[4]), pattern, visit, 9, nil, kind, tonumber(ARGV[8]))
end
