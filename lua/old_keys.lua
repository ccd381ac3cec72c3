-- old_keys.lua: which keys move, and where to: those of the old format into the town.
--
-- Gives: movers(town), all_named(town), move_of(prefix, key), rival_of(key)

-- The glob of the keys that move, and of few others: letter by letter what families begin with. What
-- SCAN itself leaves out costs a fifth of what a script looks at, and SCAN names most keys that a
-- migration has renamed once more.
local function movers(town)
  return 'tt:[abistu][acgnrt][bcegost][eiknop][:lntvx]*'
end

-- The glob of the keys that move and of all towns' keys.
local function all_named(town)
  return 'tt:*'
end

-- The family's number of an old key and its new name, AMBIGUOUS for a name that may be a town's own,
-- nil for the rest.
local function move_of(prefix, key)
  local family, id = family_of_old(key)
  if not family then
    if key == 'tt:backlog' then
      return BACKLOG, prefix .. 'backlog'
    end
    return nil
  elseif #key - id < LONGEST_TOWN_WIDE and TOWN_WIDE[sub(key, id)] then
    return AMBIGUOUS
  end
  return family, prefix .. sub(key, 4)
end

-- Another old key that has a right to the same new name and goes first, nil for none.
local function rival_of(key)
  return nil
end
