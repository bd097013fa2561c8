"""A process that compacts over and over: python -m tests.events.compactor FOLDER SECONDS"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from workbench.events.store import Events


def main(folder: str, seconds: str) -> None:
    events = Events(Path(folder))
    end = time.monotonic() + float(seconds)
    print("started", flush=True)
    turn = 0
    while time.monotonic() < end:
        turn += 1
        events.compact(few=1 if turn % 3 == 0 else 4, grace_s=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
