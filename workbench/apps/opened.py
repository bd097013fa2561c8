"""Who opened which page: what a page shows is its opener's, so nobody else is let into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from workbench.access import Viewer

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

Page = tuple[str, str]


class Opened:
    """The pages that are open, by app and marimo's session id, and those that marimo may still keep the state of.

    Args:
        kept_s: seconds for which a page that was left is remembered; at least as long as marimo keeps its state.
        clock: seconds that never go back.
    """

    def __init__(self, kept_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.kept_s, self._clock = kept_s, clock
        self._viewers: dict[Page, Viewer] = {}
        self._sockets: dict[Page, int] = {}
        self._left: dict[Page, float] = {}

    def open(self, page: Page, viewer: Viewer) -> None:
        """A websocket of the page is opened; the first one says whose it is."""
        for old in [old for old, at in self._left.items() if self._clock() - at > self.kept_s]:
            del self._left[old], self._viewers[old]
        self._viewers.setdefault(page, viewer)
        self._sockets[page] = self._sockets.get(page, 0) + 1
        self._left.pop(page, None)

    def close(self, page: Page) -> None:
        """A websocket of the page is closed."""
        self._sockets[page] -= 1
        if not self._sockets[page]:
            del self._sockets[page]
            self._left[page] = self._clock()

    def viewer(self, page: Page) -> Viewer | None:
        """Who opened a page; None where it is not open."""
        return self._viewers.get(page)


def pages_of(connection: HTTPConnection, slug: str) -> Iterator[Page]:
    """The pages of an app that a request names, as marimo's frontend does: in its address or in a header."""
    for name in (connection.query_params.get("session_id"), connection.headers.get("marimo-session-id")):
        if name:
            yield slug, name
