"""Run the demo (`make demo`), or a shell in an old town's directory (`make try`)."""

from __future__ import annotations

import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # Until the demo installs its handlers, Ctrl-C ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from demo.journey import run

sys.exit(run(sys.argv[1:]))
