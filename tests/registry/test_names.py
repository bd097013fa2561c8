"""Names, versions, aliases, and the way back."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.state.servers import new_url
from workbench.errors import NotFoundError, UsageError
from workbench.files import digest_bytes
from workbench.registry import names
from workbench.workspace import Layout

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def _digest(number: int) -> str:
    return digest_bytes(str(number).encode())


@pytest.fixture(params=["sqlite", "postgresql"])
def layout(tmp_path: Path, request: pytest.FixtureRequest) -> Layout:
    url = new_url(request.param, tmp_path)
    (tmp_path / "workbench.toml").write_text(f'name = "test"\n[state]\nurl = "{url}"\n')
    return Layout.find(tmp_path)


@pytest.fixture
def three(layout: Layout) -> Layout:
    """A workspace with three versions of `triage`."""
    for number in (1, 2, 3):
        names.register(layout, "triage", _digest(number), at=NOON)
    return layout


def test_versions_count_from_one_and_the_same_digest_keeps_its_version(layout: Layout) -> None:
    assert [names.register(layout, "triage", _digest(n)) for n in (7, 8, 7, 9, 8)] == [1, 2, 1, 3, 2]
    assert names.register(layout, "other", _digest(7)) == 1
    assert [version.version for version in names.ls(layout, "triage")] == [1, 2, 3]


def test_a_reference_may_be_bare_a_version_an_alias_or_a_digest(three: Layout) -> None:
    names.set_alias(three, "triage", "prod", 2)
    versions = {
        reference: names.resolve(three, reference).version
        for reference in ("triage", "triage@1", "triage@prod", f"triage@{_digest(2)}", f"triage@{_digest(3)[:20]}")
    }
    assert list(versions.values()) == [3, 1, 2, 2, 3]
    assert names.resolve(three, "triage@2").to_json() == {
        "name": "triage",
        "version": 2,
        "digest": _digest(2),
        "aliases": ["prod"],
        "created_at": "2026-01-02T12:00:00.000000+00:00",
    }


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("triag", "no artifact 'triag'. There are: triage."),
        ("triage@9", "triage has no version 9. Its newest is 3."),
        ("triage@prod", "triage has no alias 'prod'. Set one with: workbench artifact alias triage prod"),
        ("triage@sha256:000000", "triage has no version with digest sha256:000000. See: workbench artifact ls triage"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(three: Layout, reference: str, message: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        names.resolve(three, reference)
    assert str(caught.value) == message


@pytest.mark.parametrize("reference", ["", "Triage", "a/b", "../x", "triage@", "triage@PROD", "triage@sha256:xy", "-a"])
def test_malformed_references_are_usage_errors(three: Layout, reference: str) -> None:
    with pytest.raises(UsageError):
        names.resolve(three, reference)


def test_an_alias_cannot_look_like_a_version(three: Layout) -> None:
    with pytest.raises(UsageError, match="'12' is not an alias"):
        names.set_alias(three, "triage", "12", 1)


def test_rollback_goes_back_one_move_at_a_time_and_then_refuses(three: Layout) -> None:
    for version in (1, 3, 2):
        names.set_alias(three, "triage", "prod", version)
    assert [names.rollback(three, "triage", "prod").version for _ in range(2)] == [3, 1]
    with pytest.raises(NotFoundError, match="always pointed at version 1"):
        names.rollback(three, "triage", "prod")
    names.set_alias(three, "triage", "prod", 2)
    with pytest.raises(UsageError, match="points at version 2 by now, not at 3"):
        names.rollback(three, "triage", "prod", was=3)
    assert names.rollback(three, "triage", "prod", was=2).version == 1


@given(moves=st.lists(st.sampled_from([1, 2, 3, None]), max_size=12))
@settings(max_examples=12)
def test_an_alias_behaves_like_a_stack_of_moves(
    moves: list[int | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A number moves the alias there, None rolls it back."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "workbench.toml").touch()
    layout = Layout.find(folder)
    for number in (1, 2, 3):
        names.register(layout, "triage", _digest(number))
    stack: list[int] = []
    for move in moves:
        if move is None and len(stack) < 2:
            with pytest.raises(NotFoundError):
                names.rollback(layout, "triage", "prod")
        elif move is None:
            stack.pop()
            assert names.rollback(layout, "triage", "prod").version == stack[-1]
        else:
            if stack[-1:] != [move]:
                stack.append(move)
            names.set_alias(layout, "triage", "prod", move)
    if stack:
        assert names.resolve(layout, "triage@prod").version == stack[-1]


def test_every_move_is_on_record_and_a_move_to_the_same_place_is_none(layout: Layout) -> None:
    names.register(layout, "triage", _digest(1), alias="prod", actor="ada", at=NOON)
    names.register(layout, "triage", _digest(2), actor="bob")
    names.set_alias(layout, "triage", "prod", 2, actor="bob")
    names.set_alias(layout, "triage", "prod", 2, actor="bob")
    names.rollback(layout, "triage", "prod", actor="eve")
    names.record_refusal(layout, "triage", "prod", {"reasons": ["too slow"]}, actor="bob")
    assert [(m.kind, m.alias, m.from_version, m.to_version, m.actor) for m in names.history(layout, "triage")] == [
        ("register", None, None, 1, "ada"),
        ("alias", "prod", None, 1, "ada"),
        ("register", None, None, 2, "bob"),
        ("alias", "prod", 1, 2, "bob"),
        ("rollback", "prod", 2, 1, "eve"),
        ("refuse", "prod", None, None, "bob"),
    ]
    assert names.history(layout, "triage")[-1].detail == {"reasons": ["too slow"]}


def test_an_alias_needs_a_version_that_exists(three: Layout) -> None:
    with pytest.raises(NotFoundError, match="no version 9"):
        names.set_alias(three, "triage", "prod", 9)
    assert names.history(three, "triage")[-1].kind == "register"


def _promote(root: Path, start: multiprocessing.synchronize.Barrier, worker: int) -> None:
    layout = Layout.find(root)
    start.wait()
    for number in range(5):
        names.register(layout, "triage", _digest(worker * 100 + number), alias="prod")


def test_two_processes_that_register_at_once_get_different_versions(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_promote, args=(layout.root, start, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    versions = names.ls(layout, "triage")
    assert [version.version for version in versions] == list(range(1, 16))
    assert len({version.digest for version in versions}) == 15
    # Each move of the alias starts where the one before ended.
    moves = [move for move in names.history(layout, "triage") if move.kind == "alias"]
    assert [move.from_version for move in moves] == [None, *(move.to_version for move in moves[:-1])]
