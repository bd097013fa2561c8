"""The guard before the apps: nobody passes who is not signed in, or has not the role, by HTTP or by websocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from workbench.access import Viewer
from workbench.apps import pages
from workbench.apps.listing import App
from workbench.apps.opened import Opened, pages_of
from workbench.apps.sessions import COOKIE, Sessions

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Scope, Send

# Seconds between looks at whether the person at an open websocket still has a key.
RECHECK_S = 15.0
# Close codes of websockets, of the range that is the application's own.
UNKNOWN, FORBIDDEN, FULL = 4401, 4403, 4503
_READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware, which covers websockets as Starlette's own does not. `scope["user"]` is who passed, as JSON.

    A request that changes something, and every websocket, must come from a page of this very server. A page is open to
    whoever opened it, and to nobody else.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        apps: Sequence[App],
        opened: Opened,
        *,
        most: int,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.apps = {app.slug: app for app in apps}
        self.opened = opened
        self.most = most
        self.recheck_s = recheck_s
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        viewer = self.sessions.viewer(connection.cookies.get(COOKIE))
        app = self.apps.get(scope["path"].strip("/").partition("/")[0])
        if viewer is None:
            await self._refuse(scope, receive, send, 401, UNKNOWN, None, app)
        elif not _same_origin(connection):
            await self._refuse(
                scope, receive, send, 403, FORBIDDEN, viewer, app, "The request comes from another site."
            )
        elif app is None:
            await self._refuse(scope, receive, send, 404, FORBIDDEN, viewer, app, "There is no such app.")
        elif not viewer.has(app.role):
            said = f"{app.title} takes the role {app.role}."
            await self._refuse(scope, receive, send, 403, FORBIDDEN, viewer, app, said)
        elif (wrong := self._not_of(connection, viewer, app)) is not None:
            await self._refuse(scope, receive, send, wrong, FORBIDDEN, viewer, app, "This page is not open to you.")
        elif scope["type"] == "websocket":
            await self._websocket({**scope, "user": viewer.to_json()}, receive, send, connection, viewer, app)
        else:
            await self.app({**scope, "user": viewer.to_json()}, receive, send)

    def _not_of(self, connection: HTTPConnection, viewer: Viewer, app: App) -> int | None:
        """The status that keeps a request out of a page that somebody else opened, or that nobody has open."""
        pages = list(pages_of(connection, app.slug))
        if any(self.opened.viewer(page) not in (viewer, None) for page in pages):
            return 403
        # Marimo's other way to open a page, which would be counted and looked at again by nobody.
        if connection.scope["path"].rstrip("/").endswith("/sse"):
            return 404
        changes = connection.scope["type"] == "http" and connection.scope["method"] not in _READS
        return 404 if changes and not any(self.opened.viewer(page) for page in pages) else None

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, connection: HTTPConnection, viewer: Viewer, app: App
    ) -> None:
        if self.open >= self.most:
            await _close(receive, send, FULL)
            return
        self.open += 1
        pages = list(pages_of(connection, app.slug))
        for page in pages:
            self.opened.open(page, viewer)
        cookie = connection.cookies.get(COOKIE)
        serving = asyncio.ensure_future(self.app(scope, receive, send))
        try:
            while True:
                done, _ = await asyncio.wait({serving}, timeout=self.recheck_s)
                if done:
                    serving.result()
                    return
                if self.sessions.viewer(cookie) is None:
                    with contextlib.suppress(RuntimeError):  # closed meanwhile
                        await send({"type": "websocket.close", "code": UNKNOWN, "reason": "signed out"})
                    return
        finally:
            self.open -= 1
            for page in pages:
                self.opened.close(page)
            if not serving.done():
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        status: int,
        code: int,
        viewer: Viewer | None,
        app: App | None,
        said: str = "",
    ) -> None:
        if scope["type"] == "websocket":
            await _close(receive, send, code)
            return
        from starlette.responses import HTMLResponse, RedirectResponse, Response

        response: Response
        if viewer is None and scope["method"] in ("GET", "HEAD"):
            asked = "?" + scope["query_string"].decode("latin-1") if scope.get("query_string") else ""
            response = RedirectResponse(f"/signin?next={quote(scope['path'] + asked)}", 303)
        else:
            response = HTMLResponse(pages.refused(said or "Sign in first.", viewer), status)
        await response(scope, receive, send)


async def _close(receive: Receive, send: Send, code: int) -> None:
    await receive()
    # Accepted first, since a browser is not told the code of one that never was.
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code})


def _same_origin(connection: HTTPConnection) -> bool:
    if connection.scope["type"] == "http" and connection.scope["method"] in _READS:
        return True
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")
