"""One ASGI application of all apps: the sign-in, the guard, and marimo's notebooks behind it."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from workbench.access import SERVED, Viewer, local_user
from workbench.apps import pages
from workbench.apps.guard import RECHECK_S, Guard
from workbench.apps.listing import HOME, App
from workbench.apps.oidc import oidc_routes
from workbench.apps.opened import Opened
from workbench.apps.sessions import COOKIE, Sessions
from workbench.errors import require
from workbench.state.keys import find_key
from workbench.workspace import Layout, use

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

_FORM_BYTES = 8_192
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Served:
    """The application, and the token by which the user of this machine signs in without a key; None where nobody may."""

    app: ASGIApp
    token: str | None


def serve_apps(
    layout: Layout, apps: Sequence[App], *, local: bool = True, session_ttl_s: int = 120, recheck_s: float = RECHECK_S
) -> Served:
    """Put the apps of a workspace behind a sign-in.

    From here on this process takes nobody for its own user: whoever acts is who signed in.

    Args:
        local: let the user of this machine in by a token, as an admin; for servers that only this machine reaches.
        session_ttl_s: seconds for which the state of a page that was left is kept.

    Raises:
        MissingExtraError: marimo or starlette is not installed.
        WorkspaceError: the secret of the cookies can be read by others.
    """
    marimo = require("marimo", extra="apps")
    require("starlette", extra="apps")
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, RedirectResponse
    from starlette.routing import Mount, Route

    user = local_user()
    os.environ[SERVED] = "1"
    os.environ["WORKBENCH_WORKSPACE"] = str(layout.root)
    use(layout)
    sessions = Sessions(layout)
    settings = layout.settings.apps
    provider = settings.oidc
    token = secrets.token_urlsafe(24) if local else None
    builder = marimo.create_asgi_app(quiet=True, include_code=False, session_ttl=session_ttl_s)
    for app in apps:
        builder = builder.with_app(path=f"/{app.slug}", root=str(app.path.resolve()))
    # For longer than marimo does, so that no page is without an owner.
    opened = Opened(2 * session_ttl_s + 60)
    guarded = Guard(builder.build(), sessions, apps, opened, most=settings.max_sessions, recheck_s=recheck_s)
    front = next((app.slug for app in apps if app.slug == HOME), apps[0].slug)

    def signed_in(request: Request, cookie: str, next: str) -> Response:
        response = RedirectResponse(_local(next), 303)
        secure = request.url.scheme == "https"
        age = int(sessions.seconds)
        response.set_cookie(COOKIE, cookie, max_age=age, httponly=True, samesite="lax", secure=secure, path="/")
        return response

    async def ask(request: Request) -> Response:
        next = request.query_params.get("next", "/")
        given = request.query_params.get("token", "")
        if token is not None and given and hmac.compare_digest(given.encode(), token.encode()):
            return signed_in(request, sessions.of_viewer(Viewer(user, frozenset({"admin"}))), next)
        page = pages.sign_in(layout.settings.name, next=_local(next), provider=provider is not None, wrong=bool(given))
        return HTMLResponse(page, headers=_HEADERS)

    async def sign_in(request: Request) -> Response:
        form = parse_qs((await _body(request)).decode(errors="replace"))
        next, key = (form.get(name, [""])[0] for name in ("next", "key"))
        grant = find_key(layout.state_url, key)
        if grant is None:
            page = pages.sign_in(layout.settings.name, next=_local(next), provider=provider is not None, wrong=True)
            return HTMLResponse(page, 401, headers=_HEADERS)
        return signed_in(request, sessions.of_key(grant.id), next)

    async def sign_out(request: Request) -> Response:
        response = RedirectResponse("/signin", 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    async def healthy(request: Request) -> Response:
        return HTMLResponse("ok")

    async def home(request: Request) -> Response:
        return RedirectResponse(f"/{front}/", 303)

    routes: list[Any] = [
        Route("/", home),
        Route("/healthz", healthy),
        Route("/signin", ask, methods=["GET"]),
        Route("/signin", sign_in, methods=["POST"]),
        Route("/signout", sign_out, methods=["POST"]),
    ]
    if provider is not None:

        def known(request: Request, viewer: Viewer, next: str) -> Response:
            return signed_in(request, sessions.of_viewer(viewer), next)

        routes.append(oidc_routes(provider, sessions.secret, _local, known))
    return Served(Starlette(routes=[*routes, Mount("/", guarded)]), token)


async def _body(request: Request) -> bytes:
    """The first bytes of a form: what is longer than any key and path is none."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > _FORM_BYTES:
            return b""
    return bytes(read)


def _local(path: str) -> str:
    """A path of this server; `/` in place of anything that leads elsewhere."""
    fits = path.startswith("/") and not path.startswith(("//", "/\\")) and not any(ord(char) < 32 for char in path)
    return path if fits else "/"
