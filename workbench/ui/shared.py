"""Charts that sessions share: built once for the same numbers, since building one costs more than drawing it."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Made = TypeVar("Made")

# Charts of each kind that are kept: some periods and filters, as different people choose them.
MOST = 64


def shared(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let a pure function of plain values be called once for equal ones, by all threads together.

    What it returns is shared, so nobody may change it. An error is not kept.
    """
    kept: OrderedDict[bytes, Future[Any]] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(make)
    def once(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        key = hashlib.sha256(repr((args, sorted(kwargs.items()))).encode()).digest()
        mine: Future[Any] = Future()
        with lock:
            found = kept.setdefault(key, mine)
            kept.move_to_end(key)
            while len(kept) > MOST:
                kept.popitem(last=False)
        if found is mine:
            try:
                mine.set_result(make(*args, **kwargs))
            except BaseException as error:
                with lock:
                    kept.pop(key, None)
                mine.set_exception(error)
                raise
        made: Made = found.result()
        return made

    return once
