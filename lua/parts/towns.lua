-- parts/towns.lua: collects the names of towns, found in keys of the new format.
--
-- Needs  batch, keyspace, owner
-- Gives  towns, town_of(key), is_unknown(prefix, key), note_town(prefix, key, is_own)

-- The towns found so far, each once.
local towns = {}

local town_of, is_unknown, note_town
do
  -- What follows the town in a key has one to three parts.
  local READINGS = {'^tt:(.+):[^:]+$', '^tt:(.+):[^:]+:[^:]+$', '^tt:(.+):[^:]+:[^:]+:[^:]+$'}

  -- Returns the town of a key whose name no Tinytown uses: broadcast, and unknown names after a word of SINCE_0_7.
  local function town_of_odd(key)
    local town, part = match(key, '^tt:(.+):(%l+)$')
    if part == 'broadcast' then
      return town
    end
    town, part = match(key, '^tt:(.-):(%l+):')
    if town and town ~= '' and SINCE_0_7[part] then
      return town
    end
    return nil
  end

  -- Returns the town of a key of the new format, nil for any other key.
  function town_of(key)
    for _, reading in ipairs(READINGS) do
      local town = match(key, reading)
      local family = town and family_of(prefix_of(town), key)
      if family and family ~= AMBIGUOUS then
        return town
      end
    end
    return town_of_odd(key)
  end

  -- Returns whether a migration has made the key: kept_cursor.lua's key for a cursor, and the hidden names and marks of
  -- clusters.
  local function is_ours(key)
    return find(key, ':flight:%x+:0x%x+$') or find(key, '^tt:{.*}:mov[ie]%l+:%d+%-%x+%-%d+:')
  end

  -- Returns whether a key begins like those of the town with this prefix, and its name has no known form, of this town
  -- or another. A future Tinytown may have made it.
  function is_unknown(prefix, key)
    for _, reading in ipairs(READINGS) do
      local town = match(key, reading)
      if town and form_of(prefix_of(town), key) then
        return false
      end
    end
    local town = town_of_odd(key)
    return (not town or prefix_of(town) == prefix) and not family_at(key, #'tt:' + 1) and not is_ours(key)
  end

  local seen = {}

  -- Returns whether the town of a key is surely known, or whether it surely has none. colon: the position of the first
  -- colon after `tt:`.
  local function is_settled(key, colon)
    -- The positions of the last two colons.
    local before, last = nil, colon
    repeat
      local following = find(key, ':', last + 1, true)
      if following then
        before, last = last, following
      end
    until not following
    -- The last part can be one of TOWN_WIDE: then what precedes it is another town.
    local is_long = #key - last > LONGEST_TOWN_WIDE
    if not before then
      return is_long
    elseif is_long and seen[sub(key, #'tt:' + 1, before - 1)] then
      return true
    end
    return (is_long or not TOWN_WIDE[sub(key, last + 1)]) and not WITH_ID[sub(key, before + 1, last - 1)]
      and not find(key, ':mission:', 1, true) and not find(key, ':events:', 1, true)
      and not find(key, ':docket:', 1, true)
  end

  -- Whether it is known that the run's town has keys.
  local has_own = false

  -- Adds the town of a key to towns. prefix: of the run's town, which has most keys. is_own: whether the key is surely
  -- one of them; else that is found out.
  function note_town(prefix, key, is_own)
    if is_own and has_own then
      return
    end
    has_own = has_own or is_own
    local colon = find(key, ':', #'tt:' + 1, true)
    if not colon or is_settled(key, colon) then
      return
    end
    local town = not is_ours(key) and town_of(key)
    if town and not seen[town] then
      seen[town] = true
      towns[#towns + 1] = town
    end
  end
end
