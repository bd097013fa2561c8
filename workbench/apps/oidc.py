"""Signing in with a provider of OpenID Connect, by Authlib: authorization code flow with PKCE and nonce."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.access import Viewer
from workbench.apps import pages
from workbench.errors import AccessDenied, WorkspaceError, require
from workbench.workspace import OidcSettings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount

SignedIn = Callable[["Request", Viewer, str], "Response"]
_NEXT = "next"


def viewer_of(claims: Mapping[str, Any], settings: OidcSettings) -> Viewer:
    """The person that a provider's claims tell of.

    Raises:
        AccessDenied: the claims have no name, an address that is not verified, or no group that has a role here.
    """
    name = str(claims.get(settings.name_claim) or "")
    if not name or (settings.name_claim == "email" and claims.get("email_verified") is False):
        raise AccessDenied(f"your account tells no {settings.name_claim}", hint="Ask whoever runs the provider.")
    roles = {
        settings.role_map[group] for group in _list(claims.get(settings.roles_claim)) if group in settings.role_map
    }
    if not roles:
        raise AccessDenied(f"{name} has no role here", hint="Ask for a group that [apps.oidc] role_map names.")
    tenants = None if settings.tenants_claim is None else tuple(_list(claims.get(settings.tenants_claim)))
    return Viewer(name, frozenset(roles), tenants)


def oidc_routes(settings: OidcSettings, secret: str, local: Callable[[str], str], signed_in: SignedIn) -> Mount:
    """The pages `/oidc/start`, which leads to the provider, and `/oidc/callback`, to which it leads back.

    Args:
        secret: signs the cookie that lasts from one to the other.
        local: what makes a path of this server out of any text.
        signed_in: the response for somebody who is known now.

    Raises:
        WorkspaceError: the client's secret is not set.
        MissingExtraError: Authlib is not installed.
    """
    require("authlib", extra="apps")
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.starlette_client import OAuth
    from joserfc.errors import JoseError
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.responses import HTMLResponse
    from starlette.routing import Mount, Route

    client_secret = os.environ.get(settings.client_secret_env)
    if not client_secret:
        raise WorkspaceError(
            f"{settings.client_secret_env} is not set", hint="[apps.oidc] names it as the client's secret."
        )
    provider = OAuth().register(
        "provider",
        client_id=settings.client_id,
        client_secret=client_secret,
        server_metadata_url=f"{settings.issuer}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256"},
    )

    # Authlib lets through whatever its HTTP client and its parsing raise where a provider is not there, or answers
    # something else than OpenID Connect, such as a page of HTML.
    def unreachable(error: Exception) -> Response:
        print(f"{settings.issuer} does not answer as a provider does: {error!r}", file=sys.stderr, flush=True)
        said = "The provider of accounts does not answer as it should, so nobody can sign in with it now."
        return HTMLResponse(pages.refused(said, None, instead="Sign in with a key"), 502)

    async def start(request: Request) -> Response:
        request.session[_NEXT] = local(request.query_params.get("next", "/"))
        try:
            response: Response = await provider.authorize_redirect(request, request.url_for("oidc-callback"))
        except Exception as error:
            return unreachable(error)
        return response

    async def callback(request: Request) -> Response:
        try:
            token = await provider.authorize_access_token(request)
            viewer = viewer_of(token.get("userinfo") or {}, settings)
        except (AuthlibBaseError, JoseError) as error:
            told = error.description or error.error
            said = f"The provider did not sign you in: {told}"
            return HTMLResponse(pages.refused(said, None, instead="Sign in again, or with a key"), 401)
        except AccessDenied as error:
            return HTMLResponse(pages.refused(str(error), None, instead="Sign in with a key"), 403)
        except Exception as error:
            return unreachable(error)
        return signed_in(request, viewer, str(request.session.pop(_NEXT, "/")))

    return Mount(
        "/oidc",
        routes=[Route("/start", start), Route("/callback", callback, name="oidc-callback")],
        middleware=[Middleware(SessionMiddleware, secret_key=secret, session_cookie="workbench_oidc", max_age=600)],
    )


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []
