"""Moving aliases: what a policy of an alias asks, approvals, and where an alias pointed at a time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import CLEAR, MakeRun, pipelines
from workbench.errors import DataError, GateRefused, IntegrityError, NotFoundError, UsageError
from workbench.pipeline.prompt import Prompt
from workbench.registry import aliases, build, names
from workbench.registry.aliases import check_alias_move, move_alias, roll_back
from workbench.registry.approvals import approvals, approve
from workbench.registry.artifact import Artifact
from workbench.registry.gate import judge
from workbench.registry.policy import Policy, alias_policy
from workbench.registry.promote import promote
from workbench.workspace import Layout

ENDED = datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC)


def write_policy(layout: Layout, alias: str, text: str) -> None:
    layout.policies.mkdir(exist_ok=True)
    (layout.policies / f"{alias}.toml").write_text(f"format_version = 1\n{text}")


def with_roles(layout: Layout, **roles: list[str]) -> Layout:
    lines = [f"{role} = {members!r}" for role, members in roles.items()]
    (layout.root / "workbench.toml").write_text("\n".join(['name = "test"', "[roles]", *lines, ""]).replace("'", '"'))
    return Layout.find(layout.root)


def refused(layout: Layout, reference: str, alias: str, **options: Any) -> list[str]:
    with pytest.raises(GateRefused) as caught:
        move_alias(layout, reference, alias, **options)
    return caught.value.reasons


def test_an_alias_without_a_policy_takes_any_version(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    assert move_alias(layout, "greet@1", "staging").aliases == ("staging",)
    assert alias_policy(layout, "staging") is None


def test_a_refused_promotion_to_an_alias_keeps_the_version_and_is_on_record(layout: Layout, make_run: MakeRun) -> None:
    layout = with_roles(layout, reviewer=["ada", "ben"])
    write_policy(layout, "prod", '[[approval]]\nrole = "reviewer"\ncount = 2\n')
    with pytest.raises(GateRefused, match="approval by reviewer: 0 of 2"):
        promote(layout, make_run(), "greet", "few", alias="prod", actor="carl")
    assert [version.version for version in names.ls(layout)] == [1]
    assert [(move.kind, move.alias, move.actor) for move in names.history(layout, "greet")] == [
        ("register", None, "carl"),
        ("refuse", "prod", "carl"),
    ]


def test_people_of_a_role_approve_and_each_counts_once(layout: Layout, make_run: MakeRun) -> None:
    layout = with_roles(layout, reviewer=["ada", "ben"], owner=["carl"])
    write_policy(layout, "prod", '[[approval]]\nrole = "reviewer"\ncount = 2\n')
    promote(layout, make_run(), "greet", "few")
    for _ in range(2):
        approve(layout, "greet", "reviewer", actor="ada", comment="read it")
    [reason] = refused(layout, "greet@1", "prod")
    assert reason.startswith("approval by reviewer: 1 of 2 (ada); with: workbench artifact approve greet@1")
    with pytest.raises(UsageError, match=r"carl is not reviewer.*reviewer is: ada, ben"):
        approve(layout, "greet", "reviewer", actor="carl")
    with pytest.raises(UsageError, match=r"\[roles\] judge"):
        approve(layout, "greet", "judge", actor="ada")
    approve(layout, "greet@1", "reviewer", actor="ben")
    assert [(consent.actor, consent.comment) for consent in approvals(layout, "greet", 1)] == [
        ("ada", "read it"),
        ("ben", ""),
    ]
    assert move_alias(layout, "greet@1", "prod", actor="carl").aliases == ("prod",)
    kinds = [(move.kind, move.actor) for move in names.history(layout, "greet")]
    assert kinds == [
        ("register", names.current_user()),
        ("approve", "ada"),
        ("refuse", names.current_user()),
        ("approve", "ben"),
        ("alias", "carl"),
    ]
    # Whoever has lost the role no longer counts.
    fewer = with_roles(layout, reviewer=["ben"])
    assert refused(fewer, "greet@1", "prod")[0].startswith("approval by reviewer: 1 of 2 (ben)")


def test_old_evidence_is_refused(layout: Layout, make_run: MakeRun) -> None:
    write_policy(layout, "prod", "[evidence]\nmax_age_days = 30\n")
    promote(layout, make_run(), "greet", "few")
    assert refused(layout, "greet", "prod", at=ENDED + timedelta(days=31)) == [
        "age: the run ended 31.0 days ago, at most 30 allowed"
    ]
    assert move_alias(layout, "greet", "prod", at=ENDED + timedelta(days=29)).version == 1


def test_a_test_of_the_policy_must_end_well(layout: Layout, make_run: MakeRun) -> None:
    code = "import os, sys; print(os.environ['WORKBENCH_ARTIFACT']); sys.exit(os.path.exists('fail'))"
    write_policy(layout, "prod", f"[[test]]\nname = 'smoke'\ncommand = [{sys.executable!r}, '-c', {code!r}]\n")
    promote(layout, make_run(), "greet", "few")
    (layout.root / "fail").touch()
    assert refused(layout, "greet", "prod") == ["test smoke: exit code 1: greet@1"]
    (layout.root / "fail").unlink()
    assert move_alias(layout, "greet", "prod").aliases == ("prod",)


def test_a_test_that_hangs_or_cannot_start_is_a_refusal(layout: Layout, make_run: MakeRun) -> None:
    text = "[[test]]\nname = 'slow'\ncommand = ['sleep', '9']\ntimeout_s = 0.1\n[[test]]\nname = 'gone'\ncommand = ['nowhere']\n"
    write_policy(layout, "prod", text)
    promote(layout, make_run(), "greet", "few")
    slow, gone = refused(layout, "greet", "prod")
    assert slow == "test slow: not done after 0.1 s"
    assert gone.startswith("test gone: could not be evaluated:")


def test_what_is_compared_with_is_what_the_alias_points_at(layout: Layout, make_run: MakeRun) -> None:
    write_policy(layout, "prod", "[decision]\nagainst = 'alias'\n")
    base, few = pipelines().values()
    promote(layout, make_run(), "greet", "few", alias="prod")
    best = few.with_(prompt=Prompt.from_text("## system\nBe right.\n\n## user\n{{ text }}"))
    right = {"base": [True] * 20 + [False] * 40, "best": [True] * 58 + [False] * 2}
    promote(layout, make_run(right, run_id="run-2", variants={"base": base, "best": best}), "greet", "best")
    assert refused(layout, "greet@2", "prod") == [
        "against: the run did not ask greet@1, to which prod points: make it a variant of the run"
    ]
    three = {"base": right["base"], "few": CLEAR["few"], "best": right["best"]}
    variants = {"base": base, "few": few, "best": best}
    promote(layout, make_run(three, run_id="run-3", variants=variants), "greet", "best")
    result = check_alias_move(
        layout, names.resolve(layout, "greet@3"), "prod", Policy.from_file(layout.policies / "prod.toml")
    )
    assert result.passed
    assert result.baseline == "few"
    assert "compared with few, which is greet@1" in str(result)
    # What is taken out of the artifact is the same pipeline, held to its model.
    taken_out = Artifact.open(layout, "greet@1").pipeline()
    assert taken_out.digest != few.digest
    variants = {"base": base, "few": taken_out, "best": best}
    promote(layout, make_run(three, run_id="run-4", variants=variants), "greet", "best")
    result = check_alias_move(
        layout, names.resolve(layout, "greet@4"), "prod", Policy.from_file(layout.policies / "prod.toml")
    )
    assert result.passed
    assert move_alias(layout, "greet@3", "prod").version == 3
    assert refused(layout, "greet@3", "prod") == ["against: greet@3, to which prod points, is the same pipeline"]


def test_an_alias_that_was_moved_meanwhile_is_left_there(
    layout: Layout, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(layout, "prod", "")
    for number in (1, 2):
        promote(layout, make_run(run_id=f"run-{number}"), "greet", "few")
    judged = aliases.check_alias_move

    def and_somebody_else_moves_it(*arguments: Any, **options: Any) -> Any:
        names.set_alias(layout, "greet", "prod", 2, actor="eve")
        return judged(*arguments, **options)

    monkeypatch.setattr(aliases, "check_alias_move", and_somebody_else_moves_it)
    with pytest.raises(GateRefused, match="was moved while the policy was held against version 1"):
        move_alias(layout, "greet@1", "prod")
    assert names.resolve(layout, "greet@prod").version == 2
    assert [(move.kind, move.actor) for move in names.history(layout, "greet")][-2:] == [
        ("alias", "eve"),
        ("refuse", names.current_user()),
    ]


@pytest.fixture
def two(layout: Layout, make_run: MakeRun) -> Layout:
    """`greet@prod` is version 2, and was version 1."""
    for number in (1, 2):
        promote(layout, make_run(run_id=f"run-{number}"), "greet", "few", alias="prod")
    return layout


def not_rolled_back(layout: Layout, **options: Any) -> str:
    with pytest.raises(GateRefused) as caught:
        roll_back(layout, "greet", "prod", **options)
    assert names.resolve(layout, "greet@prod").version == 2
    move = names.history(layout, "greet")[-1]
    assert (move.kind, move.alias, move.detail["version"]) == ("refuse", "prod", 1)
    assert move.detail["reasons"] == caught.value.reasons
    [reason] = caught.value.reasons
    assert reason.endswith("; go to another version with: workbench artifact alias greet@VERSION prod")
    return reason


def test_a_rollback_asks_nothing_of_a_version_that_is_whole(two: Layout) -> None:
    write_policy(two, "prod", "[decision]\nmin_rows = 1000\n[[approval]]\nrole = 'reviewer'\n")
    assert roll_back(two, "greet", "prod", actor="ada").version == 1
    move = names.history(two, "greet")[-1]
    assert (move.kind, move.from_version, move.to_version, move.actor) == ("rollback", 2, 1, "ada")
    with pytest.raises(NotFoundError, match="always pointed at version 1"):
        roll_back(two, "greet", "prod")


@pytest.mark.parametrize("part", ["prompt.json", "evidence/calls.parquet", "manifest"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_nothing_goes_back_to_a_damaged_version(two: Layout, part: str, how: str) -> None:
    artifact = Artifact.open(two, "greet@1")
    path = artifact.store.blob_path(artifact.digest if part == "manifest" else artifact.layers[part].digest)
    # Both versions have the prompt, and either may go back to nothing that is damaged.
    path.write_bytes(b"other") if how == "changed" else path.unlink()
    said = not_rolled_back(two)
    assert said.startswith("greet@1 (")
    assert part in said
    assert ("is missing" if how == "gone" else "does not match its digest") in said


def test_nothing_goes_back_to_a_version_that_is_not_signed_as_the_alias_asks(two: Layout, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    pytest.importorskip("cyclonedx")
    from workbench.registry.keys import PrivateKey
    from workbench.registry.sign import sign_artifact

    team, other = (PrivateKey.new(tmp_path / name) for name in ("team.pem", "other.pem"))
    write_policy(two, "prod", "[signature]\nkeys = ['team.pem.pub']\n")
    sign_artifact(Artifact.open(two, "greet@1"), other)
    assert "greet@1 is signed by 0 of 1 keys, at least 1 asked for" in not_rolled_back(two)
    sign_artifact(Artifact.open(two, "greet@1"), team)
    assert roll_back(two, "greet", "prod").version == 1


def test_a_rollback_whose_signatures_cannot_be_looked_at_is_refused(two: Layout) -> None:
    write_policy(two, "prod", "[signature]\nkeys = ['nowhere.pub']\n")
    assert "the signatures of greet@1 cannot be verified: " in not_rolled_back(two)
    write_policy(two, "prod", "[signature]\nkey = ['nowhere.pub']\n")
    with pytest.raises(DataError, match=r"prod\.toml"):
        roll_back(two, "greet", "prod")


def test_a_rollback_undoes_nobody_else_s_move(two: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="points at version 2 by now, not at 1"):
        roll_back(two, "greet", "prod", was=1)
    verify = Artifact.verify

    def and_somebody_else_moves_it(artifact: Artifact) -> Any:
        names.set_alias(two, "greet", "prod", 1, actor="eve")
        names.set_alias(two, "greet", "prod", 2, actor="eve")
        names.set_alias(two, "greet", "prod", 1, actor="eve")
        return verify(artifact)

    monkeypatch.setattr(Artifact, "verify", and_somebody_else_moves_it)
    with pytest.raises(UsageError, match="points at version 1 by now, not at 2: somebody moved it"):
        roll_back(two, "greet", "prod")
    assert names.history(two, "greet")[-1].actor == "eve"


def test_a_rollback_goes_where_it_looked(two: Layout) -> None:
    with pytest.raises(UsageError, match="goes back to version 1 by now, not to 7: somebody moved it"):
        names.rollback(two, "greet", "prod", was=2, to=7)


def test_a_gate_of_a_run_alone_cannot_say_what_is_asked_of_a_version(layout: Layout, make_run: MakeRun) -> None:
    policy = Policy.model_validate({"approval": [{"role": "reviewer"}], "test": [{"name": "t", "command": ["true"]}]})
    reasons = judge(make_run(), policy, "few").result.reasons
    assert [reason.partition(":")[0] for reason in reasons] == ["approval by reviewer", "test t"]
    assert "move the alias" in reasons[0]


def test_where_an_alias_pointed_at_a_time(layout: Layout, make_run: MakeRun) -> None:
    days = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 9)]
    for number in (1, 2):
        promote(layout, make_run(run_id=f"run-{number}"), "greet", "few", at=days[0])
    names.set_alias(layout, "greet", "prod", 1, actor="ada", at=days[1])
    names.set_alias(layout, "greet", "prod", 2, actor="ben", at=days[3])
    names.rollback(layout, "greet", "prod", actor="carl", at=days[5])
    found = [names.alias_at(layout, "greet", "prod", day) for day in days[2:8]]
    assert [(move.to_version, move.actor) for move in found] == [
        (1, "ada"),
        (2, "ben"),
        (2, "ben"),
        (1, "carl"),
        (1, "carl"),
        (1, "carl"),
    ]
    with pytest.raises(NotFoundError, match="pointed nowhere at 2026-03-01T"):
        names.alias_at(layout, "greet", "prod", days[0])


def test_an_artifact_carries_its_run(layout: Layout, make_run: MakeRun) -> None:
    run = make_run()
    artifact = promote(layout, run, "greet", "few")
    found = artifact.run()
    assert found.manifest == run.manifest
    assert found.complete
    assert str(found.compare("base").decision("few")) == str(run.compare("base").decision("few"))
    artifact.store.blob_path(artifact.layers[build.RUN].digest).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match=r"evidence/run\.json"):
        Artifact.open(layout, "greet").run()


def test_a_broken_policy_of_an_alias_lets_nothing_pass(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    write_policy(layout, "prod", "[evidence]\nmax_age_day = 30\n")
    with pytest.raises(DataError, match=r"prod\.toml.*max_age_day"):
        move_alias(layout, "greet", "prod")
    assert names.resolve(layout, "greet").aliases == ()
