"""What the experiments work with: contestants, and what it costs to let them migrate.

`measure` lets a contestant migrate, `measure_parts` does parts of the work without one, and `run`
runs any command. `running` starts a server, `delayed` puts it at a distance, `asking` is another
client of it. `present` says which contestants are here.
"""

from bench.machinery.contestants import Contestant, ours, present
from bench.machinery.measure import SLOW_MS, Run, measure, running
from bench.machinery.parts import BARE_SCAN, PARTS, measure_parts
from bench.machinery.process import asking, delayed, round_trip_ms, run

__all__ = ["BARE_SCAN", "PARTS", "SLOW_MS", "Contestant", "Run", "asking", "delayed", "measure"]
__all__ += ["measure_parts", "ours", "present", "round_trip_ms", "run", "running"]
