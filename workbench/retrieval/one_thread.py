"""Products of a matrix and one vector, on one thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from workbench.errors import require

_lock = threading.Lock()
_users = 0
# What each library computes with otherwise; by place in `_libraries`.
_before: list[int] = []


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS computes on one thread, whoever calls it.

    A search multiplies for about a millisecond. Split over threads that must all get a core before any is done, that takes
    a third less on a machine that does nothing else, and twenty times as long on one that is busy.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _before[:] = [library.num_threads for library in _libraries()]
            _set([1] * len(_before))
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_before)


def _set(counts: list[int]) -> None:
    for library, count in zip(_libraries(), counts, strict=True):
        # OpenBLAS listens to the thread that set it first alone, and the last search may end in another one.
        free = getattr(library, "clear_controlling_thread", None)
        if free is not None:
            free(force=True)
        library.set_num_threads(count)
        if free is not None:
            free(force=True)


@lru_cache(maxsize=1)
def _libraries() -> list[Any]:
    # Looks through the libraries that the process has loaded, which takes milliseconds: once.
    return list(require("threadpoolctl", extra="rag").ThreadpoolController().select(user_api="blas").lib_controllers)
