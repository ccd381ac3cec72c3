"""Run the demo (`make demo`), a shell in an old town's directory (`make try`), or draw the demo."""

from __future__ import annotations

import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # Until the demo installs its handlers, Ctrl-C ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from demo.journey import run
from demo.picture import PICTURE, demo_output, drawn, shown_lines

if sys.argv[1:] == ["--picture"]:
    PICTURE.write_text(drawn(shown_lines(demo_output())), "utf-8")
else:
    sys.exit(run(sys.argv[1:]))
