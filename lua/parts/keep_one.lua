-- parts/keep_one.lua: keeps one of a key and its destination, under the destination's name.
--
-- Needs  batch, <renames>
-- Gives  outlives(key, destination), keep_one(key, destination, key_stays)

-- Returns whether the key has a longer TTL than its destination. No TTL counts as the longest.
local function outlives(key, destination)
  local older, newer = call('PTTL', key), call('PTTL', destination)
  return newer >= 0 and (older < 0 or older > newer)
end

local function keep_one(key, destination, key_stays)
  if key_stays then
    replace(key, destination)
  else
    discard(key, destination)
  end
end
