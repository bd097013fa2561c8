"""What every benchmark needs: measures, child processes, versions, the machine, and one form of report."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
# The environments of the peers, and what benchmarks write.
BENCH = ROOT / ".bench"


class Part(TypedDict, total=False):
    """One line of a report: a goal of its own, or (without `goal`) a measure that explains one."""

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    goal: str
    met: bool
    unit: str


class BenchmarkError(RuntimeError):
    """A benchmark cannot be measured here; the message says what to run."""


def parser(description: str | None) -> ArgumentParser:
    """A command line that has `--json`."""
    made = ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def seconds(fn: Callable[[], object]) -> float:
    """Wall-clock seconds that one call takes."""
    started = time.perf_counter()
    fn()
    return time.perf_counter() - started


def measures(fn: Callable[[], float], repeats: int) -> list[float]:
    """What `fn` returns (seconds, bytes), `repeats` times."""
    return [fn() for _ in range(repeats)]


def median_of(fn: Callable[[], float], repeats: int) -> float:
    """The median of what `fn` returns (seconds, bytes), over `repeats` calls."""
    return statistics.median(measures(fn, repeats))


def peer_python(name: str) -> Path:
    """The Python of the environment that `benchmarks/peers/requirements-NAME.txt` describes.

    Raises:
        BenchmarkError: it was not made yet.
    """
    python = BENCH / name / "bin" / "python"
    if not python.exists():
        raise BenchmarkError(f"the peer {name} is not installed in {python.parents[1]}: run make bench-setup")
    return python


def run_child(command: Sequence[str | Path], *, timeout: float = 1800) -> Any:
    """Run a command in the project's folder and return the JSON of the last line that it prints.

    Raises:
        BenchmarkError: it failed or printed no JSON; the message carries the end of what it wrote.
    """
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    lines = result.stdout.strip().splitlines()
    if result.returncode == 0 and lines:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(lines[-1])
    tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
    raise BenchmarkError(f"exit {result.returncode} of {' '.join(map(str, command))}\n{tail}")


@contextlib.contextmanager
def serving(command: Sequence[str | Path]) -> Iterator[str]:
    """A server of its own process, while the block runs. It prints its address as its first line."""
    with subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address:
                raise BenchmarkError(f"the server did not start: {' '.join(map(str, command))}")
            yield address
        finally:
            server.terminate()


def peak_memory() -> int:
    """The most bytes of memory that this process held at once."""
    from workbench import surroundings

    return surroundings.peak_memory()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version and those of the distributions that are installed here, by name."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def machine() -> dict[str, Any]:
    """CPU model, cores, memory in GiB, operating system, and the load: processes that ran or waited, a minute's mean."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": platform.platform(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(
    name: str,
    *,
    ours: float | None,
    peer: float | None,
    ratio: float | None,
    goal: str,
    met: bool,
    unit: str,
    parts: Sequence[Part] | None = None,
    json_output: bool,
    packages: Sequence[str],
    peer_versions: Mapping[str, str] | None = None,
    runs: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print a result: one JSON object, or a table for people.

    Args:
        ours, peer: medians, in `unit`.
        ratio: how many times better ours is than the peer: above 1 is better, whatever the unit.
        goal: in words; met: whether all of it is.
        parts: lines below the first one.
        packages: distributions whose versions matter; `peer_versions` are those of the peer's own environment.
        runs: the single measures behind the medians.
        notes: what was simplified or extrapolated.
    """
    result = {
        "name": name,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "goal": goal,
        "met": met,
        "unit": unit,
        "parts": list(parts or ()),
        "runs": {key: list(values) for key, values in (runs or {}).items()},
        "notes": list(notes),
        "versions": versions(packages) | dict(peer_versions or {}),
        "machine": machine(),
    }
    print(json.dumps(result) if json_output else as_text(result))


def as_text(result: Mapping[str, Any]) -> str:
    """A result as a table."""
    first = Part(name=result["name"], ours=result["ours"], peer=result["peer"], ratio=result["ratio"])
    first |= Part(goal=result["goal"], met=result["met"], unit=result["unit"])
    lines = [table([first, *result["parts"]])]
    lines += [f"- {note}" for note in result["notes"]]
    lines.append("versions: " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    lines.append("machine: " + ", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    return "\n".join(lines)


def table(parts: Sequence[Part]) -> str:
    """Lines of results under a heading, in columns."""
    rows = [("", "ours", "peer", "unit", "ratio", "met", "goal")]
    for part in parts:
        ratio = part.get("ratio")
        verdict = {True: "yes", False: "NO", None: ""}[part.get("met")]
        rows.append(
            (
                part["name"],
                number(part.get("ours")),
                number(part.get("peer")),
                part.get("unit", ""),
                "" if ratio is None else f"{number(ratio)}×",
                verdict,
                part.get("goal", ""),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, 3, 5, 6) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def number(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
