"""`python -m benchmarks [NAME …]`: every benchmark in a process of its own, one table, exit 1 where a goal is not met."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part

# The short ones first.
NAMES = (
    "import_time",
    "registry",
    "apps",
    "events",
    "results",
    "statistics",
    "embedding",
    "search",
    "sweep",
    "runner",
    "engine",
    "finetune",
)
TIMEOUT_S = 3600


def lines(result: dict[str, Any]) -> list[Part]:
    """A result's first line and those of its parts that have goals."""
    first = Part(name=result["name"], ours=result["ours"], peer=result["peer"], ratio=result["ratio"])
    first |= Part(goal=result["goal"], met=result["met"], unit=result["unit"])
    return [first, *(part | Part(name=f"  {part['name']}") for part in result.get("parts", ()) if part.get("goal"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit status."""
    parser = harness.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    results: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for name in options.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            result = harness.run_child([sys.executable, "-m", f"benchmarks.{name}", "--json"], timeout=TIMEOUT_S)
        except harness.BenchmarkError as error:
            failures[name] = str(error)
        else:
            results.append(result)
            if not options.json:
                # Long runs are read while they go on.
                print(harness.as_text(result) + "\n", flush=True)
    if options.json:
        print(json.dumps(results))
    elif results:
        print(harness.table([line for result in results for line in lines(result)]))
    for name, message in failures.items():
        print(f"{name} was not measured: {message}", file=sys.stderr)
    return int(bool(failures) or not all(result["met"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
