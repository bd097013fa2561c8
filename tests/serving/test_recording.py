"""What a server answers is a row: with its tenant, its feedback and its errors, and whatever the disk does, the answer comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.answering import Parrot
from workbench import api
from workbench.serving.app import make_app
from workbench.serving.recording import MOST, MOST_COMMENT, Recording
from workbench.serving.served import Served, asked_alias
from workbench.workspace import Layout

CALLS = "select * from calls where source = 'served' order by started_at"


@contextmanager
def serving(served: Served, folder: Path, *, alias: str | None = "prod", content: bool = True, **options: Any) -> Any:
    recording = Recording(served, folder, alias=alias, content=content)
    with TestClient(make_app(served, recording=recording, **options)) as client:
        yield client


@pytest.fixture
def client(served: Served, layout: Layout) -> Iterator[TestClient]:
    with serving(served, layout.events, timeout_s=10) as client:
        yield client


def ask(client: TestClient, text: str, **more: Any) -> Any:
    return client.post("/v1/answer", json={"inputs": {"text": text}, **more})


def calls(client: TestClient, layout: Layout) -> list[dict[str, Any]]:
    """Rows of served calls, once the server has written them."""
    client.get("/", headers={"Authorization": "Bearer s3cret"})
    return api.Workspace(layout).sql(CALLS).to_dicts()


def test_an_answer_is_a_row(client: TestClient, layout: Layout, served: Served) -> None:
    said = ask(client, "good morning", tenant="acme").json()
    [row] = calls(client, layout)
    known = {name: value for name, value in row.items() if value is not None}
    assert known.pop("started_at").date() == known.pop("day")
    assert known.pop("queue_s") >= 0
    assert known == {
        "trace_id": said["trace_id"],
        "tenant": "acme",
        "pipeline_digest": served.pipeline.digest,
        "prompt_digest": served.pipeline.prompt.digest,
        "model": "tiny",
        "model_digest": served.engine.info.digest,
        "input": '{"text":"good morning"}',
        "output": "good morning",
        "result": '"GOOD MORNING"',
        "finish_reason": "stop",
        "cached": False,
        "tokens_in": 3,
        "tokens_out": 2,
        "ttft_s": 0.0,
        "latency_s": 0.25,
        "cost_usd": 0.0,
        "source": "served",
        "artifact": "greet@1",
        "alias": "prod",
    }


def test_rows_of_runs_have_no_artifact_and_served_ones_lead_to_theirs(client: TestClient, layout: Layout) -> None:
    ask(client, "a")
    ask(client, "b")
    calls(client, layout)
    workspace = api.Workspace(layout)
    assert workspace.sql("select distinct artifact, alias from calls where source = 'run'").rows() == [(None, None)]
    asked = (
        "select a.name, a.version, a.run_id, count(*) as n from calls c "
        "join artifacts a on c.artifact = a.name || '@' || a.version where c.source = 'served' group by all"
    )
    assert workspace.sql(asked).rows() == [("greet", 1, "run-1", 2)]


def test_what_got_no_answer_is_a_row_with_its_kind_and_what_could_not_be_asked_is_none(
    client: TestClient, layout: Layout
) -> None:
    refused = [
        client.post("/v1/answer", content="hello"),
        client.post("/v1/answer", json={"inputs": {}}),
        client.post("/v1/answer", json={"inputs": {"text": "a"}, "model": "b"}),
        client.post("/v1/answer", content='{"inputs": {"text": NaN}}'),
        ask(client, "a", tenant=7),
        ask(client, "a", tenant="a" * (MOST + 1)),
    ]
    assert [answer.status_code for answer in refused] == [400, 422, 400, 400, 422, 422]
    assert [answer.json()["error"]["kind"] for answer in refused[-2:]] == ["tenant", "tenant"]
    found = [ask(client, "slow"), ask(client, "crash")]
    rows = calls(client, layout)
    assert [row["trace_id"] for row in rows] == [answer.json()["trace_id"] for answer in found]
    assert [row["error_kind"] for row in rows] == ["timeout", "engine"]
    assert [row["error"] for row in rows] == ["no answer in time", "RuntimeError: the model broke"]
    # What the model has spent on the second one nobody knows.
    assert [row["cost_usd"] for row in rows] == [0.0, None]


def test_a_question_that_is_given_up_and_one_that_is_turned_away_are_rows(
    served: Served, layout: Layout, parrot: Parrot
) -> None:
    parrot.go.clear()
    with serving(served, layout.events, timeout_s=1, waiting=1) as client, ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(ask, client, str(n)) for n in range(4)]
        found = sorted(answer.result(30).status_code for answer in answers)
        parrot.go.set()
        rows = calls(client, layout)
    assert found == [503, 503, 504, 504]
    assert sorted(row["error_kind"] for row in rows) == ["busy", "busy", "timeout", "timeout"]
    assert {row["artifact"] for row in rows} == {"greet@1"}


def test_feedback_is_joined_by_its_trace(client: TestClient, layout: Layout) -> None:
    traces = [ask(client, text, tenant="acme").json()["trace_id"] for text in ("good", "bad")]
    said = [
        {"trace_id": traces[0], "rating": 1, "who": "ann", "tenant": "acme"},
        {"trace_id": traces[1], "rating": -0.5, "comment": "not what I asked ☹"},
        # Whether anything has this trace is not looked up.
        {"trace_id": "0" * 32, "rating": 0},
    ]
    for body in said:
        answer = client.post("/v1/feedback", json=body)
        assert (answer.status_code, answer.json()) == (202, {"recorded": True})
    calls(client, layout)
    workspace = api.Workspace(layout)
    rows = workspace.sql(
        "select c.output, f.rating, f.comment, f.who, f.source from calls c join feedback f using (trace_id) order by 2"
    ).rows()
    assert rows == [("bad", -0.5, "not what I asked ☹", None, "served"), ("good", 1.0, None, "ann", "served")]
    assert workspace.sql("select count(*) from feedback").item() == 3


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"rating": 2}, 422, "rating: Input should be less than or equal to 1"),
        ({"rating": -1.01}, 422, "rating"),
        ({"rating": "good"}, 422, "rating"),
        ({"rating": True}, 422, "rating"),
        ({"rating": float("nan")}, 422, "rating"),
        ({"rating": None}, 422, "rating"),
        ({"trace_id": "5f2b"}, 422, "trace_id"),
        ({"trace_id": "0" * 32 + "\n"}, 422, "trace_id"),
        ({"trace_id": 5}, 422, "trace_id"),
        ({"comment": "a" * (MOST_COMMENT + 1)}, 422, "comment"),
        ({"who": ["ann"]}, 422, "who"),
        ({"tenant": "a" * (MOST + 1)}, 422, "tenant"),
        ({"api_key": "s3cret"}, 422, "api_key"),
    ],
)
def test_feedback_that_is_none_says_why(
    client: TestClient, layout: Layout, change: dict[str, Any], status: int, message: str
) -> None:
    body = json.dumps({"trace_id": "0" * 32, "rating": 1, **change})
    answer = client.post("/v1/feedback", content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert client.post("/v1/feedback", content=body[:-1]).status_code == 400
    assert client.post("/v1/feedback", content="[]").status_code == 422
    assert client.get("/v1/feedback").status_code == 405
    calls(client, layout)
    assert api.Workspace(layout).sql("select * from feedback").is_empty()


def test_each_tenant_sees_its_own(client: TestClient, layout: Layout) -> None:
    for tenant in ("acme", "globex", None):
        ask(client, str(tenant), tenant=tenant)
    assert len(calls(client, layout)) == 3
    found = api.Workspace(layout).events().sql("select output from calls", tenants=["acme"])
    assert found["output"].to_list() == ["acme"]


def test_without_content_nothing_of_questions_and_answers_is_on_disk(served: Served, layout: Layout) -> None:
    secret = "my card is 4242"
    with serving(served, layout.events, content=False) as client:
        assert ask(client, secret).json()["value"] == secret.upper()
        assert ask(client, f"crash {secret}").status_code == 500
        assert client.get("/").json()["recording"] == "on, without content"
        rows = calls(client, layout)
    assert [(row["tokens_in"], row["error_kind"]) for row in rows] == [(3, None), (None, "engine")]
    for row in rows:
        assert {row[name] for name in ("input", "output", "result", "error", "passages")} == {None}
    stored = [path.read_bytes() for path in (layout.events / "journals").rglob("*") if path.is_file()]
    assert stored
    assert not any(secret.encode() in data or secret.upper().encode() in data for data in stored)


def test_a_server_that_records_nothing_says_so(served: Served, layout: Layout) -> None:
    with TestClient(make_app(served)) as client:
        assert ask(client, "a", tenant="acme").status_code == 200
        assert client.get("/").json()["recording"] == "off"
        answer = client.post("/v1/feedback", json={"trace_id": "0" * 32, "rating": 1})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "recording")
    assert not (layout.events / "journals").exists()


def test_no_key_is_ever_recorded(served: Served, layout: Layout) -> None:
    with serving(served, layout.events, api_key="s3cret") as client:
        body = {"inputs": {"text": "hello"}}
        feedback = {"trace_id": "0" * 32, "rating": 1}
        for given, status in (("s3cret", 200), ("s3cre", 401)):
            headers = {"Authorization": f"Bearer {given}", "Cookie": "s3cret"}
            assert client.post("/v1/answer", json=body, headers=headers).status_code == status
            wanted = 202 if status == 200 else 401
            assert client.post("/v1/feedback", json=feedback, headers=headers).status_code == wanted
        assert len(calls(client, layout)) == 1
    for path in layout.events.rglob("*"):
        assert not path.is_file() or b"s3cre" not in path.read_bytes()


def test_a_disk_that_refuses_stops_no_answer_and_is_told_of_once(
    served: Served, layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    # A file where the folder should be, which stops root, too.
    journals = layout.events / "journals"
    journals.parent.mkdir(parents=True, exist_ok=True)
    journals.write_text("in the way")
    with serving(served, layout.events) as client:
        assert client.get("/").json()["recording"] == "on"
        assert ask(client, "first").status_code == 200
        said = client.get("/").json()["recording"]
        assert said.startswith("failed: events cannot be written to")
        for n in range(5):
            assert ask(client, str(n)).json()["value"] == str(n)
        assert client.get("/readyz").json()["status"] == "ready"
        answer = client.post("/v1/feedback", json={"trace_id": "0" * 32, "rating": 1})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "recording")
        assert client.get("/").json()["recording"].endswith("; 5 rows were not kept")
        assert capfd.readouterr().err.count("warning: what is asked is answered and not recorded") == 1
        journals.unlink()
        assert client.get("/").json()["recording"] == "on; 5 rows were not kept"
        ask(client, "last")
        # What was taken before the disk refused was kept in memory.
        assert [row["output"] for row in calls(client, layout)] == ["first", "last"]
        assert capfd.readouterr().err == "recording again; 5 rows were not kept\n"


def test_a_folder_that_cannot_be_is_told_of_at_the_start(
    served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with serving(served, tmp_path / "file" / "events") as client:
        assert "file is no folder" in capfd.readouterr().err
        assert client.get("/").json()["recording"].startswith("failed: ")
        (tmp_path / "file").unlink()
        assert client.get("/").json()["recording"] == "on"


def test_text_that_has_no_utf8_is_an_error_and_recorded_as_far_as_it_has(served: Served, layout: Layout) -> None:
    plain = replace(served, pipeline=served.pipeline.with_(postprocess=()))
    with serving(plain, layout.events) as client:
        answer = client.post("/v1/answer", content=r'{"inputs": {"text": "hi \ud83d"}, "tenant": "\ud83d"}')
        assert (answer.status_code, answer.json()["error"]["kind"]) == (502, "invalid_output")
        assert "cannot be sent as JSON" in answer.json()["error"]["message"]
        [row] = calls(client, layout)
    assert (row["input"], row["output"], row["tenant"]) == ('{"text":"hi ?"}', "hi ?", "?")
    assert (row["error_kind"], row["result"]) == ("invalid_output", None)


@pytest.mark.parametrize(
    ("reference", "alias"),
    [("greet", None), ("greet@3", None), ("greet@prod", "prod"), ("greet@sha256:abcdef", None), ("greet@v3", "v3")],
)
def test_the_alias_is_what_was_asked_for(reference: str, alias: str | None) -> None:
    assert asked_alias(reference) == alias
