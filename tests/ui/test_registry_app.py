"""The registry's page: what it shows of a version, who may move what, and whose name a move carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import CLEAR, UNCLEAR, pipelines, write_run
from workbench import access, api
from workbench.access import Viewer, acting_as
from workbench.errors import AccessDenied, DataError, IntegrityError, NotFoundError, UsageError
from workbench.pipeline.prompt import Prompt
from workbench.registry import build, names
from workbench.registry.aliases import move_alias
from workbench.registry.approvals import approvals
from workbench.registry.artifact import Artifact
from workbench.registry.policy import DecisionPolicy, Policy
from workbench.registry.promote import promote
from workbench.ui import lab, registry_app
from workbench.ui import registry_app_moves as moves
from workbench.workspace import Layout

ADA = Viewer("ada", frozenset({"editor"}))
VERA = Viewer("vera", frozenset({"viewer"}))
TOM = Viewer("tom", frozenset({"viewer"}), ("acme",))
LOOSE = Policy(decision=DecisionPolicy(minimum="none", min_rows=1))


def of_tenants(call: dict[str, Any]) -> dict[str, Any]:
    tenant = ("acme", "globex", None)[int(call["row_id"][4:]) % 3]
    return call | {"tenant": tenant, "output": f"{call['output']} of {tenant}"}


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    """Two versions of `greet`: staging points at the second, and pointed at the first."""
    (tmp_path / "workbench.toml").write_text('name = "test"\n[roles]\nreviewer = ["ada"]\n')
    workspace = api.open(tmp_path)
    layout = workspace.layout
    first = write_run(layout, CLEAR, run_id="run-1", edit=of_tenants)
    other = pipelines()["few"].with_(prompt=Prompt.from_text("## system\nBe kind.\n\n## user\n{{ text }}"))
    variants = {"base": pipelines()["base"], "few": other}
    second = write_run(layout, UNCLEAR, run_id="run-2", variants=variants, edit=of_tenants)
    for run in (first, second):
        promote(layout, run, "greet", "few", policy=LOOSE, alias="staging")
    return workspace


def artifact(workspace: api.Workspace, version: int = 2) -> Artifact:
    return registry_app.open_version(workspace.layout, f"greet@{version}")


def test_an_empty_registry_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    layout = Layout.find(tmp_path)
    assert registry_app.versions(layout) == ()
    table = registry_app.version_table(())
    assert len(table) == 0
    assert registry_app.place_of(table, "greet") is None
    assert "workbench demo" in str(registry_app.nothing_yet())


def test_versions_are_listed_newest_first(workspace: api.Workspace) -> None:
    table = registry_app.version_table(registry_app.versions(workspace.layout))
    assert table.select("artifact", "aliases", "decision", "run", "variant").rows() == [
        ("greet@2", "staging", "inconclusive", "run-2", "few"),
        ("greet@1", "", "better", "run-1", "few"),
    ]
    assert registry_app.place_of(table, "greet@1") == [1]
    assert registry_app.place_of(table, "greet") == [0]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("Summary", ["run-2, variant few over base", "parts are as they were stored"]),
        ("Evidence", ["inconclusive", "120 calls of base, few, scored by exact", "adjusted p"]),
        ("Gate", ["checks passed", "complete"]),
        ("History", ["moved staging from version 1 to version 2", "stored version 2", "Nobody approved it yet"]),
        ("Lineage", ["greet@2"]),
    ],
)
def test_each_part_of_a_version(workspace: api.Workspace, part: str, said: list[str]) -> None:
    shown = registry_app.part(workspace, artifact(workspace), part)
    text = " ".join(str(item) if isinstance(item, lab.Html) else item._repr_html_() for item in shown if _html(item))
    for words in said:
        assert words in text


def _html(item: Any) -> bool:
    return isinstance(item, lab.Html) or hasattr(type(item), "_repr_html_")


def test_damage_is_named_and_other_versions_are_still_there(workspace: api.Workspace) -> None:
    found = artifact(workspace)
    blob = found.store.blob_path(found.layers[build.SCORES].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"other bytes")
    assert build.SCORES in str(registry_app.integrity(found))
    with pytest.raises(IntegrityError):
        registry_app.part(workspace, found, "Evidence")
    assert "All" in str(registry_app.integrity(artifact(workspace, 1)))


def test_differences_show_prompts_and_rows(workspace: api.Workspace) -> None:
    assert registry_app.others(workspace.layout, artifact(workspace)) == ["greet@1"]
    found = registry_app.differences(workspace.layout, "greet@1", "greet@2")
    assert "Changed from greet@1 to greet@2: prompt" in str(found.said)
    assert "0 got better and 19 got worse" in str(found.said)
    assert set(found.rows["change"]) == {"broke"}
    assert "Be kind." in found.diff._repr_html_()
    with pytest.raises(NotFoundError):
        registry_app.differences(workspace.layout, "greet@9", "greet@2")


def test_answers_of_other_tenants_are_in_no_difference(workspace: api.Workspace) -> None:
    with acting_as(TOM):
        found = registry_app.differences(workspace.layout, "greet@1", "greet@2")
        assert "of other tenants" in str(found.said)
        assert "19 got worse" in str(found.said)
        text = json.dumps(found.rows.to_dicts()) + found.diff._repr_html_()
        assert "of acme" in text
        assert "globex" not in text
        assert "of None" not in text
        comparison = registry_app.comparison_of(artifact(workspace))
        assert comparison is not None
        assert comparison.calls is not None
        assert set(comparison.calls["tenant"]) == {"acme"}


def test_what_can_be_done_with_an_alias_is_said_before(workspace: api.Workspace) -> None:
    move, back = moves.offers(workspace.layout, artifact(workspace), "staging")
    assert (move.to, back.to) == (None, 1)
    assert move.said == "staging points at version 2 already."
    assert back.said == "Rolled back, staging goes from version 2 to version 1."
    move, back = moves.offers(workspace.layout, artifact(workspace), "prod")
    assert (move.now, move.to, back.to) == (None, 2, None)
    assert back.said == "prod points nowhere, so there is nothing to roll back."
    # What is said above the buttons is not said again below them.
    assert str(moves.what_would_happen((move, back))).count("nothing to roll back") == 1
    assert "nothing to roll back" not in str(moves.why_not((move, back)))
    with access.acting_as(access.Viewer("vera", frozenset({"viewer"}))):
        assert "it takes the role editor" in str(moves.why_not((move, back)))
    assert (move.confirm, back.confirm) == (True, True)
    assert not moves.offers(workspace.layout, artifact(workspace, 1), "canary")[0].confirm


@pytest.mark.parametrize("alias", ["", None, "Not An Alias", "3"])
def test_an_alias_that_is_none_is_refused(workspace: api.Workspace, alias: str | None) -> None:
    with pytest.raises(UsageError, match="alias"):
        moves.offers(workspace.layout, artifact(workspace), alias)


def test_an_editor_moves_and_rolls_back_in_their_own_name(workspace: api.Workspace) -> None:
    layout = workspace.layout
    with acting_as(ADA):
        move, _ = moves.offers(layout, artifact(workspace, 1), "prod")
        assert moves.refusal(move) == ""
        assert "ada moved prod to greet@1" in str(moves.carry_out(layout, "greet@1", move))
        _, back = moves.offers(layout, artifact(workspace), "staging")
        assert "ada rolled staging back to greet@1" in str(moves.carry_out(layout, "greet@2", back))
        moves.approve_version(layout, "greet@1", "reviewer", " read it ")
    done = [(move.kind, move.alias, move.to_version, move.actor) for move in names.history(layout, "greet")[-3:]]
    assert done == [("alias", "prod", 1, "ada"), ("rollback", "staging", 1, "ada"), ("approve", None, 1, "ada")]
    assert [(who.actor, who.comment) for who in approvals(layout, "greet", 1)] == [("ada", "read it")]


def test_the_offer_to_roll_back_is_what_rolling_back_does(workspace: api.Workspace) -> None:
    layout = workspace.layout
    for version in (1, 2, 1):
        move_alias(layout, f"greet@{version}", "prod")
    seen = []
    while (back := moves.offers(layout, artifact(workspace), "prod")[1]).to is not None:
        moves.carry_out(layout, "greet@2", back)
        assert names.alias_version(layout, "greet", "prod") == back.to
        seen.append(back.to)
    assert seen == [2, 1]


def test_a_viewer_is_told_why_and_refused_all_the_same(workspace: api.Workspace) -> None:
    layout = workspace.layout
    before = names.history(layout, "greet")
    with acting_as(VERA):
        for offer in (
            moves.offers(layout, artifact(workspace, 1), "prod")[0],
            moves.offers(layout, artifact(workspace), "staging")[1],
        ):
            assert "it takes the role editor" in moves.refusal(offer)
            with pytest.raises(AccessDenied, match="takes the role editor"):
                moves.carry_out(layout, "greet@1", offer)
        # Nor by the functions underneath.
        with pytest.raises(AccessDenied):
            move_alias(layout, "greet@1", "prod")
        with pytest.raises(AccessDenied):
            names.rollback(layout, "greet", "staging")
        assert moves.own_roles(layout) == []
        with pytest.raises(UsageError, match="vera is not reviewer"):
            moves.approve_version(layout, "greet@1", "reviewer", "")
        assert isinstance(moves.attempt(lambda: moves.carry_out(layout, "greet@1", offer)), lab.Problem)
    assert names.history(layout, "greet") == before


def test_an_alias_that_somebody_moved_meanwhile_is_left_alone(workspace: api.Workspace) -> None:
    layout = workspace.layout
    move, _ = moves.offers(layout, artifact(workspace, 1), "prod")
    move_alias(layout, "greet@2", "prod")
    with pytest.raises(UsageError, match="points at version 2 by now"):
        moves.carry_out(layout, "greet@1", move)
    assert names.alias_version(layout, "greet", "prod") == 2


def test_nothing_is_rolled_back_to_a_damaged_version(workspace: api.Workspace) -> None:
    layout, first = workspace.layout, artifact(workspace, 1)
    first.store.blob_path(first.layers["prompt.json"].digest).write_bytes(b"other")
    back = moves.offers(layout, artifact(workspace), "staging")[1]
    with acting_as(ADA):
        said = str(moves.attempt(lambda: moves.carry_out(layout, "greet@2", back)))
    assert "Refused, and the refusal is on record." in said
    assert "prompt.json" in said
    assert names.alias_version(layout, "greet", "staging") == 2
    assert (names.history(layout, "greet")[-1].kind, names.history(layout, "greet")[-1].actor) == ("refuse", "ada")


def test_a_refusal_shows_its_reasons_and_is_on_record(workspace: api.Workspace) -> None:
    layout = workspace.layout
    layout.policies.mkdir()
    (layout.policies / "prod.toml").write_text('format_version = 1\n[[approval]]\nrole = "reviewer"\n')
    assert "prod" in moves.known_aliases(layout, "greet")
    with acting_as(ADA):
        verdict = str(moves.policy_verdict(layout, artifact(workspace, 1), "prod"))
        assert "The gate refuses few" in verdict
        assert "approval by reviewer" in verdict
        move, _ = moves.offers(layout, artifact(workspace, 1), "prod")
        said = str(moves.attempt(lambda: moves.carry_out(layout, "greet@1", move)))
        assert "Refused, and the refusal is on record" in said
        assert "0 of 1" in said
        assert "was refused a move of prod to version 1" in str(registry_app.history(layout, "greet"))
        moves.approve_version(layout, "greet@1", "reviewer", "")
        assert "ada moved prod" in str(moves.attempt(lambda: moves.carry_out(layout, "greet@1", move)))


def test_the_tests_of_a_policy_run_only_for_an_editor_who_asks(workspace: api.Workspace, tmp_path: Path) -> None:
    layout, ran = workspace.layout, tmp_path / "ran"
    layout.policies.mkdir()
    test = f'[[test]]\nname = "smoke"\ncommand = ["touch", "{ran}"]\n'
    (layout.policies / "prod.toml").write_text(f"format_version = 1\n{test}")
    assert moves.needed(layout, "prod", "button") == ["button"]
    assert moves.needed(layout, "staging", "button") == []
    assert "runs commands (smoke)" in str(moves.policy_verdict(layout, artifact(workspace, 1), "prod"))
    with acting_as(VERA), pytest.raises(AccessDenied):
        moves.policy_verdict(layout, artifact(workspace, 1), "prod", run_tests=True)
    assert not ran.exists()
    with acting_as(ADA):
        assert "test smoke" in str(moves.policy_verdict(layout, artifact(workspace, 1), "prod", run_tests=True))
    assert ran.exists()


def test_a_malformed_policy_is_an_error_to_read(workspace: api.Workspace) -> None:
    workspace.layout.policies.mkdir()
    (workspace.layout.policies / "prod.toml").write_text("min_row = 3\n")
    with pytest.raises(DataError, match="min_row"):
        moves.policy_verdict(workspace.layout, artifact(workspace), "prod")
    assert moves.needed(workspace.layout, "prod", "button") == []
