"""`workbench gate`, `promote` and `artifact`: from a run to what is served."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.tables import print_table
from workbench.errors import GateRefused, UsageError
from workbench.files import short, write_atomic
from workbench.html import counted
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.experiments.run import Run
    from workbench.registry.names import Move, NamedVersion

artifact_app = typer.Typer(no_args_is_help=True, help="Promoted pipelines: list, verify, compare, move and run them.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, a unique beginning of it, or latest.")]
Variant = Annotated[str | None, typer.Option(help="The variant in question; where there are two, the one not --over.")]
Over = Annotated[str | None, typer.Option(help="The variant to compare it with; the first other one by default.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="A policy; policies/default.toml by default.")]
Reference = Annotated[str, typer.Argument(metavar="ARTIFACT", help="NAME, NAME@3, NAME@ALIAS or NAME@sha256:…")]


def gate_command(
    run: RunName = "latest",
    variant: Variant = None,
    over: Over = None,
    policy: PolicyFile = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Hold a policy against a run. Exits with 100 where it refuses."""
    from workbench.experiments.run import open_run
    from workbench.registry.gate import judge
    from workbench.registry.policy import find_policy

    layout = Layout.find()
    found = open_run(layout, run)
    result = judge(found, find_policy(layout, policy), _variant(found, variant, over), over).result
    if junit is not None:
        write_atomic(junit, result.to_junit())
    _print(result.to_json() if as_json else str(result))
    if not result.passed:
        raise typer.Exit(GateRefused.exit_code)


def promote_command(
    run: RunName,
    name: Annotated[str, typer.Argument(help="The artifact's name.")],
    variant: Variant = None,
    over: Over = None,
    alias: Annotated[str | None, typer.Option(help="Point this alias at the new version: staging, prod.")] = None,
    policy: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Store a variant of a run as an artifact, if the gate lets it pass. Exits with 100 where it refuses."""
    from workbench.experiments.run import open_run
    from workbench.registry.promote import promote

    layout = Layout.find()
    found = open_run(layout, run)
    artifact = promote(layout, found, name, _variant(found, variant, over), baseline=over, alias=alias, policy=policy)
    if as_json:
        _print(artifact.to_json())
        return
    also = f", {', '.join(artifact.aliases)}" if artifact.aliases else ""
    _print(f"{artifact.name}@{artifact.version}{also}  {artifact.digest}")


def gc_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    forgotten: Annotated[
        bool, typer.Option("--forgotten", help="Also whole artifacts that the state knows no version of.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove blobs that no version of an artifact needs, such as those of a promotion that was killed."""
    from workbench.registry.gc import collect_garbage

    found = collect_garbage(Layout.find(), dry_run=dry_run, forgotten=forgotten)
    if as_json:
        _print({"dry_run": dry_run, **found.to_json()})
        return
    young = f", {found.young} of them because they are young" if found.young else ""
    _print(
        f"{'would remove' if dry_run else 'removed'} {counted(len(found.blobs), 'blob')} of {found.size:,} bytes; "
        f"{found.kept} stay{young}"
    )
    for digest in found.unnamed:
        _print(f"kept {digest}, an artifact that the state knows no version of; --forgotten removes it")


@artifact_app.command("ls")
def ls(
    name: Annotated[str | None, typer.Argument(help="Only this name's versions.")] = None, as_json: Json = False
) -> None:
    """List every version of every artifact."""
    from workbench.registry import names

    found = names.ls(Layout.find(), name)
    if as_json:
        from pydantic_core import to_json

        # Thousands of rows take json, which indents in Python, as long as reading them.
        _print(to_json([version.to_json() for version in found], indent=2).decode())
        return
    if not found:
        _print("No artifacts yet. Make one with: workbench promote RUN NAME")
        return
    rows = [
        (f"{v.name}@{v.version}", short(v.digest), ", ".join(v.aliases), v.decision or "", v.created_at[:19])
        for v in found
    ]
    print_table(("artifact", "digest", "aliases", "decision", "created (UTC)"), rows)


@artifact_app.command("show")
def show(
    artifact: Reference,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Show what it came from and what points at it, as a tree.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an artifact is, where it comes from and what it holds."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.keyless import signatures_on
    from workbench.registry.lineage_served import served_calls

    if lineage:
        from workbench.api import Workspace

        graph = Workspace(Layout.find()).lineage(artifact)
        _print(graph.to_json() if as_json else str(graph))
        return
    found = Artifact.open(Layout.find(), artifact)
    signatures = signatures_on(found)
    label = f"{found.name}@{found.version}"
    by_version, unreadable = served_calls(Layout.find())
    served = by_version.get(label)
    for said in unreadable.values():
        typer.echo(f"could not be read: {said}", err=True)
    if as_json:
        asked = served.facts() if served else None
        _print({**found.to_json(), "signatures": signatures.to_json(), "served": asked})
        return
    told = [("signatures", str(signatures)), ("served", str(served) if served else "none recorded here")]
    print_table(("artifact", label), [*found.summary(), *told])
    print_table(
        ("layer", "digest", "bytes"),
        [(title, short(b.digest), str(b.size)) for title, b in sorted(found.layers.items())],
    )


@artifact_app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE")],
    after: Annotated[str, typer.Argument(metavar="AFTER")],
    as_json: Json = False,
) -> None:
    """Show what changed from one artifact to another: prompt, settings, post-processing, environment, evidence."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.diff import diff as compare

    layout = Layout.find()
    found = compare(Artifact.open(layout, before), Artifact.open(layout, after))
    _print(found.to_json() if as_json else str(found))


@artifact_app.command("alias")
def alias(
    artifact: Reference, alias: Annotated[str, typer.Argument(help="staging, prod, canary, …")], as_json: Json = False
) -> None:
    """Point an alias at a version, if its policy (policies/ALIAS.toml) lets it. Exits with 100 where it refuses."""
    from workbench.registry.aliases import move_alias

    _moved(move_alias(Layout.find(), artifact, alias), alias, as_json)


@artifact_app.command("approve")
def approve(
    artifact: Reference,
    role: Annotated[str, typer.Option(help="The role in which you approve, of [roles] in workbench.toml.")],
    comment: Annotated[str, typer.Option("--comment", "-m", help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Put on record that you approve a version, for policies that ask for it."""
    from dataclasses import asdict

    from workbench.registry import approvals

    layout = Layout.find()
    found = approvals.approve(layout, artifact, role, comment=comment)
    given = approvals.approvals(layout, found.name, found.version)
    if as_json:
        _print({**found.to_json(), "approvals": [asdict(consent) for consent in given]})
        return
    who = ", ".join(f"{consent.actor} ({consent.role})" for consent in given)
    _print(f"{found.name}@{found.version} is approved by {who}")


@artifact_app.command("rollback")
def rollback(
    artifact: Annotated[str, typer.Argument(metavar="NAME@ALIAS")],
    alias: Annotated[str | None, typer.Argument(help="The alias, where it is not in NAME@ALIAS.")] = None,
    as_json: Json = False,
) -> None:
    """Point an alias back at the version before the present one, unless it is damaged or lacks a signature (exit code 100)."""
    from workbench.registry import names
    from workbench.registry.aliases import roll_back

    name, _, selector = artifact.partition("@")
    if bool(selector) == bool(alias):
        raise UsageError("name one alias to roll back", hint="Write: workbench artifact rollback NAME@ALIAS")
    names.check_name(name)
    which = selector or alias or ""
    names.check_alias(which)
    _moved(roll_back(Layout.find(), name, which), which, as_json)


@artifact_app.command("history")
def history(
    name: str,
    alias: Annotated[str | None, typer.Option(help="Only the moves of this alias.")] = None,
    at: Annotated[
        datetime | None, typer.Option(help="Where the alias pointed then, and why; UTC unless it says otherwise.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was done under a name: versions, moves of aliases, rollbacks, approvals and refusals."""
    from dataclasses import asdict

    from workbench.registry import names

    names.check_name(name)
    layout = Layout.find()
    moves = names.history(layout, name)
    if not moves:
        names.resolve(layout, name)
    if at is not None:
        if alias is None:
            raise UsageError("which alias?", hint=f"Write: workbench artifact history {name} --alias prod --at …")
        _pointed(layout, name, alias, at if at.tzinfo else at.replace(tzinfo=UTC), as_json)
        return
    if alias is not None:
        moves = tuple(move for move in moves if move.alias == alias)
        if not moves:
            names.resolve(layout, f"{name}@{alias}")
    if as_json:
        _print([asdict(move) for move in moves])
        return
    rows = []
    for move in moves:
        path = " → ".join(str(version) for version in (move.from_version, move.to_version) if version is not None)
        rows.append((move.at[:19], move.kind, move.alias or "", path, move.actor, _why(move)))
    print_table(("at (UTC)", "what", "alias", "version", "by", "reasons"), rows)


def _why(move: Move) -> str:
    if move.kind == "register" and "from" in move.detail:
        return f"pulled from {move.detail['from']}"
    said = "; ".join(move.detail.get("reasons", []))
    return said or " ".join(str(move.detail[key]) for key in ("role", "comment") if move.detail.get(key))


def _pointed(layout: Layout, name: str, alias: str, at: datetime, as_json: bool) -> None:
    from dataclasses import asdict

    from workbench.registry import names
    from workbench.registry.artifact import Artifact

    move = names.alias_at(layout, name, alias, at)
    artifact = Artifact.open(layout, f"{name}@{move.to_version}")
    if as_json:
        _print({"at": at.isoformat(), "move": asdict(move), "artifact": artifact.to_json()})
        return
    _print(
        f"{name}@{alias} was version {move.to_version}, moved there by {move.actor} at {move.at[:19]} UTC ({move.kind})"
    )
    print_table(("artifact", f"{name}@{move.to_version}"), artifact.summary())


@artifact_app.command("run")
def run(
    artifact: Reference,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The prompt's variables.")
    ] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", metavar="KEY=VALUE", help="The same.")] = None,
    as_json: Json = False,
) -> None:
    """Answer one question with an artifact, after verifying it. Without KEY=VALUE, a JSON object is read from stdin."""
    from workbench.errors import PipelineError
    from workbench.registry.artifact import Artifact

    pipeline = Artifact.open(Layout.find(), artifact).pipeline()
    given = _inputs([*(values or []), *(inputs or [])])
    known = pipeline.prompt.variables
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"the prompt has no variable {', '.join(unknown)}", hint=f"It has: {', '.join(known)}.")
    answer = pipeline.answer(given)
    if answer.error_kind:
        raise PipelineError(
            f"no valid answer: {answer.error}", hint=f"The model wrote: {(answer.completion.text or '')[:200]!r}"
        )
    _print(answer.value, as_json=as_json)


def _inputs(pairs: list[str]) -> dict[str, Any]:
    if pairs:
        given: dict[str, Any] = {}
        for pair in pairs:
            key, separator, value = pair.partition("=")
            if not separator or not key:
                raise UsageError(f"{pair!r} is not KEY=VALUE", hint="Write: text='My card was charged twice'")
            given[key] = value
        return given
    if sys.stdin.isatty():
        raise UsageError("no inputs", hint="Write KEY=VALUE, or send a JSON object on standard input.")
    try:
        read = json.loads(sys.stdin.read())
    except ValueError as error:
        raise UsageError(f"standard input is not JSON: {error}", hint='Send {"KEY": "VALUE"}.') from None
    if not isinstance(read, dict):
        raise UsageError("standard input is not a JSON object", hint='Send {"KEY": "VALUE"}.')
    return read


def _variant(run: Run, variant: str | None, over: str | None) -> str:
    """The variant in question: the one named, else the only one that is not the baseline."""
    if variant is not None:
        return variant
    names = list(run.manifest.variants)
    others = names if len(names) == 1 else [name for name in names if name != (over or names[0])]
    if len(others) != 1:
        raise UsageError("which variant?", hint=f"Name it: --variant {' or '.join(others)}")
    return others[0]


def _moved(found: NamedVersion, alias: str, as_json: bool) -> None:
    _print(
        found.to_json() if as_json else f"{found.name}@{alias} is now version {found.version} ({short(found.digest)})"
    )


def _print(value: Any, *, as_json: bool = False) -> None:
    text = value if isinstance(value, str) and not as_json else json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(text)
