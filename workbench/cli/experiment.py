"""`workbench plan`, `run` and `compare`: experiments in YAML, and notebooks with parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from workbench.cli.common import print_json
from workbench.errors import UsageError, WorkbenchError
from workbench.surroundings import NOTEBOOK_VARIABLE
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.run import Run

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="An experiment in YAML.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, a unique beginning of it, or latest.")]


def plan_command(file: File, as_json: Json = False) -> None:
    """Say what an experiment would take and could show, measured on a pilot of five rows."""
    from workbench.experiments.spec import read_experiment

    plan = read_experiment(Layout.find(), file).plan()
    if as_json:
        print_json(
            {
                "calls": plan.calls,
                "tokens_in": plan.tokens_in,
                "tokens_out": plan.tokens_out,
                "minutes": plan.minutes,
                "cost_usd": plan.cost_usd,
                "rows": plan.rows,
                "smallest_difference": dict(plan.smallest_difference),
            }
        )
    else:
        typer.echo(str(plan))


def run_command(
    file: Annotated[
        Path | None, typer.Argument(help="An experiment in YAML, or a notebook (.py of marimo, .ipynb).")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --, a notebook's parameters, such as --limit 5.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask everything anew, even where a complete run exists.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(metavar="USD", help="Dollars that the run may spend; rows beyond wait for the next run."),
    ] = None,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Stop when the decision is certain (a test that is valid at any time).")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the YAML file instead.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the runs instead.")] = False,
    as_json: Json = False,
) -> None:
    """Run an experiment, going on where it stopped; then compare its variants."""
    if schema:
        from workbench.experiments.spec_schema import experiment_schema

        print_json(experiment_schema())
        return
    layout = Layout.find()
    if show_list:
        _list_runs(layout, as_json)
        return
    if file is None:
        raise UsageError("no file given", hint="Run: workbench run FILE, or workbench run --list")
    if file.suffix in (".py", ".ipynb"):
        _run_notebook(file, arguments or [])
        return
    from workbench.experiments.spec import build_experiment, read_spec

    spec = read_spec(file)
    given = [*(["--stop-early"] if stop_early else ()), *([] if budget is None else [f"--budget={budget}"])]
    run = replace(build_experiment(layout, file, spec), arguments=given).run(
        fresh=fresh,
        budget_usd=spec.budget_usd if budget is None else budget,
        stop_early=spec.early_stopping or stop_early,
    )
    if len(run.manifest.variants) > 1:
        _show(run, run.compare(), as_json)
    elif as_json:
        print_json(
            {"run_id": run.id, "complete": run.complete, "failed": run.failed, "summary": run.summary().to_dicts()}
        )
    else:
        Console().print(run.summary())


def compare_command(
    run: RunName = "latest",
    over: Annotated[str | None, typer.Option(help="The variant to compare with; the first by default.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="The largest difference of the primary scorer that does not matter.")
    ] = None,
    earlier: Annotated[
        str | None, typer.Option("--with", metavar="RUN", help="Compare with this earlier run, on the rows both have.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="With --with: the variant of RUN; needed where it has several.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report with pictures to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the variants of a run row by row, or two runs, with intervals and corrected p-values."""
    from workbench.experiments.run import open_run

    found = open_run(Layout.find(), run)
    if earlier is not None:
        across = found.compare_with(
            open_run(Layout.find(), earlier), variant=variant, earlier_variant=over, margin=margin
        )
        if as_json:
            print_json({"shared": asdict(across.shared), "comparison": across.comparison.to_json()})
        else:
            typer.echo(str(across))
        return
    comparison = found.compare(over, margin=margin)
    if report is not None:
        from workbench.ui.report import write_report

        write_report(report, found, comparison)
    _show(found, comparison, as_json)
    if report is not None and not as_json:
        typer.echo(f"report: {report}")


def _show(run: Run, comparison: Comparison, as_json: bool) -> None:
    if as_json:
        decisions = [comparison.decision(name).to_json() for name in comparison.variants]
        print_json({"run_id": run.id, "failed": run.failed, "decisions": decisions, "comparison": comparison.to_json()})
        return
    typer.echo(f"run {run.id}: {len(run.calls())} calls, {run.failed} failed")
    typer.echo(str(comparison))


def _list_runs(layout: Layout, as_json: bool) -> None:
    from workbench.experiments.run import list_runs

    records = [
        {
            "run_id": run.id,
            "experiment": run.manifest.experiment,
            "dataset": run.manifest.dataset,
            "variants": list(run.manifest.variants),
            "calls": len(run.calls()),
            "expected": run.expected,
            "failed": run.failed,
            "started_at": run.manifest.started_at,
        }
        for run in list_runs(layout)
    ]
    if as_json:
        print_json(records)
        return
    table = Table("run", "experiment", "data set", "variants", "calls", "failed", box=None, pad_edge=False)
    for record in records:
        table.add_row(
            str(record["run_id"]),
            str(record["experiment"]),
            str(record["dataset"]),
            ", ".join(record["variants"]),  # type: ignore[arg-type]
            f"{record['calls']}/{record['expected']}",
            str(record["failed"]),
        )
    Console().print(table)


def _run_notebook(file: Path, arguments: list[str]) -> None:
    if not file.is_file():
        raise UsageError(f"no notebook {file}", hint="Check the path.")
    if file.suffix == ".ipynb":
        from workbench.notebook_run import run_jupyter

        typer.echo(f"executed: {run_jupyter(file, arguments)}")
        return
    environment = {**os.environ, NOTEBOOK_VARIABLE: str(file)}
    code = subprocess.run([sys.executable, str(file), *arguments], env=environment).returncode
    if code:
        raise WorkbenchError(f"{file} failed", hint="The messages above say where.")
