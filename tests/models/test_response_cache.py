"""The response cache: a hit costs nothing, and nothing that happens to its file ends a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from workbench.errors import WorkbenchWarning
from workbench.models.engine import Generation, Message, Request
from workbench.models.response_cache import CachedEngine, ResponseCache, request_key


def ask(*questions: str, **generation: object) -> list[Request]:
    settings = Generation.model_validate(generation)
    return [
        Request((Message(role="user", content=text),), settings, None, f"{n}:0") for n, text in enumerate(questions)
    ]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResponseCache]:
    found = ResponseCache(tmp_path / "cache" / "responses.sqlite")
    yield found
    found.close()


def test_a_second_time_is_a_hit_that_costs_nothing(cache: ResponseCache) -> None:
    engine = InstantEngine()
    cached = CachedEngine(engine, cache)
    first = dict(cached.generate(ask("say one", "say two")))
    again = dict(cached.generate(ask("say one", "say three")))
    assert engine.asked == 3
    assert [again[n].cached for n in (0, 1)] == [True, False]
    assert (again[0].text, again[0].cost_usd) == (first[0].text, 0.0)


def test_everything_that_decides_the_answer_is_in_the_key(cache: ResponseCache) -> None:
    info = InstantEngine().info
    [plain] = ask("one")
    [warm] = ask("one", temperature=0.5)
    [short] = ask("one", max_new_tokens=3)
    schema = Request(plain.messages, plain.generation, {"type": "object"}, plain.seed_key)
    repeat = Request(plain.messages, plain.generation, None, "0:1")
    other = Request((Message(role="system", content="one"),), plain.generation, None, plain.seed_key)
    adapted = replace(plain, adapter="sha256:" + "3" * 64)
    keys = {request_key(info, request) for request in (plain, warm, short, schema, repeat, other, adapted)}
    moved = InstantEngine().info.__class__(**{**info.to_dict(), "digest": "sha256:" + "2" * 64})
    assert len(keys | {request_key(moved, plain)}) == 8
    # What was kept before there were adapters is still found.
    assert request_key(info, plain) == "sha256:eb5e6978e4f322e26d567517ab4f7a49c679d5cb98824f1de1537614b1a4ae9c"


def test_errors_are_not_kept(cache: ResponseCache) -> None:
    engine = InstantEngine(failing={"bad"})
    cached = CachedEngine(engine, cache)
    assert dict(cached.generate(ask("a bad one")))[0].error_kind == "engine"
    engine.failing.clear()
    assert dict(cached.generate(ask("a bad one")))[0].text == "one"


def test_without_reading_all_is_asked_and_kept_anew(cache: ResponseCache) -> None:
    engine = InstantEngine()
    dict(CachedEngine(engine, cache).generate(ask("one")))
    assert not dict(CachedEngine(engine, cache, read=False).generate(ask("one")))[0].cached
    assert engine.asked == 2


def test_a_damaged_entry_is_a_miss(cache: ResponseCache) -> None:
    engine = InstantEngine()
    cached = CachedEngine(engine, cache)
    dict(cached.generate(ask("one", "two")))
    cache.close()
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE responses SET body = CAST(replace(body, 'one', 'wrong') AS BLOB)")
    answers = dict(cached.generate(ask("one", "two")))
    assert [(answers[n].text, answers[n].cached) for n in (0, 1)] == [("one", False), ("two", True)]


def test_a_damaged_file_is_set_aside(cache: ResponseCache) -> None:
    engine = InstantEngine()
    cached = CachedEngine(engine, cache)
    dict(cached.generate(ask("one")))
    cache.close()
    cache.path.write_bytes(b"not a database, but long enough to be read as the head of one" * 20)
    with pytest.warns(WorkbenchWarning, match="damaged"):
        assert dict(cached.generate(ask("one")))[0].text == "one"
    assert dict(cached.generate(ask("one")))[0].cached
    assert list(cache.path.parent.glob("*.damaged-*"))


def test_a_file_that_cannot_be_written_switches_the_cache_off(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    cached = CachedEngine(InstantEngine(), ResponseCache(tmp_path / "folder.sqlite"))
    with pytest.warns(WorkbenchWarning, match="off for now"):
        assert dict(cached.generate(ask("one")))[0].text == "one"
    assert dict(cached.generate(ask("one")))[0].text == "one"


def test_the_oldest_entries_go_when_the_file_is_too_large(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "responses.sqlite", most_bytes=1)
    dict(CachedEngine(InstantEngine(), cache).generate(ask(*(f"word{n}" for n in range(40)))))
    cache.trim()
    kept = cache.get([request_key(InstantEngine().info, request) for request in ask(*(f"word{n}" for n in range(40)))])
    assert 0 < len(kept) < 40
    cache.close()


def test_two_at_once_share_one_file(cache: ResponseCache) -> None:
    other = ResponseCache(cache.path)
    dict(CachedEngine(InstantEngine(), cache).generate(ask("one")))
    engine = InstantEngine()
    assert dict(CachedEngine(engine, other).generate(ask("one")))[0].cached
    assert engine.asked == 0
    other.close()
