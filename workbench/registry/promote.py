"""Promote: from a run through the gate to a named, versioned artifact."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import access
from workbench.registry import names
from workbench.registry.aliases import move_alias
from workbench.registry.artifact import Artifact
from workbench.registry.build import build, evaluated_pipeline, part_files
from workbench.registry.gate import judge
from workbench.registry.oci import OciLayout
from workbench.registry.policy import Policy, find_policy
from workbench.registry.prompts import tag_tested
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.experiments.run import Run


def promote(
    layout: Layout,
    run: Run,
    name: str,
    variant: str,
    *,
    baseline: str | None = None,
    alias: str | None = None,
    policy: Policy | str | Path | None = None,
    actor: str | None = None,
    at: datetime | None = None,
) -> Artifact:
    """Store a variant that the gate lets pass, under the next version of `name`, and point `alias` at it.

    A refusal is on record in the name's history and stores nothing. Promoting the same evidence again gives the version
    that is there. An alias with a policy of its own (`policies/ALIAS.toml`) holds it against the version that was stored:
    where it refuses, the version stays, and can be approved. Kept versions of the variant's prompt are tagged `tested`
    where the policy asked for a decision or bounded a metric.

    Args:
        baseline: the variant to be compared with; the first other one by default.
        policy: a policy or its file; the workspace's `policies/default.toml` by default.
        actor: who does it; the user of this process by default.

    Raises:
        AccessDenied: who is signed in is no editor.
        GateRefused: with a reason for each check that failed.
        NotFoundError: no such variant or policy file.
        UsageError: the name or the alias is malformed.
        IntegrityError: what was kept of the run, such as its notebook, is damaged.
    """
    access.require("editor", "promote")
    names.check_name(name)
    if alias is not None:
        names.check_alias(alias)
    verdict = judge(run, find_policy(layout, policy), variant, baseline)
    result = verdict.result
    if not result.passed:
        detail = {
            "run_id": run.id,
            "variant": variant,
            "policy_digest": result.policy.digest,
            "reasons": result.reasons,
        }
        names.record_refusal(layout, name, alias, detail, actor=actor, at=at)
        result.raise_if_refused()
    pipeline = evaluated_pipeline(run.manifest, variant)
    digest = build(
        OciLayout(layout.blobs),
        run,
        variant,
        parts=part_files(layout, pipeline),
        baseline=result.baseline,
        comparison=verdict.comparison.to_json() if verdict.comparison else None,
        decision=verdict.decision.to_json() if verdict.decision else None,
        gate=result.to_json(),
    )
    version = names.register(
        layout,
        name,
        digest,
        run_id=run.id,
        variant=variant,
        decision=verdict.decision.outcome if verdict.decision else None,
        actor=actor,
        at=at,
    )
    if result.policy.judges:
        tag_tested(layout, pipeline.prompt, run.id, variant, actor=actor, at=at)
    if alias is not None:
        move_alias(layout, f"{name}@{version}", alias, actor=actor, at=at)
    return Artifact.open(layout, f"{name}@{version}")
