"""Moving an alias: what its policy asks of a version, held against the version's own evidence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import datetime
from functools import partial

from workbench import access
from workbench.errors import GateRefused, IntegrityError, NotFoundError
from workbench.registry import names
from workbench.registry.approvals import approvals, counted
from workbench.registry.artifact import Artifact
from workbench.registry.gate import Finding, GateResult, judge
from workbench.registry.policy import ApprovalPolicy, Policy, SignaturePolicy, TestPolicy, alias_policy
from workbench.workspace import Layout

# Characters of what a failed test said.
_TAIL = 300


def move_alias(
    layout: Layout,
    reference: str,
    alias: str,
    *,
    policy: Policy | None = None,
    actor: str | None = None,
    at: datetime | None = None,
) -> names.NamedVersion:
    """Point an alias at a version, if the alias's policy (`policies/ALIAS.toml`) lets it. A refusal is on record.

    An alias without a policy takes any version: what was promoted here passed a gate here, and what was pulled passed one
    wherever it was made, if at all.

    Args:
        policy: in place of the alias's own.

    Raises:
        AccessDenied: who is signed in is no editor.
        GateRefused: with the reasons.
        NotFoundError: no such artifact.
        IntegrityError: the version's evidence is damaged, or from before runs were kept with it.
    """
    access.require("editor", "move an alias")
    names.check_alias(alias)
    found = names.resolve(layout, reference)
    policy = policy or alias_policy(layout, alias)
    # What is decided holds for where the alias points now: whoever moves it meanwhile is not undone.
    was = names.alias_version(layout, found.name, alias)
    if policy is None:
        return names.set_alias(layout, found.name, alias, found.version, actor=actor, at=at)
    result = check_alias_move(layout, found, alias, policy, now=at)
    held = {"policy_digest": policy.digest}
    try:
        result.raise_if_refused()
        return names.set_alias(layout, found.name, alias, found.version, actor=actor, at=at, detail=held, was=was)
    except GateRefused as error:
        about = {"run_id": result.run_id, "variant": result.variant, "version": found.version, **held}
        names.record_refusal(layout, found.name, alias, {**about, "reasons": error.reasons}, actor=actor, at=at)
        raise


def roll_back(
    layout: Layout,
    name: str,
    alias: str,
    *,
    actor: str | None = None,
    at: datetime | None = None,
    was: int | None = None,
) -> names.NamedVersion:
    """Point an alias back at the version before the present one, if its bytes are whole and it is signed as the alias asks.

    Nothing else of the alias's policy is asked: the alias has been there before. All of the version is hashed. Signatures
    without a key are held against Sigstore's trust root as it is kept here. A refusal is on record.

    Args:
        was: the version that it must point at until then; by default any.

    Raises:
        AccessDenied: who is signed in is no editor.
        GateRefused: the version is damaged, or not signed as `[signature]` of the alias's policy asks.
        NotFoundError: no such alias, or it never pointed anywhere else.
        UsageError: it does not point at `was`, or was moved meanwhile.
        DataError: the alias's policy is malformed.
    """
    access.require("editor", "roll back")
    now, before = names.way_back(layout, name, alias, was=was)
    policy = alias_policy(layout, alias)
    found = names.resolve(layout, f"{name}@{before}")
    if fault := _unfit(layout, found, policy.signature if policy else None):
        reason = f"{fault}; go to another version with: workbench artifact alias {name}@VERSION {alias}"
        about = {"version": before, "rollback": True, "reasons": [reason]}
        names.record_refusal(layout, name, alias, about, actor=actor, at=at)
        raise GateRefused([reason])
    return names.rollback(layout, name, alias, actor=actor, at=at, was=now, to=before)


def _unfit(layout: Layout, found: names.NamedVersion, wanted: SignaturePolicy | None) -> str | None:
    """Why nothing may go back to a version; None where it may."""
    try:
        if wanted is None:
            Artifact.open(layout, f"{found.name}@{found.version}").verify()
            return None
        passed, said = _signed(layout, found, wanted, offline=True)
        return None if passed else f"{found.name}@{found.version} is {said}"
    except IntegrityError as error:
        return error.message
    except Exception as error:  # what cannot be looked at must not be gone back to
        return f"the signatures of {found.name}@{found.version} cannot be verified: {error or type(error).__name__}"


def check_alias_move(
    layout: Layout, found: names.NamedVersion, alias: str, policy: Policy, *, now: datetime | None = None
) -> GateResult:
    """What a policy says of pointing an alias at a version; nothing is moved or recorded.

    Raises:
        IntegrityError: the version's evidence is damaged.
    """
    artifact = Artifact.open(layout, f"{found.name}@{found.version}")
    source, run = artifact.provenance, artifact.run()
    baseline, further = source["baseline"], _further(layout, found, policy)
    if policy.decision.against == "alias":
        there = _pipeline_at(layout, found.name, alias)
        baseline, finding = _against(run.manifest.pipeline_digests, there, source["variant"], baseline, alias)
        further["against"] = lambda: finding
    return judge(run, policy, source["variant"], baseline, further=further, now=now).result


def _further(layout: Layout, found: names.NamedVersion, policy: Policy) -> dict[str, Callable[[], Finding]]:
    checks: dict[str, Callable[[], Finding]] = {}
    for wanted in policy.approval:
        checks[f"approval by {wanted.role}"] = partial(_approved, layout, found, wanted)
    for test in policy.test:
        checks[f"test {test.name}"] = partial(_tested, layout, found, test)
    if policy.signature is not None:
        checks["signature"] = partial(_signed, layout, found, policy.signature)
    return checks


def _approved(layout: Layout, found: names.NamedVersion, wanted: ApprovalPolicy) -> Finding:
    who = counted(approvals(layout, found.name, found.version), wanted.role, layout.settings.roles)
    said = f"{len(who)} of {wanted.count}" + (f" ({', '.join(who)})" if who else "")
    hint = f"; with: workbench artifact approve {found.name}@{found.version} --role {wanted.role}"
    return len(who) >= wanted.count, said if len(who) >= wanted.count else said + hint


def _signed(layout: Layout, found: names.NamedVersion, wanted: SignaturePolicy, *, offline: bool = False) -> Finding:
    from workbench.registry.keyless import identities_by
    from workbench.registry.keyless_trust import trusted_root
    from workbench.registry.sign import read_keys, signatures_by

    artifact = Artifact.open(layout, f"{found.name}@{found.version}")
    artifact.verify()
    by = len(signatures_by(artifact, read_keys(layout.root, wanted.keys)))
    if by < wanted.count:
        by += len(identities_by(artifact, wanted.identities, lambda: trusted_root(layout, offline=offline)))
    asked = [
        f"{len(among)} {what}" for what, among in (("keys", wanted.keys), ("identities", wanted.identities)) if among
    ]
    how = f"--{'key FILE' if wanted.keys else 'keyless'}"
    hint = f"; with: workbench artifact sign {found.name}@{found.version} {how}"
    said = f"signed by {by} of {' and '.join(asked)}, at least {wanted.count} asked for"
    return by >= wanted.count, said if by >= wanted.count else said + hint


def _tested(layout: Layout, found: names.NamedVersion, test: TestPolicy) -> Finding:
    environment = os.environ | {"WORKBENCH_ARTIFACT": f"{found.name}@{found.version}"}
    try:
        done = subprocess.run(
            test.command,
            cwd=layout.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=test.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"not done after {test.timeout_s:g} s"
    said = done.stdout.decode(errors="replace").strip()[-_TAIL:]
    return done.returncode == 0, f"exit code {done.returncode}" + (f": {said}" if done.returncode else "")


def _pipeline_at(layout: Layout, name: str, alias: str) -> tuple[str, set[str]] | None:
    """Where an alias points now, and the digests of that pipeline as it was evaluated and as the artifact holds it."""
    try:
        artifact = Artifact.open(layout, f"{name}@{alias}")
    except NotFoundError:
        return None
    source = artifact.provenance
    return f"{name}@{artifact.version}", {source["pipeline_digest"], source["stored_pipeline_digest"]}


def _against(
    digests: dict[str, str], there: tuple[str, set[str]] | None, variant: str, baseline: str | None, alias: str
) -> tuple[str | None, Finding]:
    """The variant of the run that the alias points at now, in the place of the baseline."""
    if there is None:
        return baseline, (True, f"{alias} points at nothing yet")
    label, same = there
    if digests[variant] in same:
        return baseline, (False, f"{label}, to which {alias} points, is the same pipeline")
    asked = next((name for name, found in digests.items() if found in same), None)
    if asked is None:
        return baseline, (False, f"the run did not ask {label}, to which {alias} points: make it a variant of the run")
    return asked, (True, f"compared with {asked}, which is {label}, to which {alias} points")
