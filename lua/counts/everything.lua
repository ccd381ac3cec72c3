-- counts/everything.lua: counts keys: those to move, the town's records by their types, and what has no old form.
--
-- Needs  batch, keyspace, owner, <moves>
-- Gives  families, counted, count_key(prefix, key, family), count_coming(record, key)

-- The keys to move in each of FAMILIES.
local families = zeros(FAMILIES)

-- Agents and tasks of the town that are strings: 1 and 2. Those that are strings in old keys whose destination is
-- free: 3 and 4. Those that are hashes: 5 and 6. Records of another type: 7. Records for which the user may not run
-- TYPE: 8. Keys of the town that do not exist in the old format: 9.
local counted = {0, 0, 0, 0, 0, 0, 0, 0, 0}

local count_key, count_coming
do
  local STRINGS, COMING, HASHES, OTHERS, UNTYPED, NEW_ONLY = 0, 2, 4, 7, 8, 9
  local PLACE = {agent = 1, task = 2}

  local function add_one(place)
    counted[place] = counted[place] + 1
  end

  -- Returns a key's type. Returns nil and counts the key as untyped if the user may not run TYPE, which a migration
  -- that only renames keys does not need.
  local function type_or_nil(key)
    local kind = try('TYPE', key).ok
    if not kind then
      add_one(UNTYPED)
    end
    return kind
  end

  -- Counts a key. family: of a key to move, AMBIGUOUS, or nil. Returns the type of a record of the town.
  function count_key(prefix, key, family)
    local record = own_record_of(prefix, key)
    local kind = record and type_or_nil(key)
    if kind == 'string' or kind == 'hash' then
      add_one((kind == 'string' and STRINGS or HASHES) + PLACE[record])
    elseif kind and kind ~= 'none' then
      add_one(OTHERS)
    end
    if families[family] then
      families[family] = families[family] + 1
    elseif not family and has_no_old_form(prefix, key) then
      add_one(NEW_ONLY)
    end
    return kind
  end

  -- Counts a record in an old key whose destination is free. Returns its type.
  function count_coming(record, key)
    local kind = type_or_nil(key)
    if kind == 'string' then
      add_one(COMING + PLACE[record])
    end
    return kind
  end
end
