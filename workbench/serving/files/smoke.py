"""Ask a running server the recorded rows of its artifact, and say whether the answers are the recorded ones.

Standard library only, so that it runs anywhere. Exit codes: 0 the same, 1 not the same or no server, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROWS = Path(__file__).parent / "smoke.jsonl"


def wait_until_ready(url: str, seconds: float) -> bool:
    """Whether the server says that it is ready, within so many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)


def ask(url: str, row: dict[str, Any]) -> tuple[Any, str | None]:
    """The value that the server answers with, or None and what went wrong."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("WORKBENCH_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    body = json.dumps({"inputs": row["inputs"], "seed_key": row["seed_key"]}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/answer", body, headers), timeout=300) as answer:
            return json.load(answer)["value"], None
    except urllib.error.HTTPError as error:
        return None, f"{error.code}: {error.read().decode(errors='replace')[:300]}"
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        return None, str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--at-least", type=int, help="rows that must give the recorded value; all by default")
    parser.add_argument("--wait", type=float, default=60, help="seconds that the server may take to get ready")
    parser.add_argument("--only-ready", action="store_true", help="ask nothing but whether it is ready")
    options = parser.parse_args()
    url = options.url.rstrip("/")
    if not wait_until_ready(url, 0 if options.only_ready else options.wait):
        print(f"{url} is not ready", file=sys.stderr)
        return 1
    if options.only_ready:
        return 0
    rows = [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]
    same = 0
    for row in rows:
        value, problem = ask(url, row)
        fits = problem is None and value == row["value"]
        same += fits
        if not fits:
            recorded = json.dumps(row["value"], ensure_ascii=False)
            print(f"{row['row_id']}: recorded {recorded}, now {problem or json.dumps(value, ensure_ascii=False)}")
    print(f"{same} of {len(rows)} recorded rows give the recorded outputs")
    wanted = len(rows) if options.at_least is None else options.at_least
    return 0 if rows and same >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
