"""Promote: the gate, the store and the names together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.registry.conftest import CLEAR, UNCLEAR, MakeRun, pipelines
from workbench.errors import GateRefused, UsageError
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.policy import Policy
from workbench.registry.promote import promote
from workbench.registry.prompts import prompt_log, save_prompt
from workbench.workspace import Layout


def test_a_winner_gets_a_version_and_the_alias(layout: Layout, make_run: MakeRun) -> None:
    artifact = promote(layout, make_run(), "greet", "few", alias="staging", actor="ada")
    assert (artifact.name, artifact.version, artifact.aliases) == ("greet", 1, ("staging",))
    (version,) = names.ls(layout)
    assert (version.run_id, version.variant, version.decision) == ("run-1", "few", "better")
    assert [(move.kind, move.actor) for move in names.history(layout, "greet")] == [
        ("register", "ada"),
        ("alias", "ada"),
    ]


def test_a_refusal_is_on_record_and_stores_nothing(layout: Layout, make_run: MakeRun) -> None:
    run = make_run(UNCLEAR)
    with pytest.raises(GateRefused, match="The policy asks for better") as caught:
        promote(layout, run, "greet", "few", alias="prod", actor="ada")
    assert names.ls(layout) == ()
    assert not layout.blobs.exists()
    (move,) = names.history(layout, "greet")
    assert (move.kind, move.alias, move.to_version, move.actor) == ("refuse", "prod", None, "ada")
    assert move.detail["reasons"] == caught.value.reasons
    assert (move.detail["run_id"], move.detail["variant"]) == ("run-1", "few")


def test_a_later_winner_is_the_next_version_and_can_be_rolled_back(layout: Layout, make_run: MakeRun) -> None:
    for run_id in ("run-1", "run-2"):
        promote(layout, make_run(run_id=run_id), "greet", "few", alias="prod")
    assert Artifact.open(layout, "greet@prod").version == 2
    names.rollback(layout, "greet", "prod")
    prod = Artifact.open(layout, "greet@prod")
    assert (prod.version, prod.provenance["run_id"]) == (1, "run-1")


def test_a_single_variant_can_be_promoted_where_the_policy_asks_for_no_decision(
    layout: Layout, make_run: MakeRun
) -> None:
    policy = Policy.model_validate({"decision": {"minimum": "none"}})
    artifact = promote(layout, make_run({"few": [True] * 60}), "greet", "few", policy=policy)
    assert artifact.evidence()[2:] == (None, None)
    assert artifact.verify()
    assert "single variant" in dict(artifact.summary())["decision"]


@pytest.mark.parametrize(
    ("policy", "tested"),
    [
        ({"decision": {"minimum": "none"}}, False),
        ({"decision": {"minimum": "none"}, "evidence": {"required": ["model_digest"]}}, False),
        ({"decision": {"minimum": "none"}, "guard": [{"metric": "error_rate", "max": 0.01}]}, True),
        ({"decision": {"minimum": "equivalent", "margin": 0.99}}, True),
        ({}, True),
    ],
)
def test_a_gate_that_asked_nothing_has_tested_nothing(
    layout: Layout, make_run: MakeRun, policy: dict[str, Any], tested: bool
) -> None:
    save_prompt(layout, "greet", pipelines()["few"].prompt)
    run = make_run(UNCLEAR if policy and policy["decision"]["minimum"] == "none" else CLEAR)
    promote(layout, run, "greet", "few", policy=Policy.model_validate(policy))
    assert [saved.tags for saved in prompt_log(layout, "greet")] == [("tested",) if tested else ()]


def test_a_malformed_name_is_refused_before_anything_is_done(layout: Layout, make_run: MakeRun) -> None:
    for name, alias in (("Greet", None), ("greet", "1")):
        with pytest.raises(UsageError):
            promote(layout, make_run(run_id=f"run-{name}"), name, "few", alias=alias)
    assert names.ls(layout) == ()
