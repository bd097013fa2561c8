"""Signing in with a provider of OpenID Connect: a small one of our own, with real signatures, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from tests.ports import free_port
from workbench.access import Viewer
from workbench.apps.listing import find_apps
from workbench.apps.oidc import viewer_of
from workbench.apps.server import serve_apps
from workbench.errors import AccessDenied, WorkspaceError
from workbench.workspace import Layout, OidcSettings

ADA = {"email": "ada@example.org", "email_verified": True, "groups": ["llm-editors", "staff"], "tenants": ["acme"]}


@dataclass
class Provider:
    """What the provider says of who signs in, and what it saw."""

    claims: dict[str, Any] = field(default_factory=lambda: dict(ADA))
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    signing: RSAKey | None = None
    nonce: str | None = None
    asked: dict[str, str] = field(default_factory=dict)
    issuer: str = ""
    # The paths at which it answers a page in place of what it should.
    confused: tuple[str, ...] = ()

    def token(self, form: dict[str, list[str]]) -> dict[str, Any]:
        verifier = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        assert base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() == self.asked["code_challenge"]
        now = int(time.time())
        standard = {"iss": self.issuer, "aud": "workbench", "sub": "1", "iat": now, "exp": now + 60}
        claims = {**standard, "nonce": self.nonce or self.asked["nonce"], **self.claims}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signing or self.key)
        return {"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": token}


@pytest.fixture
def provider() -> Iterator[Provider]:
    told = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in told.confused:
                self.say_page()
            elif self.path == "/.well-known/openid-configuration":
                self.say(
                    {
                        "issuer": told.issuer,
                        "authorization_endpoint": f"{told.issuer}/authorize",
                        "token_endpoint": f"{told.issuer}/token",
                        "jwks_uri": f"{told.issuer}/jwks",
                        "id_token_signing_alg_values_supported": ["RS256"],
                    }
                )
            else:
                self.say({"keys": [told.key.as_dict(private=False)]})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if self.path in told.confused:
                self.say_page()
            else:
                self.say(told.token(form))

        def say_page(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>The provider is being mended.</html>")

        def say(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.issuer = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    server.server_close()


def _settings(issuer: str, **changes: Any) -> OidcSettings:
    told = {"issuer": issuer, "client_id": "workbench", "client_secret_env": "OIDC_SECRET", "tenants_claim": "tenants"}
    return OidcSettings.model_validate(
        {**told, "role_map": {"llm-editors": "editor", "llm-viewers": "viewer"}, **changes}
    )


def _app(layout: Layout, issuer: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OIDC_SECRET", "a secret")
    (layout.root / "workbench.toml").write_text(
        f"""name = "team"
[apps.oidc]
issuer = "{issuer}"
client_id = "workbench"
client_secret_env = "OIDC_SECRET"
tenants_claim = "tenants"
role_map = {{ llm-editors = "editor", llm-viewers = "viewer" }}
"""
    )
    layout = Layout.find(layout.root)
    return serve_apps(layout, find_apps(layout), local=False).app


@pytest.fixture
def client(layout: Layout, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(_app(layout, provider.issuer, monkeypatch), follow_redirects=False) as client:
        yield client


def _round_trip(client: TestClient, provider: Provider, **changed: str) -> Any:
    """To the provider and back, as a browser goes."""
    there = urlsplit(client.get("/oidc/start", params={"next": "/spend/"}).headers["location"])
    provider.asked = {name: values[0] for name, values in parse_qs(there.query).items()}
    assert there.path == "/authorize"
    assert provider.asked["redirect_uri"] == "http://testserver/oidc/callback"
    assert provider.asked["code_challenge_method"] == "S256"
    back = {"code": "c", "state": provider.asked["state"], **changed}
    return client.get(f"/oidc/callback?{urlencode(back)}")


def test_an_account_opens_the_apps_of_its_groups(client: TestClient, provider: Provider) -> None:
    assert "/oidc/start?next=" in client.get("/signin").text
    answer = _round_trip(client, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/spend/")
    assert client.get("/spend/").status_code == 200
    assert client.get("/who/").status_code == 200


def test_an_account_without_a_group_that_counts_stays_outside(client: TestClient, provider: Provider) -> None:
    provider.claims = {**ADA, "groups": ["staff"]}
    answer = _round_trip(client, provider)
    assert answer.status_code == 403
    assert "ada@example.org has no role here" in answer.text
    assert client.get("/who/").status_code == 303


def test_what_the_provider_did_not_say_is_not_believed(client: TestClient, provider: Provider) -> None:
    assert _round_trip(client, provider, state="another").status_code == 401
    provider.nonce = "of another sign-in"
    assert _round_trip(client, provider).status_code == 401
    provider.nonce = None
    provider.signing = RSAKey.generate_key(2048, {"kid": "1"})
    assert _round_trip(client, provider).status_code == 401
    provider.signing = None
    provider.claims = {**ADA, "aud": "another"}
    assert _round_trip(client, provider).status_code == 401
    provider.claims = {**ADA, "exp": int(time.time()) - 600}
    assert _round_trip(client, provider).status_code == 401
    assert client.get("/who/").status_code == 303


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
def test_a_provider_that_answers_a_page_is_no_error_of_ours(
    client: TestClient, provider: Provider, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    provider.confused = (path,)
    early = path.startswith("/.well-known")
    answer = client.get("/oidc/start") if early else _round_trip(client, provider)
    assert answer.status_code == 502
    assert "Sign in with a key" in answer.text
    assert f"{provider.issuer} does not answer" in capsys.readouterr().err
    assert client.get("/who/").status_code == 303


def test_a_provider_that_is_not_there_leaves_the_keys(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    with TestClient(_app(layout, gone, monkeypatch), follow_redirects=False) as client:
        for path in ("/oidc/start?next=/who/", "/oidc/callback?code=c&state=s"):
            answer = client.get(path)
            assert answer.status_code in (401, 502)
            assert "with a key" in answer.text
        assert client.get("/oidc/start").status_code == 502


def test_coming_back_without_having_left_is_refused(client: TestClient) -> None:
    for query in ("", "?code=c", "?state=s&code=c", "?error=access_denied&state=s"):
        answer = client.get(f"/oidc/callback{query}")
        assert answer.status_code == 401, query
        assert "The provider did not sign you in" in answer.text


def test_claims_become_a_person_with_roles_and_tenants() -> None:
    settings = _settings("https://login.example.org")
    assert viewer_of(ADA, settings) == Viewer("ada@example.org", frozenset({"editor"}), ("acme",))
    assert viewer_of({**ADA, "groups": "llm-viewers", "tenants": None}, settings).tenants == ()
    everything = settings.model_copy(update={"tenants_claim": None})
    assert viewer_of(ADA, everything).tenants is None
    for wrong in ({**ADA, "email": ""}, {**ADA, "email_verified": False}, {**ADA, "groups": None}):
        with pytest.raises(AccessDenied):
            viewer_of(wrong, settings)


def test_without_the_clients_secret_nothing_is_served(
    layout: Layout, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OIDC_SECRET", raising=False)
    apps = layout.settings.apps.model_copy(update={"oidc": _settings(provider.issuer)})
    layout = Layout(layout.root, layout.settings.model_copy(update={"apps": apps}))
    with pytest.raises(WorkspaceError, match="OIDC_SECRET is not set"):
        serve_apps(layout, find_apps(layout))
