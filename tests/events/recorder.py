"""A process that records calls, and says which are durable: python -m tests.events.recorder FOLDER NAME ROWS [PAUSE]"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.events.rows import a_call
from workbench.events import log as log_module
from workbench.events.store import Events

# Rows between two flushes.
PORTION = 25


def main(folder: str, name: str, rows: str, pause: str = "0") -> None:
    print("started", flush=True)
    # Journals are small here, so that they often end and go, and the log also compacts by itself.
    log_module.ROTATE_BYTES = 30_000
    with Events(Path(folder)).log(compact_bytes=200_000) as log:
        for start in range(0, int(rows), PORTION):
            for number in range(start, start + PORTION):
                day = f"2026-03-{1 + number % 3:02d}T10:00:00"
                log.record("calls", a_call(number, trace_id=f"{name}-{number}", started_at=day))
            log.flush()
            print(start + PORTION, flush=True)
            time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
