-- renames/rename.lua: gives a key another name, on a server that is not in cluster mode.
--
-- Needs  batch
-- Gives  rename(key, destination), replace(key, other), discard(key, destination), must_wait(budget)

-- Renames a key unless the destination exists. Returns 1, 0 if the destination exists, or an error of
-- redis.pcall.
local function rename(key, destination)
  return redis.pcall('RENAMENX', key, destination)
end

-- Renames a key and overwrites the key that has the other name. Raises a plain error.
local function replace(key, other)
  call('RENAME', key, other)
end

-- Removes a key whose value is also at the destination. Does not need the permission for DEL. RENAMENX is
-- permitted for these keys: it has already replied that the destination exists. Raises a plain error.
local function discard(key, destination)
  call('RENAME', destination, key)
  call('RENAMENX', key, destination)
end

-- Returns whether the next key must wait for another call, because this one has used its time.
local function must_wait(budget)
  return false
end
