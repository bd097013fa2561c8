"""The sign-in and the guard: who gets in, by HTTP and by websocket, and who is put out again."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.apps.conftest import NOTEBOOK
from workbench import access
from workbench.apps.listing import find_apps
from workbench.apps.opened import Opened
from workbench.apps.server import serve_apps
from workbench.apps.sessions import Sessions
from workbench.errors import WorkspaceError
from workbench.state import keys
from workbench.workspace import Layout

SOCKET = "/{app}/ws?session_id=s_{number:06}"
# What is in a lazy element is made by a call of a function, which marimo tells of no request.
LATER = NOTEBOOK.format(title="Later", role="viewer").replace(
    'mo.md(f"I am {who.name}, {sorted(who.roles)}, {who.tenants}")',
    'mo.vstack([mo.md(f"I am {who.name}"), mo.lazy(lambda: mo.md(f"later {access.current()}"))])',
)


@pytest.fixture
def client(layout: Layout) -> Iterator[TestClient]:
    with TestClient(serve_apps(layout, find_apps(layout), local=False).app, follow_redirects=False) as client:
        yield client


def grant(url: str, *told: Any, **options: Any) -> str:
    """A key that the user of this machine makes; the process that serves apps has none of its own."""
    with access.acting_as(access.Viewer("root", frozenset({"admin"}))):
        return keys.grant(url, *told, **options)


def _sign_in(client: TestClient, key: str, **form: str) -> Any:
    return client.post("/signin", data={"key": key, **form})


def _said(client: TestClient, app: str = "who", number: int = 1) -> str:
    """What a page's cell shows to whoever is signed in."""
    with client.websocket_connect(SOCKET.format(app=app, number=number)) as socket:
        while True:
            data = socket.receive_json()["data"]
            output = data.get("output") or {}
            if "I am" in str(output.get("data")):
                return str(re.sub("<[^>]*>", "", output["data"])).strip()
            assert data.get("op") != "completed-run", data


def _until(socket: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while True:
        data: dict[str, Any] = socket.receive_json()["data"]
        if wanted(data):
            return data


def _read_all(socket: Any) -> None:
    while True:
        socket.receive_json()


def test_nobody_gets_in_without_a_key(client: TestClient) -> None:
    for path in ("/who/", "/who/api/status", "/who/assets/x.js", "/spend/"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/signin?next={path}")
    asked = client.get("/who/?artifact=triage@1&tab=b").headers["location"]
    assert parse_qs(urlsplit(asked).query) == {"next": ["/who/?artifact=triage@1&tab=b"]}
    assert client.post("/who/api/kernel/set_ui_element_value", json={}).status_code == 401
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect(SOCKET.format(app="who", number=1)) as s,
    ):
        s.receive_json()
    assert closed.value.code == 4401
    assert client.get("/healthz").text == "ok"


def test_a_key_opens_the_apps_of_its_role(client: TestClient, layout: Layout) -> None:
    answer = _sign_in(client, grant(layout.state_url, "vera", ["viewer"], tenants=["acme"]), next="/who/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/who/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/who/").status_code == 200
    assert _said(client) == "I am vera, [&#39;viewer&#39;], (&#39;acme&#39;,)".replace("&#39;", "'")
    refused = client.get("/spend/")
    assert refused.status_code == 403
    assert "Spend takes the role editor." in refused.text
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect(SOCKET.format(app="spend", number=1)) as s,
    ):
        s.receive_json()
    assert closed.value.code == 4403
    assert client.get("/nothing/").status_code == 404


def test_each_person_is_who_they_are(client: TestClient, layout: Layout) -> None:
    for number, (name, role) in enumerate([("vera", "viewer"), ("ed", "editor"), ("ada", "admin")]):
        _sign_in(client, grant(layout.state_url, name, [role]))
        assert _said(client, number=number).startswith(f"I am {name}, ['{role}']")


def _call(client: TestClient, number: int, shown: str) -> str:
    """What comes of looking at the lazy element of a page, through the page's own websocket."""
    [element] = re.findall(r"object-id=.{0,2}([\w-]+)", shown) or [""]
    own = {"Marimo-Session-Id": f"s_{number:06}", "Origin": "http://testserver"}
    body = {"functionCallId": "f1", "namespace": element, "functionName": "load", "args": {}}
    answer = client.post("/later/api/kernel/function_call", json=body, headers=own)
    return str(answer.status_code)


def test_what_is_filled_later_is_filled_for_who_opened_the_page(layout: Layout) -> None:
    (layout.notebooks / "later.py").write_text(LATER)
    people = {"vera": ["acme"], "tom": ["globex"]}
    granted = {name: grant(layout.state_url, name, ["viewer"], tenants=tenants) for name, tenants in people.items()}
    with contextlib.ExitStack() as stack:
        app = serve_apps(layout, find_apps(layout), local=False).app
        client = stack.enter_context(TestClient(app, follow_redirects=False))
        pages = {}
        for number, (name, key) in enumerate(granted.items()):
            _sign_in(client, key)
            socket = stack.enter_context(client.websocket_connect(SOCKET.format(app="later", number=number)))
            shown = _until(socket, lambda data: "I am" in str(data.get("output")))
            _until(socket, lambda data: data.get("op") == "completed-run")
            pages[name] = number, socket, str(shown["output"])
        for name, (number, socket, text) in pages.items():
            # Neither a stranger nor a colleague fills the page of another.
            other = next(key for person, key in granted.items() if person != name)
            _sign_in(client, other)
            assert _call(client, number, text) == "403"
            _sign_in(client, granted[name])
            assert _call(client, number, text) == "200"
            found = _until(socket, lambda data: data.get("op") == "function-call-result")
            said = html.unescape(found["return_value"]["html"])
            assert f"later Viewer(name='{name}'" in said
            assert str(tuple(people[name])) in said


def test_a_page_is_open_to_nobody_else(client: TestClient, layout: Layout) -> None:
    _sign_in(client, grant(layout.state_url, "vera", ["viewer"]))
    with client.websocket_connect(SOCKET.format(app="who", number=1)) as socket:
        socket.receive_json()
        _sign_in(client, grant(layout.state_url, "tom", ["viewer"]))
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(SOCKET.format(app="who", number=1)) as other,
        ):
            other.receive_json()
        assert closed.value.code == 4403
        assert client.get("/who/sse?session_id=s_000001").status_code == 403
        assert client.get("/who/sse?session_id=s_000009").status_code == 404
        assert client.get("/who/").status_code == 200


def test_a_page_that_is_not_open_is_not_found(client: TestClient, layout: Layout) -> None:
    """Without the guard marimo writes a traceback to the log of the server."""
    _sign_in(client, grant(layout.state_url, "vera", ["viewer"]))
    body = {"download": False, "files": [], "includeCode": False}
    for header in ({"Marimo-Session-Id": "s_000099"}, {}):
        assert client.post("/who/api/export/html", json=body, headers=header).status_code == 404


def test_who_opened_a_page_is_remembered_for_as_long_as_marimo_may_keep_it() -> None:
    now = [0.0]
    opened = Opened(60, clock=lambda: now[0])
    vera, tom = access.Viewer("vera"), access.Viewer("tom")
    opened.open(("who", "s_1"), vera)
    opened.open(("who", "s_1"), vera)
    opened.close(("who", "s_1"))
    now[0] = 1000
    opened.open(("who", "s_2"), tom)
    assert opened.viewer(("who", "s_1")) == vera
    opened.close(("who", "s_1"))
    now[0] = 1059
    opened.open(("who", "s_3"), tom)
    assert opened.viewer(("who", "s_1")) == vera
    now[0] = 1061
    opened.open(("who", "s_4"), tom)
    assert opened.viewer(("who", "s_1")) is None
    assert opened.viewer(("spend", "s_4")) is None


def test_a_wrong_key_stays_outside(client: TestClient) -> None:
    for key in ("", "wbk_000000000000_" + "A" * 43, "x" * 20_000):
        answer = _sign_in(client, key)
        assert answer.status_code == 401
        assert "not in force" in answer.text
        assert "set-cookie" not in answer.headers
    client.cookies.set("workbench_session", "eyJrZXkiOiAiYSJ9.AAAAAA.BBBB")
    assert client.get("/who/").status_code == 303


def test_the_way_on_leads_nowhere_else(client: TestClient, layout: Layout) -> None:
    key = grant(layout.state_url, "vera", ["viewer"])
    for next in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nb: c"):
        assert _sign_in(client, key, next=next).headers["location"] == "/"
    page = client.get("/signin", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>" not in page


def test_a_revoked_key_ends_what_it_opened(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.apps.sessions._FRESH_S", 0.0)
    app = serve_apps(layout, find_apps(layout), local=False, recheck_s=0.05).app
    with TestClient(app, follow_redirects=False) as client:
        key = grant(layout.state_url, "vera", ["viewer"])
        _sign_in(client, key)
        with client.websocket_connect(SOCKET.format(app="who", number=1)) as socket:
            socket.receive_json()
            with access.acting_as(access.Viewer("root", frozenset({"admin"}))):
                keys.revoke(layout.state_url, "vera")
            with pytest.raises(WebSocketDisconnect) as closed:
                _read_all(socket)
        assert closed.value.code == 4401
        assert client.get("/who/").status_code == 303


def test_signing_out_forgets_who_it_was(client: TestClient, layout: Layout) -> None:
    _sign_in(client, grant(layout.state_url, "vera", ["viewer"]))
    assert client.get("/").headers["location"] in ("/who/", "/spend/")
    assert client.post("/signout").headers["location"] == "/signin"
    assert client.get("/who/").status_code == 303


def test_requests_of_other_sites_change_nothing(client: TestClient, layout: Layout) -> None:
    _sign_in(client, grant(layout.state_url, "vera", ["viewer"]))
    evil = {"Origin": "https://evil.example"}
    assert client.post("/who/api/kernel/set_ui_element_value", json={}, headers=evil).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect(SOCKET.format(app="who", number=1), headers=evil) as socket,
    ):
        socket.receive_json()
    assert closed.value.code == 4403
    own = {"Origin": "http://testserver", "Marimo-Session-Id": "s_000001"}
    body = {"objectIds": [], "values": [], "token": "t"}
    with client.websocket_connect(SOCKET.format(app="who", number=1)) as socket:
        socket.receive_json()
        assert client.post("/who/api/kernel/set_ui_element_value", json=body, headers=own).status_code == 200


def test_one_page_more_than_fits_is_turned_away(client: TestClient, layout: Layout) -> None:
    _sign_in(client, grant(layout.state_url, "vera", ["viewer"]))
    with (
        client.websocket_connect(SOCKET.format(app="who", number=1)) as first,
        client.websocket_connect(SOCKET.format(app="who", number=2)) as second,
    ):
        first.receive_json()
        second.receive_json()
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(SOCKET.format(app="who", number=3)) as third,
        ):
            third.receive_json()
        assert closed.value.code == 4503


def test_the_user_of_this_machine_signs_in_by_the_printed_address(layout: Layout) -> None:
    served = serve_apps(layout, find_apps(layout), local=True)
    with TestClient(served.app, follow_redirects=False) as client:
        assert client.get("/signin", params={"token": "wrong"}).status_code == 200
        assert client.get("/who/").status_code == 303
        assert client.get("/signin", params={"token": str(served.token)}).status_code == 303
        assert client.get("/who/").status_code == 200
        assert client.get("/spend/").status_code == 200


def test_others_do_not(layout: Layout) -> None:
    served = serve_apps(layout, find_apps(layout), local=False)
    assert served.token is None
    with TestClient(served.app, follow_redirects=False) as client:
        assert client.get("/signin", params={"token": "None"}).status_code == 200
        assert client.get("/who/").status_code == 303


def test_a_workspace_that_cannot_be_written_names_the_variable_for_the_secret(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".workbench").write_text("a file where the folder would be")
    with pytest.raises(WorkspaceError, match="Set WORKBENCH_APPS_SECRET"):
        Sessions(layout)
    monkeypatch.setenv("WORKBENCH_APPS_SECRET", "x" * 32)
    assert Sessions(layout).viewer(None) is None


def test_the_secret_of_the_cookies_is_the_owners_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_apps(layout, find_apps(layout))
    path = tmp_path / ".workbench" / "apps.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    serve_apps(layout, find_apps(layout))
    assert path.read_text() == before
    path.chmod(0o644)
    with pytest.raises(WorkspaceError, match="chmod 600"):
        serve_apps(layout, find_apps(layout))
    monkeypatch.setenv("WORKBENCH_APPS_SECRET", "short")
    with pytest.raises(WorkspaceError, match="too short"):
        serve_apps(layout, find_apps(layout))
