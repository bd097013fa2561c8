"""The demo: everything the workbench is for, once, with nothing prepared but the data and the two prompts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from workbench import api
from workbench.errors import GateRefused, WorkspaceError
from workbench.files import short
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.experiment import Experiment
    from workbench.experiments.run import Run
    from workbench.registry.artifact import Artifact

DATASET = "support-tickets"
PROMPTS = {"zero-shot": "triage", "few-shot": "triage-few-shot"}
ARTIFACT, ALIAS = "triage", "staging"
# Written for this demo; a test holds that no split contains it.
NEW_MESSAGE = (
    "Good evening, the doorbell you sent me rings at my old flat in Leeds, the van never came to the new address and the "
    "neighbours say a parcel with my name stands in the stairwell since Monday. Can the driver fetch it and bring it over?"
)


def demo_experiment(workspace: Workspace, *, limit: int | None = None) -> Experiment:
    """Zero-shot against few-shot on the test split of support-tickets."""
    from workbench.experiments.starting_point import starting_point

    dataset = workspace.dataset(DATASET)
    points = {name: starting_point(dataset, workspace.model, workspace.prompt(file)) for name, file in PROMPTS.items()}
    rows = dataset.split("test")
    return workspace.experiment(
        "triage-prompts",
        dataset=rows.head(limit) if limit else rows,
        variants={name: pipeline for name, (pipeline, _) in points.items()},
        scorers=points["zero-shot"][1],
    )


def run_demo(*, limit: int | None = None, report: Path = Path("report.html"), console: Console | None = None) -> None:
    """Run the demo in the workspace here, or in a new one in `workbench-demo` where there is none."""
    out = console or Console(highlight=False)
    began = time.monotonic()
    workspace = _workspace(out)
    out.rule("[bold]1  Two prompts, one model, one question: which sorts support tickets better?", align="left")
    experiment = demo_experiment(workspace, limit=limit)
    info = experiment.variants["zero-shot"].engine().info
    out.print(
        f"model {info.name} ({info.device}, {info.dtype}), {len(experiment.rows)} messages of {DATASET}, split test"
    )
    examples = len(experiment.variants["few-shot"].prompt.examples)
    out.print(
        f"zero-shot: prompts/triage.md · few-shot: prompts/triage-few-shot.md, {examples} examples of split train"
    )

    out.rule("[bold]2  Plan, before anything is spent", align="left")
    out.print(str(experiment.plan()))

    out.rule("[bold]3  Run", align="left")
    unfinished = any(not run.complete for run in experiment.earlier_runs())
    if unfinished:
        out.print("An earlier demo was interrupted: going on where it stopped.")
    started = time.monotonic()
    run = experiment.run(fresh=not unfinished)
    out.print(f"run {run.id}: {len(run.calls())} calls in {time.monotonic() - started:.0f} s, {run.failed} failed")

    out.rule("[bold]4  Compare and decide", align="left")
    comparison = run.compare()
    out.print(str(comparison), soft_wrap=True)

    out.rule("[bold]5  Promote, if the gate lets it", align="left")
    artifact = _promote(workspace, run, comparison, out)
    _report(workspace, run, comparison, artifact, report, out)
    out.rule(f"[bold]Done in {time.monotonic() - began:.0f} s. Next, try:", align="left")
    where = "" if Path.cwd() == workspace.root else f"cd {workspace.root} && "
    if artifact is not None:
        out.print(
            f"  {where}workbench artifact run {ARTIFACT}@{ALIAS} text='My card was charged twice'", soft_wrap=True
        )
    else:
        out.print(f"  {where}workbench compare latest --margin 0.05", soft_wrap=True)
    out.print(f"  {where}marimo run notebooks/prompt_ab.py", soft_wrap=True)
    out.print("  workbench data import my.csv --name mine --input text --target label", soft_wrap=True)


def change_history(*, remove: bool = False, as_json: bool = False, console: Console | None = None) -> None:
    """Record the made-up history in the workspace here, or in a new one in `workbench-demo`; or take it out again."""
    from workbench.analytics.synthetic import remove_history, write_history

    out = console or Console(highlight=False, quiet=as_json)
    # A history that is to go lies in a workspace that is there.
    workspace = api.open() if remove else _workspace(out)
    done = remove_history(workspace.events()) if remove else write_history(workspace.events())
    if as_json:
        print(json.dumps({"removed": remove, **done}))
        return
    out.print(
        f"{'Removed' if remove else 'Recorded'} {done['calls']:,} made-up calls, {done['scores']:,} scores and "
        f"{done['feedback']:,} pieces of feedback"
        + ("." if remove else " of 90 days. Every row says source = 'synthetic'. Next, try:")
    )
    if not remove:
        where = "" if Path.cwd() == workspace.root else f"cd {workspace.root} && "
        out.print(f"  {where}marimo run notebooks/cost_quality.py", soft_wrap=True)
        out.print(f"  {where}workbench demo --remove-history", soft_wrap=True)


def _workspace(out: Console) -> Workspace:
    try:
        return api.open()
    except WorkspaceError:
        from workbench.init.init import init_workspace

        folder = Path("workbench-demo")
        if not (folder / "workbench.toml").exists():
            init_workspace(folder)
            out.print(f"No workspace here: made one in {folder}")
        return api.Workspace(Layout.find(folder))


def _promote(workspace: Workspace, run: Run, comparison: Comparison, out: Console) -> Artifact | None:
    decision = comparison.decision("few-shot")
    try:
        artifact = workspace.promote(run, ARTIFACT, variant="few-shot", over="zero-shot", alias=ALIAS)
    except GateRefused as refusal:
        out.print(f"[bold yellow]Not promoted.[/] The decision is {decision.outcome}; the gate's reasons:")
        for reason in refusal.reasons:
            out.print(f"  - {reason}", markup=False)
        if decision.rows_needed:
            out.print(f"About {decision.rows_needed} rows would show a difference of this size, were it real.")
        return None
    out.print(
        f"[bold green]Promoted[/] few-shot as {artifact.name}@{artifact.version}, alias {ALIAS}, {short(artifact.digest)}"
    )
    artifact.verify()
    out.print(f"Verified: {len(artifact.layers)} layers, every byte matches its digest.")
    answer = workspace.artifact(f"{ARTIFACT}@{ALIAS}").pipeline().answer({"text": NEW_MESSAGE})
    out.print("The artifact answers a message that is in no split:")
    out.print(f"  > {NEW_MESSAGE}", style="dim", markup=False)
    out.print(f"  {answer}  ({answer.completion.latency_s:.1f} s)", markup=False)
    return artifact


def _report(
    workspace: Workspace, run: Run, comparison: Comparison, artifact: Artifact | None, path: Path, out: Console
) -> None:
    from workbench.ui.report import write_report

    gate = workspace.gate(run, variant="few-shot", over="zero-shot")
    write_report(path, run, comparison, gate, artifact)
    out.print(f"Report with pictures: {path.resolve()}", soft_wrap=True)
