-- parts/union.lua: unites a key with its destination: sets of active missions, and streams of events.
--
-- Needs  batch, keyspace, keep_one, <renames>
-- Gives  can_unite(family, kind), check_alone(key), check_union(key, other), unite(kind, key, destination)

local can_unite, check_alone, check_union, unite
do
  -- The most fields and values of an event: unpack accepts less than 8,000.
  local MOST_WORDS = 7900

  -- Returns whether two keys of a family and a type can be united. kind: as type_in() of merge.lua returns it.
  function can_unite(family, kind)
    return (family == 'mission' and kind == 'set') or (family == 'events' and kind == 'stream')
  end

  -- Returns the two parts of the id of a stream's entry, as texts: numbers to 2^64-1 are too long for Lua.
  local function parts_of(id)
    return match(id, '^(%d+)-(%d+)$')
  end

  local function is_less(number, other)
    return #number < #other or (#number == #other and number < other)
  end

  -- Returns whether an id comes before another.
  local function comes_before(id, other)
    if #id == #other and find(id, '-', 1, true) == find(other, '-', 1, true) then
      return id < other
    end
    local time, number = parts_of(id)
    local other_time, other_number = parts_of(other)
    return is_less(time, other_time) or (time == other_time and is_less(number, other_number))
  end

  local LARGEST = '18446744073709551615'

  -- Returns a number plus one.
  local function successor(number)
    if #number < 14 then
      return number + 1 .. ''
    end
    local rest, digit, nines = match(number, '^(%d-)([0-8]?)(9*)$')
    return rest .. (tonumber(digit) or 0) + 1 .. string.rep('0', #nines)
  end

  -- Returns the next id.
  local function id_after(id)
    local time, number = parts_of(id)
    if number ~= LARGEST then
      return time .. '-' .. successor(number)
    elseif time ~= LARGEST then
      return successor(time) .. '-0'
    end
    error({err = 'ERR no id is free after ' .. id}, 0)
  end

  -- Returns whether two entries have the same fields and values.
  local function are_same(fields, others)
    if #fields ~= #others then
      return false
    end
    for n = 1, #fields do
      if fields[n] ~= others[n] then
        return false
      end
    end
    return true
  end

  -- Raises an error for an entry that XADD cannot make.
  local function check_words(entries)
    for _, entry in ipairs(entries) do
      if #entry[2] > MOST_WORDS then
        error({err = 'ERR an event has too many fields to be merged: ' .. entry[1]}, 0)
      end
    end
  end

  -- Returns two lists of entries as one. Each is in the order of ids, and so is the result. Two equal entries of one
  -- id become one. Of two different ones, the other list's is appended to late.
  local function merged(one, two, late)
    local entries, n, m = {}, 1, 1
    while one[n] or two[m] do
      local entry, other = one[n], two[m]
      if entry and other and entry[1] == other[1] then
        m = m + 1
        if not are_same(entry[2], other[2]) then
          late[#late + 1] = other
        end
      elseif not other or (entry and comes_before(entry[1], other[1])) then
        entries[#entries + 1], n = entry, n + 1
      else
        entries[#entries + 1], m = other, m + 1
      end
    end
    return entries
  end

  -- Returns entries with other ids: the next ones that no entry has. Both lists are in the order of ids, so what was
  -- found for one entry is where the search for the next one goes on.
  local function with_free_ids(late, entries)
    local taken, moved, last = {}, {}, nil
    for _, entry in ipairs(entries) do
      taken[entry[1]] = true
    end
    for n, entry in ipairs(late) do
      local id = last and comes_before(entry[1], last) and last or entry[1]
      repeat
        id = id_after(id)
      until not taken[id]
      moved[n], last = {id, entry[2]}, id
    end
    return moved
  end

  -- Returns the entries of two streams in the order of their ids. Two equal entries of one id become one. Of two
  -- different ones, the other stream's gets the next id that no entry has. Raises an error if the streams cannot be
  -- united.
  local function entries_of_both(key, other)
    local late = {}
    local entries = merged(call('XRANGE', key, '-', '+'), call('XRANGE', other, '-', '+'), late)
    if #late > 0 then
      entries = merged(entries, with_free_ids(late, entries))
    end
    check_words(entries)
    return entries
  end

  -- Returns the last id that a stream has given, perhaps to an entry that is deleted.
  local function last_id_of(key)
    local said = call('XINFO', 'STREAM', key)
    for n = 1, #said, 2 do
      if said[n] == 'last-generated-id' then
        return said[n + 1]
      end
    end
  end

  local LAST = LARGEST .. '-' .. LARGEST

  -- Raises the error that uniting a stream with another one would raise because of its entries. Takes much less time.
  local function check_entries(key)
    local first = '-'
    repeat
      local entries = call('XRANGE', key, first, '+', 'COUNT', CHUNK)
      check_words(entries)
      first = #entries == CHUNK and entries[CHUNK][1]
    until not first
  end

  -- The same for two streams.
  function check_union(key, other)
    check_entries(key)
    check_entries(other)
    if last_id_of(key) == LAST or last_id_of(other) == LAST then
      entries_of_both(key, other)
    end
  end

  -- The same for a stream whose other one is on another server: whether an id is free is known there only.
  function check_alone(key)
    check_entries(key)
    if last_id_of(key) == LAST then
      error({err = 'ERR perhaps no id is free after ' .. LAST}, 0)
    end
  end

  -- Returns the members of two sets, each once.
  local function members_of_both(key, other)
    local found, members = {}, {}
    for _, name in ipairs({key, other}) do
      for _, member in ipairs(call('SMEMBERS', name)) do
        if not found[member] then
          found[member] = true
          members[#members + 1] = member
        end
      end
    end
    return members
  end

  local function set_of(key, members)
    for from = 1, #members, CHUNK do
      call('SADD', key, unpack(members, from, math.min(from + CHUNK - 1, #members)))
    end
  end

  local function stream_of(key, entries, last_id)
    for _, entry in ipairs(entries) do
      call('XADD', key, entry[1], unpack(entry[2]))
    end
    if comes_before(entries[#entries][1], last_id) then
      call('XSETID', key, last_id)
    end
  end

  -- Builds the union in the key's place, and then lets it replace the destination. The longer of two TTLs is kept; no
  -- TTL counts as the longest. If the server refuses a command, the key gets its value back.
  function unite(kind, key, destination)
    local values_of_both = kind == 'set' and members_of_both or entries_of_both
    local values = values_of_both(key, destination)
    local last_id = kind == 'stream' and last_id_of(key)
    if last_id and comes_before(last_id, last_id_of(destination)) then
      last_id = last_id_of(destination)
    end
    if #values == 0 then
      -- Both streams were emptied.
      local key_stays = outlives(key, destination)
      call('XSETID', key_stays and key or destination, last_id)
      return keep_one(key, destination, key_stays)
    end
    local copy, ttl, other_ttl = call('DUMP', key), call('PTTL', key), call('PTTL', destination)
    -- This changes nothing, but fails with another error if RESTORE is refused.
    local refused = try('RESTORE', key, 0, copy)
    if not find(refused.err or '', 'BUSYKEY', 1, true) then
      error({err = plain_error(refused.err or 'ERR the key is gone', 'RESTORE')}, 0)
    end
    local fine, err = pcall(function()
      call('DEL', key)
      if kind == 'set' then
        set_of(key, values)
      else
        stream_of(key, values, last_id)
      end
      if ttl >= 0 and other_ttl >= 0 then
        call('PEXPIRE', key, math.max(ttl, other_ttl, 1))
      end
      replace(key, destination)
    end)
    if not fine then
      try('DEL', key)
      call('RESTORE', key, ttl < 0 and 0 or math.max(ttl, 1), copy)
      error(err, 0)
    end
  end
end
