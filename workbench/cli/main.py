"""`workbench`: the command line. Errors are one line and an exit code; `--debug` shows the traceback."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

import workbench
import workbench.cli.artifact_remote
import workbench.cli.artifact_reproduce
import workbench.cli.artifact_sign
from workbench.cli.apps import access_app, apps_command
from workbench.cli.audit import audit_app
from workbench.cli.data import app as data_app
from workbench.cli.demo import demo_command
from workbench.cli.doctor import doctor_command
from workbench.cli.events import events_app
from workbench.cli.experiment import compare_command, plan_command, run_command
from workbench.cli.finetune import finetune_app
from workbench.cli.index import index_app
from workbench.cli.init import init_command
from workbench.cli.model import model_app
from workbench.cli.notebooks import notebooks_app
from workbench.cli.prompt import prompt_app
from workbench.cli.registry import artifact_app, gate_command, gc_command, promote_command
from workbench.cli.serve import serve_command
from workbench.cli.sql import sql_command
from workbench.errors import GateRefused, WorkbenchError, WorkbenchWarning

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare prompts on your own data, decide on evidence, promote what won.",
    epilog="Exit codes: 0 done, 1 error, 2 usage, 100 a gate said no, 130 interrupted.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(workbench.__version__)
        raise typer.Exit


app.command("demo")(demo_command)
app.command("init")(init_command)
app.command("doctor")(doctor_command)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(prompt_app, name="prompt")
app.command("plan")(plan_command)
app.command("run")(run_command)
app.command("compare")(compare_command)
app.command("gate")(gate_command)
app.command("promote")(promote_command)
app.add_typer(artifact_app, name="artifact")
app.add_typer(audit_app, name="audit")
app.command("gc")(gc_command)
app.command("serve")(serve_command)
app.command("apps")(apps_command)
app.add_typer(access_app, name="access")
app.add_typer(index_app, name="index")
app.add_typer(finetune_app, name="finetune")
app.command("sql")(sql_command)
app.add_typer(events_app, name="events")
app.add_typer(notebooks_app, name="notebooks")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def main() -> None:
    """Run the command line and leave with its exit code."""
    debug = "--debug" in sys.argv
    if debug:
        # Wherever it stands on the line, it is meant for the whole.
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    else:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", WorkbenchWarning)
        warnings.showwarning = _show_warning
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("Interrupted. What was answered is kept; the same command goes on from there.", err=True)
        raise SystemExit(130) from None
    except WorkbenchError as error:
        if debug:
            raise
        typer.echo(f"{'refused' if isinstance(error, GateRefused) else 'error'}: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}. Run it with --debug for the details.", err=True)
        raise SystemExit(1) from None
