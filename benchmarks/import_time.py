"""Seconds that `import workbench` adds to the start of Python, in fresh processes; against `import pydantic`."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import harness
from benchmarks.harness import Part

GOAL_S = 0.3
# What a notebook uses first; reported to show what the lazy names cost when they come.
NOTEBOOK = "import workbench as wb; wb.open, wb.Experiment, wb.scorers, wb.Prompt, wb.Pipeline"
PROGRAMS = {"bare": "pass", "ours": "import workbench", "peer": "import pydantic", "notebook": NOTEBOOK}


def start(program: str) -> float:
    """Seconds of a fresh Python that runs `program`."""
    command = [sys.executable, "-c", program]
    return harness.seconds(lambda: subprocess.run(command, cwd=harness.ROOT, check=True))


def costliest(program: str, most: int = 5) -> list[tuple[str, float]]:
    """The modules whose own code took longest to import, with seconds, without what a bare Python imports too."""
    bare = dict(_imports("pass"))
    found = [(name, took) for name, took in _imports(program) if name not in bare]
    return sorted(found, key=lambda item: -item[1])[:most]


def _imports(program: str) -> list[tuple[str, float]]:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Lines are: import time: SELF_US | CUMULATIVE_US | NAME
    fields = [line.removeprefix("import time:").split("|") for line in result.stderr.splitlines()]
    return [
        (name.strip(), int(own) / 1e6)
        for own, _, name in (row for row in fields if len(row) == 3)
        if own.strip().isdigit()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    for program in PROGRAMS.values():
        start(program)  # Files come from the page cache, and byte code is written, from here on.
    runs: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(options.repeats):
        for name, program in PROGRAMS.items():
            runs[name].append(start(program))
    middle = {name: statistics.median(values) for name, values in runs.items()}
    ours, peer = middle["ours"] - middle["bare"], middle["peer"] - middle["bare"]
    parts = [
        Part(name="bare interpreter, start", ours=middle["bare"], peer=middle["bare"], unit="s"),
        Part(name="with the import, start", ours=middle["ours"], peer=middle["peer"], unit="s"),
        Part(name="what a notebook uses first", ours=middle["notebook"] - middle["bare"], peer=None, unit="s"),
        *(Part(name=f"import {name}", ours=took, unit="s") for name, took in costliest("import workbench")),
    ]
    harness.report(
        "import_time",
        ours=ours,
        peer=peer,
        # A lazy package can be lost in the noise of process starts.
        ratio=peer / ours if ours > 0 else None,
        goal=f"at most {GOAL_S} s",
        met=ours <= GOAL_S,
        unit="s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "pydantic"],
        runs=runs,
        notes=[
            f"medians of {options.repeats} fresh processes, the bare interpreter's start taken off; peer: import pydantic"
        ],
    )


if __name__ == "__main__":
    main()
