"""The engine for chat servers, against a real server that answers, hangs, breaks off, refuses and lies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.models import openai_server as servers
from tests.models.openai_server import ChatServer, serving
from workbench.errors import ModelError
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Engine, Generation, Message, Request
from workbench.models.openai_engine import OpenAIEngine
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.workspace import ServerSettings

ROOT = Path(__file__).parents[2]
KEY = "k3y-Zx81-not-for-anyone"
pytestmark = pytest.mark.usefixtures("_no_proxy")

Make = Callable[..., OpenAIEngine]


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes engines for a server, whose failures are tried again at once, and closes them."""
    made: list[OpenAIEngine] = []

    def build(server: ChatServer, **settings: Any) -> OpenAIEngine:
        engine = OpenAIEngine("local", "m", ServerSettings(base_url=server.url, **settings), backoff_s=0.001)
        made.append(engine)
        return engine

    yield build
    for engine in made:
        engine.close()


def _requests(*words: str, **generation: Any) -> list[Request]:
    return [
        Request((Message(role="user", content=f"say {word}"),), Generation(**generation), None, str(index))
        for index, word in enumerate(words)
    ]


def _ask(engine: Engine, requests: list[Request], budget: Budget | None = None) -> list[Completion]:
    found = dict(engine.generate(requests, budget=budget))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def test_every_request_is_answered_once_many_at_a_time(make: Make) -> None:
    with serving(servers.ok(delay=0.02)) as server:
        engine = make(server, concurrency=24)
        words = [f"w{n}" for n in range(300)]
        completions = _ask(engine, _requests(*words))
        assert [completion.text for completion in completions] == words
        assert 8 < server.most_at_once <= 24
        assert len(server.bodies) == 300
        one = completions[0]
        assert (one.finish_reason, one.tokens_in, one.tokens_out, one.cost_usd) == ("stop", 10, 3, 0.0)
        assert one.ttft_s == one.latency_s >= 0.02
        assert all(completion.queue_s >= 0 for completion in completions)
        assert max(completion.queue_s for completion in completions) > one.latency_s
        assert list(engine.generate([])) == []


def test_answers_come_in_whatever_order_they_are_done(make: Make) -> None:
    with serving(servers.by_word(slow=servers.ok(delay=0.5))) as server:
        order = [index for index, _ in make(server).generate(_requests("slow", "quick"))]
    assert order == [1, 0]


def test_it_works_under_a_running_event_loop(make: Make) -> None:
    with serving(servers.ok()) as server:
        engine = make(server)

        async def notebook_cell() -> list[Completion]:
            return _ask(engine, _requests("a", "b"))

        assert [completion.text for completion in asyncio.run(notebook_cell())] == ["a", "b"]


def test_several_threads_may_ask_one_engine(make: Make) -> None:
    with serving(servers.ok(delay=0.01)) as server:
        engine = make(server)
        found: dict[int, list[str | None]] = {}

        def ask(name: int) -> None:
            words = [f"{name}-{n}" for n in range(20)]
            found[name] = [completion.text for completion in _ask(engine, _requests(*words))]

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {name: [f"{name}-{n}" for n in range(20)] for name in range(4)}


def test_usage_that_the_server_does_not_tell_is_estimated(make: Make) -> None:
    with serving(servers.ok(tokens=None)) as server:
        engine = make(server)
        requests = _requests("abcdefgh")
        [completion] = _ask(engine, requests)
        assert completion.tokens_in == engine.count_tokens(requests[0].messages) == 3 + 4
        assert completion.tokens_out == 2


def test_a_large_prompt_is_sent_whole(make: Make) -> None:
    with serving(servers.ok()) as server:
        long = "ü" * 2_000_000
        [completion] = _ask(make(server), _requests(f"{long} end"))
        assert completion.text == "end"
        assert server.bodies[0]["messages"][0]["content"] == f"say {long} end"


def test_what_hangs_times_out_and_the_rest_is_answered(make: Make) -> None:
    with serving(servers.by_word(never=servers.hang)) as server:
        hung, fine = _ask(make(server, timeout_s=1.0, tries=2), _requests("never", "b"))
    assert (hung.error_kind, hung.text, hung.error) == ("timeout", None, "no answer within 1 s (2 tries)")
    assert fine.text == "b"
    assert [body["messages"][0]["content"] for body in server.bodies].count("say never") == 2


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (servers.text("<html>try later</html>"), "not a chat completion"),
        (servers.text('{"choices": []}'), "not a chat completion"),
        (servers.drop, "the connection broke"),
        (servers.status(500), "HTTP 500: no"),
        (servers.status(503), "HTTP 503: no"),
        (servers.status(408), "HTTP 408: no"),
        (servers.status(409), "HTTP 409: no"),
    ],
)
def test_accidents_are_tried_again_and_then_are_error_rows(make: Make, bad: servers.Behaviour, error: str) -> None:
    with serving(servers.first(4, bad, servers.ok())) as server:
        assert _ask(make(server, concurrency=1), _requests("a"))[0].text == "a"
        assert len(server.bodies) == 5
    with serving(bad) as server:
        [completion] = _ask(make(server, tries=3), _requests("a"))
        assert (completion.error_kind, completion.text) == ("engine", None)
        assert error in (completion.error or "")
        assert (completion.error or "").endswith("(3 tries)")
        assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (servers.status(400), "engine"),
        (servers.status(404, {"message": "no model m"}), "engine"),
        (servers.status(422), "engine"),
        (servers.status(307, headers={"Location": "http://elsewhere.example/"}), "engine"),
        (servers.status(400, {"message": "too long", "code": "context_length_exceeded"}), "too_long"),
        (servers.status(429, {"message": "pay first", "code": "insufficient_quota"}), "engine"),
        (servers.ok(finish_reason="content_filter"), "engine"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(make: Make, bad: servers.Behaviour, kind: str) -> None:
    with serving(servers.by_word(bad=bad)) as server:
        failed, fine = _ask(make(server), _requests("bad", "b"))
        assert (failed.error_kind, failed.text) == (kind, None)
        assert fine.text == "b"
        assert len(server.bodies) == 2


def test_a_server_that_is_not_there_is_an_error_row(make: Make) -> None:
    with serving(servers.ok()) as server:
        pass
    [completion] = _ask(make(server, tries=2), _requests("a"))
    assert completion.error_kind == "engine"
    assert (completion.error or "").startswith("no connection: ")


def test_rate_limits_slow_everyone_down_once_and_no_row_is_lost(make: Make) -> None:
    refuse = servers.status(429, {"message": "slow down", "code": "rate_limit_exceeded"}, {"Retry-After": "1"})
    with serving(servers.first(12, refuse, servers.ok())) as server:
        engine = make(server, tries=1)
        words = [f"w{n}" for n in range(100)]
        assert [completion.text for completion in _ask(engine, _requests(*words))] == words
        # 8 were under way and refused: one episode. Of the 4 that the halved limit let through, all were: another.
        assert engine.gate.limiter.episodes == 2
        assert len(server.bodies) == 112


def test_a_server_that_refuses_for_longer_than_the_patience_ends_the_call(make: Make) -> None:
    with serving(servers.status(429, headers={"Retry-After": "3600"})) as server:
        completions = _ask(make(server, patience_s=2), _requests(*"abcdefghijklmnopqrstuvwxyz"))
        assert {completion.error_kind for completion in completions} == {"engine"}
        assert all("no request for 36" in (completion.error or "") for completion in completions)
        assert len(server.bodies) <= 8
    with serving(servers.status(429, headers={"Retry-After": "0.05"})) as server:
        completions = _ask(make(server, patience_s=0.3), _requests(*(str(n) for n in range(500))))
        assert {completion.error_kind for completion in completions} == {"engine"}
        assert all("rate limited" in (completion.error or "") for completion in completions)


PRICED = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 10_000.0}  # a cent for each token of the answer


def test_a_budget_is_spent_to_the_last_call_that_fits_and_never_passed(make: Make) -> None:
    with serving(servers.ok(delay=0.01, tokens=3)) as server:
        budget = Budget(1.0)
        engine = make(server, concurrency=32, **PRICED)
        completions = _ask(engine, _requests(*(["x"] * 200), max_new_tokens=4), budget)
        # A call can cost 4 cents and does cost 3, so the 33rd still fits and the 34th does not.
        assert server.answered == 33
        assert server.most_at_once > 1
        assert budget.spent_usd == pytest.approx(0.99)
        assert budget.reserved_usd == pytest.approx(0)
    answered = [completion for completion in completions if completion.text is not None]
    assert [completion.cost_usd for completion in answered] == pytest.approx([0.03] * 33)
    left = [completion for completion in completions if completion.text is None]
    assert {completion.error_kind for completion in left} == {"budget"}
    assert "the budget of 1 holds" in (left[0].error or "")


def test_what_may_have_been_billed_counts_against_the_budget(make: Make) -> None:
    calls = 0

    async def unreliable(*seen: Any) -> Any:
        nonlocal calls
        calls += 1
        return await [servers.drop, servers.text("{}"), servers.status(500), servers.ok()][calls % 4](*seen)

    with serving(unreliable) as server:
        budget = Budget(2.0)
        completions = _ask(
            make(server, concurrency=32, tries=9, **PRICED), _requests(*(["x"] * 200), max_new_tokens=4), budget
        )
    assert 1.9 < budget.spent_usd <= 2.0 + 1e-9
    assert sum(completion.cost_usd or 0 for completion in completions) == pytest.approx(budget.spent_usd)
    assert {completion.error_kind for completion in completions} == {None, "budget"}
    assert max(completion.cost_usd or 0 for completion in completions) > 0.04


def test_a_free_server_needs_no_budget_and_an_unknown_price_allows_none(make: Make) -> None:
    with serving(servers.ok()) as server:
        assert _ask(make(server), _requests("a"), Budget(0.0))[0].text == "a"
    public = OpenAIEngine("far", "m", ServerSettings(base_url="https://llm.example.com/v1"))
    with pytest.raises(ModelError, match=r"price of far:m is not known.*output_usd_per_mtok under \[servers.far\]"):
        list(public.generate(_requests("a"), budget=Budget(1.0)))


def test_leaving_early_stops_asking(make: Make) -> None:
    with serving(servers.ok(delay=0.02)) as server:
        engine = make(server, concurrency=8)
        answers = engine.generate(_requests(*(str(n) for n in range(10_000))))
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        time.sleep(0.3)  # what was on its way may still arrive
        seen = len(server.bodies)
        time.sleep(0.3)
        assert len(server.bodies) == seen < 1000
        assert engine.gate.limiter.under_way == 0
        assert _ask(engine, _requests("again"))[0].text == "again"


def test_leaving_early_settles_what_was_under_way(make: Make) -> None:
    with serving(servers.by_word(never=servers.hang)) as server:
        budget = Budget(1.0)
        answers = make(server, **PRICED).generate(_requests("a", "never", "never", max_new_tokens=4), budget=budget)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert budget.reserved_usd == pytest.approx(0)
        assert budget.spent_usd == pytest.approx(0.03 + 0.04 + 0.04)


def test_no_more_is_asked_for_than_the_caller_keeps_up_with(make: Make) -> None:
    with serving(servers.ok()) as server:
        answers = make(server, concurrency=4).generate(_requests(*(str(n) for n in range(2000))))
        next(answers)
        seen = -1
        while seen != len(server.bodies):
            seen = len(server.bodies)
            time.sleep(0.5)
        assert seen < 300
        assert len(list(answers)) == 1999


def test_closing_ends_a_call_that_another_thread_waits_for(make: Make) -> None:
    with serving(servers.hang) as server:
        engine = make(server)
        errors: list[Exception] = []

        def ask() -> None:
            try:
                _ask(engine, _requests("a"))
            except ModelError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.bodies:
            time.sleep(0.01)
        engine.close()
        engine.close()
        thread.join(30)
        assert not thread.is_alive()
    assert "was closed" in str(errors[0])
    with pytest.raises(ModelError, match="was closed"):
        list(engine.generate(_requests("a")))


def test_the_key_is_sent_and_never_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")

    async def parrot(server: ChatServer, request: Any, body: dict[str, Any]) -> Any:
        body["messages"][-1]["content"] = request.headers["Authorization"]
        return await servers.ok()(server, request, body)

    odd = servers.by_word(parrot=parrot, page=servers.text(f"<p>{KEY}</p>"), other=servers.echo_key)
    with serving(odd) as server:
        engine = make(server, key_env="TEST_KEY", tries=1)
        completions = _ask(engine, _requests("a", "parrot", "page"))
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert completions[0].error == "HTTP 400: I cannot serve Bearer [key]"
    assert completions[1].text == "[key]"
    assert "[key]" in (completions[2].error or "")
    told = repr(completions) + repr(engine) + repr(engine.info) + repr(vars(engine))
    assert KEY not in told


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_ends_the_call_and_names_the_variable(
    make: Make, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.status(code, {"message": f"Incorrect API key provided: {KEY}"})) as server:
        engine = make(server, key_env="TEST_KEY")
        with pytest.raises(ModelError, match=r"Incorrect API key provided: \[key\].*TEST_KEY") as caught:
            list(engine.generate(_requests(*(str(n) for n in range(500)))))
        assert KEY not in repr(caught.value) + str(caught.value)
        assert len(server.bodies) <= 64
        server.behaviour = servers.ok()
        monkeypatch.setenv("TEST_KEY", "another")
        assert _ask(engine, _requests("a"))[0].text == "a"
        assert server.headers[-1]["Authorization"] == "Bearer another"
        anonymous = make(server)
        server.behaviour = servers.status(code)
        with pytest.raises(ModelError, match="key_env under"):
            list(anonymous.generate(_requests("a")))


def test_a_missing_key_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    far = ServerSettings(base_url="https://llm.example.com/v1", key_env="TEST_KEY")
    with pytest.raises(ModelError, match="export TEST_KEY="):
        OpenAIEngine("far", "m", far)
    monkeypatch.setenv("TEST_KEY", "two words")
    with pytest.raises(ModelError, match="TEST_KEY holds no key") as caught:
        OpenAIEngine("far", "m", far)
    assert "two words" not in str(caught.value)
    monkeypatch.delenv("TEST_KEY")
    with serving(servers.ok()) as server:
        assert _ask(make(server, key_env="TEST_KEY"), _requests("a"))[0].text == "a"
        assert "Authorization" not in server.headers[0]


def test_a_proxy_of_the_environment_is_used_and_signed_in_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(servers.ok()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:secret@").removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        engine = OpenAIEngine("far", "m", ServerSettings(base_url="http://llm.example.com/v1", concurrency=1))
        assert [completion.text for completion in _ask(engine, _requests("a", "b"))] == ["a", "b"]
        engine.close()
        assert proxy.paths == ["http://llm.example.com/v1/chat/completions"] * 2
        assert [headers["Proxy-Authorization"] for headers in proxy.headers] == ["Basic bWU6c2VjcmV0"] * 2


def test_a_pipeline_sends_its_schema_and_parses_the_answer(make: Make) -> None:
    schema = {
        "type": "object",
        "properties": {"urgent": {"type": "boolean"}},
        "required": ["urgent"],
        "additionalProperties": False,
    }
    pipeline = Pipeline(model="local:m", prompt=Prompt.from_text("{{ text }}"), response_schema=schema)
    with serving(servers.ok()) as server:
        engine = make(server)
        found = dict(pipeline.answers(engine, [{"text": '{"urgent":true}'}, {"text": "yes"}]))
        assert found[0].value == {"urgent": True}
        assert found[1].error_kind == "invalid_output"
        sent = server.bodies[0]["response_format"]["json_schema"]
        assert (sent["schema"], sent["strict"]) == (schema, True)


def test_choices_are_refused(make: Make) -> None:
    with serving(servers.ok()) as server, pytest.raises(ModelError, match="cannot rank choices"):
        list(make(server).generate(_requests("a", choices=("x", "y"))))


def test_an_adapter_is_refused(make: Make) -> None:
    with serving(servers.ok()) as server, pytest.raises(ModelError, match="takes no adapter"):
        list(make(server).generate([replace(_requests("a")[0], adapter="sha256:" + "4" * 64)]))


def _program(body: str, url: str) -> list[str]:
    source = f"""
        import os, sys
        from workbench.models.engine import Message, Request
        from workbench.models.openai_engine import OpenAIEngine
        from workbench.workspace import ServerSettings
        engine = OpenAIEngine("local", "m", ServerSettings(base_url={url!r}))
        def requests(*words):
            return [Request((Message(role="user", content=word),)) for word in words]
        {textwrap.indent(textwrap.dedent(body).strip(), " " * 8).strip()}
    """
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(source)]


def test_an_interrupt_ends_the_program() -> None:
    with serving(servers.by_word(never=servers.hang)) as server:
        program = _program(
            """
            for index, answer in engine.generate(requests("a", "never", "never")):
                print(answer.text, flush=True)
            """,
            server.url,
        )
        with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "a\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "Unclosed" not in errors


def test_a_program_that_forgets_to_close_ends() -> None:
    with serving(servers.by_word(never=servers.hang)) as server:
        program = _program(
            """
            answers = engine.generate(requests("a", "never"))
            print(next(answers)[1].text)
            """,
            server.url,
        )
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_asks_anew_and_leaves_its_parent_alone() -> None:
    with serving(servers.by_word(slow=servers.ok(delay=1.0))) as server:
        program = _program(
            """
            answers = engine.generate(requests("first", "slow"))
            print(next(answers)[1].text, flush=True)
            child = os.fork()
            if child == 0:
                try:
                    next(answers)
                except Exception as error:
                    print(type(error).__name__, "forked" in str(error))
                print([answer.text for _, answer in engine.generate(requests("child"))], flush=True)
                sys.exit(0)
            print(os.waitpid(child, 0)[1], next(answers)[1].text)
            print([answer.text for _, answer in engine.generate(requests("parent"))])
            """,
            server.url,
        )
        # Python 3.12 and later warn of any fork of a process with threads.
        program[3:3] = ["-W", "ignore::DeprecationWarning"]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["first", "ModelError True", "['child']", "0 slow", "['parent']"]


def test_a_name_that_resolves_slowly_does_not_keep_the_program(tmp_path: Path) -> None:
    program = _program(
        """
        import socket, threading, time
        asked = threading.Event()
        def slow(*args, **options):
            asked.set()
            time.sleep(3600)
        socket.getaddrinfo = slow
        answers = engine.generate(requests("a"))
        waiting = threading.Thread(target=lambda: next(answers, None), daemon=True)
        waiting.start()
        assert asked.wait(30)
        print("asked")
        """,
        "http://llm.example.com/v1",
    )
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "asked\n"), done.stderr


def test_the_wire_is_what_the_settings_say(make: Make) -> None:
    with serving(servers.ok()) as server:
        _ask(make(server, max_tokens_field="max_completion_tokens"), _requests("a", temperature=0.7))
        [body] = server.bodies
        assert server.paths == ["/v1/chat/completions"]
        assert json.dumps(body["model"]) == '"m"'
        assert body["max_completion_tokens"] == 64
        assert "seed" in body


def test_info_tells_server_and_model_but_verifies_nothing() -> None:
    one = OpenAIEngine("here", "qwen2.5:7b", ServerSettings(base_url="http://localhost:11434/v1"))
    same = OpenAIEngine("here", "qwen2.5:7b", ServerSettings(base_url="http://other:1/v1", tries=1))
    assert one.info.name == "here:qwen2.5:7b"
    assert (one.info.provider, one.info.device, one.info.dtype) == ("openai", "localhost:11434", "remote")
    assert one.info.digest == same.info.digest
    with pytest.raises(ModelError, match="names no model"):
        OpenAIEngine("here", "", ServerSettings(base_url="http://localhost:1/v1"))


def test_no_network_is_needed_to_make_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIEngine("openai", "gpt-4o-mini", ServerSettings(base_url="https://api.openai.com/v1")).info
