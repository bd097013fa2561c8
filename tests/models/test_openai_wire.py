"""What is sent to a chat server, and what its replies are taken for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.models import openai_wire as wire
from workbench.models.engine import Generation, Message, Request
from workbench.workspace import ServerSettings

SERVER = ServerSettings(base_url="http://localhost:1/v1")
CLOSED = {"type": "object", "properties": {"ok": {"enum": [1]}}, "required": ["ok"], "additionalProperties": False}


def _request(schema: dict[str, Any] | None = None, key: str = "", **generation: Any) -> Request:
    return Request((Message(role="user", content="Où?"),), Generation(**generation), schema, key)


def _body(request: Request, server: ServerSettings = SERVER) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(wire.encode_request("m", server, request))
    return body


def test_a_greedy_request_names_no_seed_and_nothing_that_was_not_asked_for() -> None:
    assert _body(_request(max_new_tokens=7)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Où?"}],
        "temperature": 0.0,
        "max_tokens": 7,
    }


def test_a_sampling_request_names_everything() -> None:
    server = SERVER.model_copy(update={"max_tokens_field": "max_completion_tokens"})
    body = _body(_request(temperature=0.5, top_p=0.9, top_k=4, stop=("\n",), key="row:0"), server)
    assert (body["top_k"], body["stop"], body["max_completion_tokens"]) == (4, ["\n"], 64)
    assert 0 <= body["seed"] < 2**31
    seeds = {_body(_request(temperature=1, seed=seed, key=key))["seed"] for seed in (0, 1) for key in ("a", "b")}
    assert len(seeds) == 4


def test_what_a_server_does_not_take_is_left_out() -> None:
    assert "temperature" not in _body(_request(), SERVER.model_copy(update={"omit": ("temperature",)}))


def test_a_schema_is_strict_only_where_strict_mode_would_take_it() -> None:
    open_schema = {"type": "object", "properties": {"inner": CLOSED}, "required": []}
    nested = CLOSED | {"properties": {"inner": open_schema}, "required": ["inner"]}
    for schema, strict in ((CLOSED, True), (open_schema, False), (nested, False), ({"type": "object"}, False)):
        sent = _body(_request(schema))["response_format"]
        assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "strict": strict, "schema": schema}}
    assert "response_format" not in _body(_request(CLOSED, constrain=False))
    assert "response_format" not in _body(_request(CLOSED), SERVER.model_copy(update={"structured": False}))


@given(st.lists(st.text(st.characters(exclude_categories=[])), min_size=1, max_size=4))
def test_any_text_can_be_sent_and_its_tokens_are_bounded_by_its_bytes(texts: list[str]) -> None:
    request = Request(tuple(Message(role="user", content=text) for text in texts))
    assert [message["content"] for message in _body(request)["messages"]] == texts
    assert wire.most_tokens_in(SERVER, request) >= sum(map(len, texts)) + 16 * len(texts)
    assert wire.estimate_tokens(request.messages) <= wire.most_tokens_in(SERVER, request)


def test_the_bound_of_the_prompt_counts_the_schema_too() -> None:
    more = wire.most_tokens_in(SERVER, _request(CLOSED)) - wire.most_tokens_in(SERVER, _request())
    assert more >= len(json.dumps(CLOSED))


def _reply(content: Any, **choice: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, **choice}]}).encode()


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (_reply("hi", finish_reason="stop"), "hi", "stop"),
        (_reply("hi", finish_reason="length"), "hi", "length"),
        (_reply("hi"), "hi", "stop"),
        (_reply(None, finish_reason="length"), "", "length"),
        (_reply([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop"),
        (json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}}]}).encode(), "No.", "stop"),
    ],
)
def test_answers(body: bytes, text: str, reason: str) -> None:
    outcome = wire.read_reply(200, {}, body)
    assert (outcome.verdict, outcome.text, outcome.finish_reason) == ("answered", text, reason)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"error": {"message": "busy"}}',
        _reply(7),
        _reply({"a": 1}),
        _reply([1]),
    ],
)
def test_garbage_is_asked_again_and_may_have_cost(body: bytes) -> None:
    outcome = wire.read_reply(200, {}, body)
    assert (outcome.verdict, outcome.may_cost) == ("again", True)


def test_usage() -> None:
    def usage(**counts: Any) -> wire.TokenCounts | None:
        body = json.loads(_reply("x")) | {"usage": counts}
        return wire.read_reply(200, {}, json.dumps(body).encode()).usage

    assert usage(prompt_tokens=5, completion_tokens=2) == wire.TokenCounts(5, 2)
    cached = usage(prompt_tokens=5, completion_tokens=2, prompt_tokens_details={"cached_tokens": 3})
    assert cached == wire.TokenCounts(5, 2, 3)
    assert usage(prompt_tokens=5, completion_tokens=None) is None
    assert usage(prompt_tokens=-5, completion_tokens=1) is None


@pytest.mark.parametrize(
    ("status", "error", "headers", "verdict", "kind"),
    [
        (400, {"message": "bad"}, {}, "refused", "engine"),
        (400, {"message": "x", "code": "context_length_exceeded"}, {}, "refused", "too_long"),
        (400, {"message": "This model's maximum context length is 10 tokens."}, {}, "refused", "too_long"),
        (400, {"message": "the request exceeds the available context size"}, {}, "refused", "too_long"),
        (404, "no such model", {}, "refused", "engine"),
        (413, {"message": "big"}, {}, "refused", "engine"),
        (422, {"message": "bad"}, {}, "refused", "engine"),
        (302, {}, {}, "refused", "engine"),
        (401, {}, {}, "denied", "engine"),
        (403, {}, {}, "denied", "engine"),
        (408, {}, {}, "again", "engine"),
        (409, {}, {}, "again", "engine"),
        (500, {}, {}, "again", "engine"),
        (503, {}, {}, "again", "engine"),
        (503, {}, {"retry-after": "2"}, "limited", "engine"),
        (529, {}, {"retry-after": "2"}, "limited", "engine"),
        (429, {}, {}, "limited", "engine"),
        (429, {"code": "insufficient_quota"}, {}, "refused", "engine"),
    ],
)
def test_errors(status: int, error: Any, headers: dict[str, str], verdict: str, kind: str) -> None:
    outcome = wire.read_reply(status, headers, json.dumps({"error": error}).encode())
    assert (outcome.verdict, outcome.kind, outcome.may_cost) == (verdict, kind, False)
    assert outcome.error.startswith(f"HTTP {status}")


def test_an_error_says_what_the_server_said_wherever_it_said_it() -> None:
    for body in (
        {"error": {"message": "no GPU"}},
        {"error": "no GPU"},
        {"message": "no GPU"},
        {"detail": "no GPU"},
        ["no GPU"],
    ):
        assert "no GPU" in wire.read_reply(500, {}, json.dumps(body).encode()).error
    assert wire.one_line(wire.read_reply(502, {}, b"<h1>no\nGPU</h1>").error) == "HTTP 502: no GPU"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert wire.read_retry_after(headers, datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds


def test_keys_are_taken_out_of_texts() -> None:
    text = wire.redact('key abc123, "Bearer zzz.yyy", sk-proj-1234****', "abc123")
    assert text == 'key [key], "Bearer [key]", [key]'
    assert len(wire.one_line("word\n" * 1000)) == wire.LONGEST_ERROR
