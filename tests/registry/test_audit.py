"""The audit chain: every edit, removal and change of order shows."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from tests.state.servers import new_url
from workbench.cli.main import app
from workbench.files import digest_bytes
from workbench.registry import names
from workbench.registry.approvals import approve
from workbench.registry.audit import export_audit, verify_audit
from workbench.state.audit import COLUMNS, FIRST, append, check_chain, line_digest
from workbench.state.db import ArtifactVersion, database_path, timestamp, writing
from workbench.workspace import Layout


def fill(layout: Layout) -> None:
    for number in (1, 2, 3):
        names.register(layout, "triage", digest_bytes(str(number).encode()))
        names.set_alias(layout, "triage", "prod", number)
    names.rollback(layout, "triage", "prod")


def settle(layout: Layout) -> str:
    """Statements that make the count of the lines true again, and a file less: of somebody who knows them."""
    (layout.root / ".workbench" / "audit-seen.json").unlink(missing_ok=True)
    last = "SELECT digest FROM audit ORDER BY seq DESC LIMIT 1"
    return f"UPDATE audit_end SET count = (SELECT count(*) FROM audit), head = ({last})"


def edit(layout: Layout, *statements: str) -> None:
    """As somebody would who has the file and no scruples."""
    path = database_path(layout.state_url)
    assert path is not None
    connection = sqlite3.connect(path)
    for verb in ("update", "delete"):
        for table in ("audit", "artifact_versions", "approvals"):
            connection.execute(f"DROP TRIGGER {table}_no_{verb}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_what_was_written_is_sound(layout: Layout) -> None:
    assert verify_audit(layout).head == FIRST
    fill(layout)
    found = verify_audit(layout)
    assert found.ok
    assert found.count == 7
    assert verify_audit(layout, found.head).ok
    names.set_alias(layout, "triage", "staging", 1)
    assert verify_audit(layout, found.head).ok, "an earlier head is still among the lines"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["UPDATE audit SET actor = 'eve' WHERE seq = 3"], "line 3 (register of triage"),
        (["UPDATE audit SET detail = '{\"a\": 1}' WHERE seq = 2"], "line 2 (alias of triage"),
        (["DELETE FROM audit WHERE seq = 4"], "line 4 is missing or moved"),
        (
            [
                "UPDATE audit SET seq = 99 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 4",
                "UPDATE audit SET seq = 4 WHERE seq = 99",
            ],
            "line 2 does not follow",
        ),
        (["DELETE FROM audit WHERE seq = 7"], "triage@prod points at version 2, and the audit says 3"),
        (["UPDATE aliases SET version = 3"], "triage@prod points at version 3, and the audit says 2"),
        (["DELETE FROM audit WHERE seq >= 5"], "version 3 of triage is in the state alone"),
    ],
)
def test_an_edit_shows(layout: Layout, statements: list[str], said: str) -> None:
    fill(layout)
    edit(layout, *statements)
    found = verify_audit(layout)
    assert not found.ok
    assert any(said in fault for fault in found.faults), found.faults


def test_a_chain_that_was_forged_as_a_whole_is_found_by_a_head_kept_elsewhere(layout: Layout) -> None:
    fill(layout)
    head = verify_audit(layout).head
    names.set_alias(layout, "triage", "late", 1)
    edit(
        layout,
        "DELETE FROM audit WHERE seq >= 7",
        "DELETE FROM aliases WHERE alias = 'late'",
        "UPDATE aliases SET version = 3",
        settle(layout),
    )
    assert verify_audit(layout).ok
    assert "lines were removed from the end" in verify_audit(layout, head).faults[0]


def test_digests_of_versions_that_were_exchanged_show(layout: Layout) -> None:
    fill(layout)
    first, second = (names.resolve(layout, f"triage@{number}").digest for number in (1, 2))
    edit(
        layout,
        "UPDATE artifact_versions SET digest = 'free' WHERE version = 1",
        f"UPDATE artifact_versions SET digest = '{first}' WHERE version = 2",
        f"UPDATE artifact_versions SET digest = '{second}' WHERE version = 1",
    )
    assert verify_audit(layout).faults == (
        f"triage@1 has the digest {second}, and the audit says {first}",
        f"triage@2 has the digest {first}, and the audit says {second}",
    )


@pytest.mark.parametrize("field", ["run_id", "variant", "decision"])
def test_what_else_a_version_is_shows_too(layout: Layout, field: str) -> None:
    names.register(layout, "triage", digest_bytes(b"1"), run_id="run-1", variant="few", decision="worse")
    then = names.ls(layout)[0]
    edit(layout, f"UPDATE artifact_versions SET {field} = 'better'")
    assert verify_audit(layout).faults == (
        f"triage@1 has the {field} better, and the audit says {getattr(then, field)}",
    )


def test_versions_from_before_digests_were_recorded_are_counted(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.register(layout, "triage", digest_bytes(b"1"))
    with writing(layout.state_url) as session:
        session.add(ArtifactVersion(name="old", version=1, digest="sha256:0", created_at=timestamp()))
        append(session, timestamp(), "register", "old", "ada", to_version=1)
    found = verify_audit(layout)
    assert (found.ok, found.notes) == (True, ("1 versions were registered before digests were recorded",))
    monkeypatch.chdir(layout.root)
    assert "note   1 versions were registered before" in CliRunner().invoke(app, ["audit", "verify"]).stdout


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "INSERT INTO approvals VALUES ('triage', 1, 'reviewer', 'eve', 'now', '')",
            "by eve as reviewer is in the state",
        ),
        ("DELETE FROM approvals", "by ada as reviewer is in the audit alone"),
        ("UPDATE approvals SET actor = 'eve'", "by eve as reviewer is in the state alone"),
        ("UPDATE approvals SET version = 2", "the approval of triage@1 by ada as reviewer is in the audit alone"),
        ("UPDATE approvals SET comment = 'perfect'", "says 'perfect', and the audit says 'read it'"),
    ],
)
def test_approvals_are_as_the_lines_say(layout: Layout, statement: str, said: str) -> None:
    fill(layout)
    (layout.root / "workbench.toml").write_text('[roles]\nreviewer = ["ada"]\n')
    approve(Layout.find(layout.root), "triage@1", "reviewer", actor="ada", comment="read it")
    assert verify_audit(layout).ok
    edit(layout, statement)
    assert any(said in fault for fault in verify_audit(layout).faults), verify_audit(layout).faults


def test_a_last_line_that_moved_nothing_is_missed_by_the_count(layout: Layout) -> None:
    fill(layout)
    names.record_refusal(layout, "triage", "prod", {"reasons": ["too slow"]})
    edit(layout, "DELETE FROM audit WHERE seq = 8")
    assert verify_audit(layout).faults == ("7 lines are there, and 8 were written",)
    # For good: what is added later does not hide it.
    names.set_alias(layout, "triage", "staging", 1)
    assert verify_audit(layout).faults == ("8 lines are there, and 9 were written",)


def test_a_last_line_that_was_exchanged_is_missed(layout: Layout) -> None:
    fill(layout)
    head = verify_audit(layout).head
    (layout.root / ".workbench" / "audit-seen.json").unlink()
    edit(layout, "DELETE FROM audit WHERE seq = 7", "DROP TRIGGER audit_counted")
    with writing(layout.state_url) as session:
        append(session, timestamp(), "rollback", "triage", "eve", alias="prod", from_version=3, to_version=2)
    [fault] = verify_audit(layout).faults
    assert fault.endswith(f"and the last that was written is {head}")


def test_what_was_seen_here_once_is_missed_whatever_the_database_says(layout: Layout) -> None:
    fill(layout)
    assert verify_audit(layout).ok
    seen = layout.root / ".workbench" / "audit-seen.json"
    kept = seen.read_bytes()
    edit(layout, "DELETE FROM audit WHERE seq >= 7", "UPDATE aliases SET version = 3", settle(layout))
    seen.write_bytes(kept)
    [fault] = verify_audit(layout).faults
    assert "an earlier `audit verify` saw 7 lines here, and the last of them is gone" in fault
    assert f"remove {seen}" in fault
    seen.unlink()
    assert verify_audit(layout).ok


@pytest.mark.parametrize(
    "text", ["", "[]", '{"databases": {"x": 1}}', '{"databases": {"x": {"lines": "y", "head": 1}}}']
)
def test_a_file_of_what_was_seen_that_cannot_be_read_says_nothing(layout: Layout, text: str) -> None:
    fill(layout)
    (layout.root / ".workbench" / "audit-seen.json").write_text(text)
    assert verify_audit(layout).ok


def test_another_database_is_not_held_against_what_was_seen_of_the_first(layout: Layout) -> None:
    fill(layout)
    assert verify_audit(layout).ok
    (layout.root / "workbench.toml").write_text(f'[state]\nurl = "sqlite:///{layout.root / "other.sqlite"}"\n')
    assert verify_audit(Layout.find(layout.root)).ok
    assert verify_audit(layout).ok


def test_on_postgresql_nothing_can_be_emptied(tmp_path: Path) -> None:
    (tmp_path / "workbench.toml").write_text(f'[state]\nurl = "{new_url("postgresql", tmp_path)}"\n')
    layout = Layout.find(tmp_path)
    fill(layout)
    for statement in (
        "TRUNCATE audit",
        "TRUNCATE artifact_versions CASCADE",
        "TRUNCATE audit_end",
        "DELETE FROM audit_end",
    ):
        with pytest.raises(IntegrityError, match="append-only"), writing(layout.state_url) as session:
            session.execute(text(statement))
    assert verify_audit(layout).count == 7
    # Nor without its triggers, unless the count is changed too.
    with writing(layout.state_url) as session:
        for table in ("audit", "artifact_versions", "approvals"):
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        session.execute(text("TRUNCATE audit"))
        session.execute(text("TRUNCATE artifact_versions CASCADE"))
    assert "0 lines are there, and 7 were written" in verify_audit(layout).faults


@given(st.data())
@settings(max_examples=60)
def test_any_change_of_any_line_is_found(data: st.DataObject) -> None:
    lines, previous = [], FIRST
    for seq in range(1, data.draw(st.integers(2, 6)) + 1):
        line = dict.fromkeys(COLUMNS) | {
            "seq": seq,
            "at": "t",
            "kind": "alias",
            "name": "n",
            "actor": "a",
            "previous": previous,
        }
        previous = line["digest"] = line_digest(line)
        lines.append(line)
    assert check_chain(lines).ok
    place = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(["edit", "remove", "swap", "repeat"]))
    changed = [dict(line) for line in lines]
    if how == "edit":
        changed[place][data.draw(st.sampled_from(COLUMNS[1:]))] = "other"
    elif how == "remove":
        del changed[place]
    elif how == "swap":
        other = (place + 1) % len(lines)
        changed[place], changed[other] = changed[other], changed[place]
    else:
        changed.insert(place, dict(changed[place]))
    assert not check_chain(changed, expected_head=previous).ok


def _move(root: Path, start: multiprocessing.synchronize.Barrier, number: int) -> None:
    layout = Layout.find(root)
    start.wait()
    for turn in range(4):
        names.set_alias(layout, "triage", "prod", (number + turn) % 3 + 1, actor=f"p{number}")
        names.set_alias(layout, "triage", f"own-{number}", turn % 3 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_sixteen_processes_make_one_chain_and_lose_no_move(tmp_path: Path, backend: str) -> None:
    url = new_url(backend, tmp_path)
    (tmp_path / "workbench.toml").write_text(f'name = "test"\n[state]\nurl = "{url}"\n')
    layout = Layout.find(tmp_path)
    for number in (1, 2, 3):
        names.register(layout, "triage", digest_bytes(str(number).encode()))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(16)
    workers = [context.Process(target=_move, args=(tmp_path, start, number)) for number in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert verify_audit(layout).faults == (), "what is verified is of one moment, and what was seen never ahead"
    assert [worker.exitcode for worker in workers] == [0] * 16
    assert verify_audit(layout).faults == ()
    moves = names.history(layout, "triage")
    assert len([move for move in moves if (move.alias or "").startswith("own-")]) == 16 * 4
    prod = [move for move in moves if move.alias == "prod"]
    # Each begins where the one before it ended.
    assert [move.from_version for move in prod[1:]] == [move.to_version for move in prod[:-1]]


def test_the_commands_verify_and_export(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fill(layout)
    monkeypatch.chdir(layout.root)
    told = json.loads(CliRunner().invoke(app, ["audit", "verify", "--json"]).stdout)
    assert (told["ok"], told["lines"], told["faults"], told["notes"]) == (True, 7, [], [])
    out = tmp_path / "audit.jsonl"
    assert "7 lines" in CliRunner().invoke(app, ["audit", "export", str(out)]).stdout
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert check_chain(lines, told["head"]).ok
    assert export_audit(layout, out) == 7
    edit(layout, "UPDATE audit SET actor = 'eve' WHERE seq = 1")
    result = CliRunner().invoke(app, ["audit", "verify"])
    assert result.exit_code == 1
    assert "FAULT  line 1 (register of triage" in result.stdout
    assert "NOT sound" in result.stdout
