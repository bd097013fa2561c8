"""What ends with the tests: servers that they share. A worker of pytest-xdist leaves without running what `atexit` knows."""

from __future__ import annotations

from collections.abc import Callable

_stops: list[Callable[[], object]] = []


def at_end(stop: Callable[[], object]) -> None:
    """Let `stop` be called when the last test of this process has run."""
    _stops.append(stop)


def end() -> None:
    """Call what `at_end` was given, the last first."""
    while _stops:
        _stops.pop()()
