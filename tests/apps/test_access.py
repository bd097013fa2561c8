"""Who acts, and what their roles let them do."""

from __future__ import annotations

import os
import pwd

import pytest

from tests.registry.conftest import CLEAR, write_run
from workbench import access
from workbench.access import Viewer
from workbench.errors import AccessDenied, NotFoundError, UsageError
from workbench.registry import approvals, audit, names
from workbench.registry.aliases import move_alias
from workbench.registry.promote import promote
from workbench.state.keys import find_grant, find_key, grant, list_grants, revoke
from workbench.workspace import Layout


def test_roles_build_upon_one_another() -> None:
    editor = Viewer("ada", frozenset({"editor"}))
    assert [editor.has(role) for role in ("viewer", "editor", "admin", "auditor")] == [True, True, False, False]
    assert Viewer("root", frozenset({"admin"})).has("auditor")
    assert Viewer("ben", frozenset({"auditor"})).has("auditor")
    assert not Viewer("ben", frozenset({"auditor"})).has("viewer")


def test_on_this_machine_its_user_acts() -> None:
    assert access.current().name == access.local_user()
    assert access.current().tenants is None
    access.require("admin", "anything")


def test_the_user_is_who_the_system_says_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    assert access.local_user() == pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_123)
    assert access.local_user() == "4000000123", "a user without a name, as in some containers"


def test_where_apps_are_served_nobody_acts_who_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.SERVED, "1")
    with pytest.raises(AccessDenied, match="nobody is signed in"):
        access.current()
    with access.acting_as(Viewer("ada", frozenset({"viewer"}))):
        assert access.current().name == "ada"


def test_a_viewer_moves_nothing_and_an_editor_does_it_in_their_own_name(layout: Layout) -> None:
    run = write_run(layout, CLEAR)
    viewer, editor = Viewer("vera", frozenset({"viewer"})), Viewer("ed", frozenset({"editor"}))
    with access.acting_as(viewer), pytest.raises(AccessDenied, match="vera may not promote: it takes the role editor"):
        promote(layout, run, "greet", "few")
    assert names.ls(layout) == ()
    with access.acting_as(editor):
        promote(layout, run, "greet", "few", alias="prod")
        promote(layout, write_run(layout, CLEAR, run_id="run-2"), "greet", "few", alias="prod")
    with access.acting_as(viewer):
        with pytest.raises(AccessDenied):
            move_alias(layout, "greet@1", "prod")
        with pytest.raises(AccessDenied):
            names.rollback(layout, "greet", "prod")
    assert names.resolve(layout, "greet@prod").version == 2
    assert {move.actor for move in names.history(layout, "greet")} == {"ed"}


def test_an_approval_is_that_of_who_signed_in(layout: Layout) -> None:
    (layout.root / "workbench.toml").write_text('[roles]\nreviewer = ["vera"]\n')
    layout = Layout.find(layout.root)
    promote(layout, write_run(layout, CLEAR), "greet", "few")
    with access.acting_as(Viewer("vera", frozenset({"viewer"}))):
        approvals.approve(layout, "greet@1", "reviewer")
    assert [consent.actor for consent in approvals.approvals(layout, "greet", 1)] == ["vera"]
    with access.acting_as(Viewer("ben", frozenset({"admin"}))), pytest.raises(UsageError, match="ben is not reviewer"):
        approvals.approve(layout, "greet@1", "reviewer")


def test_a_key_is_shown_once_and_kept_as_a_digest(layout: Layout) -> None:
    key = grant(layout.state_url, "ada", ["editor", "viewer"], tenants=["acme", "acme"])
    found = find_key(layout.state_url, key)
    assert found is not None
    assert found.viewer == Viewer("ada", frozenset({"editor", "viewer"}), ("acme",))
    state = (layout.root / ".workbench" / "state.sqlite").read_bytes()
    assert key.encode() not in state
    assert key.split("_", 2)[2].encode() not in state, "a secret may hold an underscore too"
    assert found.id.encode() in state
    for wrong in (key[:-1] + ("A" if key[-1] != "A" else "B"), key[:-1], "wbk_" + "0" * 12 + key[16:], "", "x" * 99):
        assert find_key(layout.state_url, wrong) is None


def test_a_revoked_key_is_none_and_both_are_in_the_audit(layout: Layout) -> None:
    url = layout.state_url
    keys = [grant(url, "ada", ["viewer"]), grant(url, "ada", ["editor"]), grant(url, "ben", ["viewer"])]
    ids = [found.id for key in keys if (found := find_key(url, key))]
    assert sorted(revoke(url, "ada")) == sorted(ids[:2])
    assert [find_key(url, key) is None for key in keys] == [True, True, False]
    assert [find_grant(url, key_id) is None for key_id in ids] == [True, True, False]
    assert [(g.viewer.name, g.revoked_at is None) for g in list_grants(url)] == [
        ("ada", False),
        ("ada", False),
        ("ben", True),
    ]
    with pytest.raises(NotFoundError, match="no key in force is called ada"):
        revoke(url, "ada")
    assert [move.kind for move in names.history(layout, "access/ada")] == ["grant", "grant", "revoke", "revoke"]
    assert audit.verify_audit(layout).faults == ()


@pytest.mark.parametrize(
    ("person", "roles", "message"),
    [
        ("", ["viewer"], "no name"),
        ("a b", ["viewer"], "no name"),
        ("ada", [], "needs a role"),
        ("ada", ["A"], "no role"),
    ],
)
def test_a_key_for_nobody_or_nothing_is_not_made(layout: Layout, person: str, roles: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grant(layout.state_url, person, roles)
