"""The HTTP face of an artifact: answers, errors that say what to do, keys, and probes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from tests.serving.answering import Parrot
from workbench.errors import UsageError
from workbench.serving.app import make_app
from workbench.serving.served import Served
from workbench.serving.server import api_key


@pytest.fixture
def client(served: Served) -> Iterator[TestClient]:
    with TestClient(make_app(served, timeout_s=10, max_body=10_000)) as client:
        yield client


def test_a_question_is_answered_by_the_whole_pipeline(client: TestClient) -> None:
    answer = client.post("/v1/answer", json={"inputs": {"text": "good morning"}})
    assert answer.status_code == 200
    said = answer.json()
    assert len(said.pop("trace_id")) == 32
    assert said == {
        "value": "GOOD MORNING",
        "finish_reason": "stop",
        "usage": {"tokens_in": 3, "tokens_out": 2, "cost_usd": 0.0},
        "latency_s": 0.25,
        "artifact": "greet@1",
    }


def test_it_says_what_it_is(client: TestClient, served: Served) -> None:
    about = client.get("/").json()
    assert about["artifact"] == "greet@1"
    assert about["digest"] == served.artifact.digest
    assert about["inputs"] == ["text"]
    assert about["decision"].startswith("few is better than base")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"inputs": {}}', 422, "lack text"),
        ('{"inputs": {"text": "a", "colour": "red"}}', 422, "no variable colour; it has text"),
        ('{"text": "a"}', 400, 'send {"inputs"'),
        ('{"inputs": {"text": "a"}, "model": "b"}', 400, "nothing beside it"),
        ("[1]", 400, 'send {"inputs"'),
        ("hello", 400, "no JSON"),
        ("[" * 9_000, 400, "no JSON"),
        ('{"inputs": {"text": "slow"}}', 504, "no answer in time"),
        ('{"inputs": {"text": "crash"}}', 500, "the model broke"),
        ('{"inputs": {"text": "' + "a" * 10_000 + '"}}', 413, "larger than 10,000 bytes"),
    ],
)
def test_what_cannot_be_answered_says_why(client: TestClient, body: str, status: int, message: str) -> None:
    answer = client.post("/v1/answer", content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert client.post("/v1/answer", json={"inputs": {"text": "still here"}}).status_code == 200


def test_unknown_addresses_and_methods_are_json_too(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/answer").status_code == 405


def test_a_key_is_asked_for_everywhere_but_by_probes(served: Served) -> None:
    with TestClient(make_app(served, api_key="s3cret")) as client:
        ask = {"json": {"inputs": {"text": "a"}}}
        assert client.post("/v1/answer", **ask).status_code == 401  # type: ignore[arg-type]
        for wrong in ("Bearer s3cre", "Bearer ", "s3cret2", "Bearer schlüssel"):
            headers = {b"Authorization": wrong.encode()}
            assert client.post("/v1/answer", headers=headers, json=ask["json"]).status_code == 401
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/v1/answer", headers=right, json=ask["json"]).status_code == 200
        assert client.get("/").status_code == 401
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready", "artifact": "greet@1"}


def test_it_does_not_listen_to_other_machines_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_API_KEY", raising=False)
    assert api_key("127.0.0.1", open_to_all=False) is None
    assert api_key("::1", open_to_all=False) is None
    assert api_key("localhost", open_to_all=False) is None
    assert api_key("0.0.0.0", open_to_all=True) is None
    for host in ("0.0.0.0", "10.0.0.7", "example.org"):
        with pytest.raises(UsageError, match="WORKBENCH_API_KEY is not set"):
            api_key(host, open_to_all=False)
    monkeypatch.setenv("WORKBENCH_API_KEY", "s3cret")
    assert api_key("0.0.0.0", open_to_all=False) == "s3cret"
    assert api_key("127.0.0.1", open_to_all=False) == "s3cret"


def test_questions_of_several_clients_share_batches(served: Served, parrot: Parrot) -> None:
    with TestClient(make_app(served)) as client, ThreadPoolExecutor(9) as threads:
        parrot.go.clear()

        def ask(n: int) -> str:
            return str(client.post("/v1/answer", json={"inputs": {"text": f"q{n}"}}).json()["value"])

        answers = [threads.submit(ask, n) for n in range(9)]
        parrot.asked.wait(30)
        parrot.go.set()
        assert [answer.result(30) for answer in answers] == [f"Q{n}" for n in range(9)]
    assert sum(parrot.batches) == 9


def test_a_question_that_takes_too_long_is_given_up(served: Served, parrot: Parrot) -> None:
    parrot.go.clear()
    with TestClient(make_app(served, timeout_s=0.1)) as client:
        answer = client.post("/v1/answer", json={"inputs": {"text": "a"}})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (504, "timeout")
        parrot.go.set()
        assert client.post("/v1/answer", json={"inputs": {"text": "b"}}).json()["value"] == "B"


def test_where_too_many_wait_one_more_is_told_to_come_again(served: Served, parrot: Parrot) -> None:
    parrot.go.clear()
    with TestClient(make_app(served, waiting=1)) as client, ThreadPoolExecutor(8) as threads:

        def ask(n: int) -> tuple[int, str | None]:
            answer = client.post("/v1/answer", json={"inputs": {"text": str(n)}})
            return answer.status_code, answer.headers.get("retry-after")

        answers = [threads.submit(ask, n) for n in range(8)]
        while sum(answer.done() for answer in answers) < 6:
            parrot.asked.wait(0.05)
        parrot.go.set()
        found = [answer.result(30) for answer in answers]
    assert sorted(found, key=str) == [(200, None)] * 2 + [(503, "1")] * 6
