"""`workbench prompt`: prompts by name, every saved version kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.tables import print_table
from workbench.errors import UsageError
from workbench.files import short
from workbench.html import counted
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.registry.prompt_import import Taken

prompt_app = typer.Typer(no_args_is_help=True, help="Prompts: save, list, compare and bring back versions.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The prompt's name.")]
Reference = Annotated[str, typer.Argument(metavar="PROMPT", help="NAME, NAME@3, or a file.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="DIR [NAME]...", help="The folder (none with --mlflow); all names if none."),
]
Mlflow = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="An MLflow registry in place of the folder.")
]


@prompt_app.command("save")
def save(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="The prompt file; prompts/NAME.md by default.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Why it changed.")] = "",
    as_json: Json = False,
) -> None:
    """Keep a prompt file as the next version. An unchanged prompt gets no new one, and its message is not kept."""
    from workbench.pipeline.prompt import Prompt
    from workbench.registry.prompts import keep_prompt

    layout = Layout.find()
    prompt = Prompt.from_file(file or layout.prompts / f"{name}.md")
    version, new = keep_prompt(layout, name, prompt, message=message)
    if as_json:
        print_json({"name": name, "version": version, "digest": prompt.digest, "new": new})
    elif new:
        typer.echo(f"{name}@{version}  {short(prompt.digest)}")
    else:
        lost = "; the message was not kept" if message else ""
        typer.echo(f"{name} is unchanged: still version {version}{lost}")


@prompt_app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the newest version of every prompt, and the files that were never saved."""
    from workbench.registry.prompts import prompt_log

    layout = Layout.find()
    newest = {saved.name: saved for saved in reversed(prompt_log(layout))}
    files = sorted(path.stem for path in layout.prompts.glob("*.md")) if layout.prompts.is_dir() else []
    unsaved = [name for name in files if name not in newest]
    if as_json:
        print_json([saved.to_json() for saved in newest.values()] + [{"name": n, "version": None} for n in unsaved])
        return
    rows = [(s.name, str(s.version), short(s.digest), s.created_at[:19], s.message) for s in newest.values()]
    rows += [(name, "not saved", "", "", "") for name in unsaved]
    print_table(("name", "version", "digest", "saved", "message"), rows)


@prompt_app.command("show")
def show(prompt: Reference, as_json: Json = False) -> None:
    """Print a prompt."""
    from workbench.registry.prompts import find_prompt

    found = find_prompt(Layout.find(), prompt)
    if as_json:
        print_json({"digest": found.digest, **found.model_dump(mode="json")})
    else:
        typer.echo(found.to_text(), nl=False)


@prompt_app.command("diff")
def diff(before: Reference, after: Reference, as_json: Json = False) -> None:
    """Print what changed from one prompt to another."""
    from workbench.registry.prompts import find_prompt

    layout = Layout.find()
    found = find_prompt(layout, before).diff(find_prompt(layout, after))
    if as_json:
        print_json({"changed": bool(found), "lines": list(found.lines)})
    else:
        typer.echo(str(found))


@prompt_app.command("log")
def log(name: Name, as_json: Json = False) -> None:
    """List a prompt's versions, the newest first."""
    from workbench.registry.prompts import prompt_log

    versions = prompt_log(Layout.find(), name)
    if as_json:
        print_json([saved.to_json() for saved in versions])
        return
    rows = [(str(s.version), short(s.digest), s.created_at[:19], ", ".join(s.tags), s.message) for s in versions]
    print_table(("version", "digest", "saved", "tags", "message"), rows)


@prompt_app.command("tag")
def tag(
    prompt: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    tag: Annotated[str, typer.Argument(help="A word, such as draft; `tested` is put by a promotion alone.")],
    as_json: Json = False,
) -> None:
    """Put a tag on a saved version; NAME@TAG then means the newest that has it."""
    from workbench.registry.prompts import tag_prompt

    name, _, version = prompt.partition("@")
    if not version.isdecimal():
        raise UsageError(f"{prompt!r} names no version", hint="Write: workbench prompt tag NAME@3 TAG")
    tag_prompt(Layout.find(), name, int(version), tag)
    if as_json:
        print_json({"name": name, "version": int(version), "tag": tag})
    else:
        typer.echo(f"{name}@{version} is {tag}")


@prompt_app.command("rollback")
def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option("--to", help="The version to bring back; the last but one by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring an earlier version back, as the newest version and as the file in prompts/."""
    from workbench.registry.prompts import rollback_prompt

    version = rollback_prompt(Layout.find(), name, to=to)
    if as_json:
        print_json({"name": name, "version": version})
    else:
        typer.echo(f"{name}@{version}, and prompts/{name}.md")


@prompt_app.command("export")
def export(words: Words = None, mlflow: Mlflow = None, as_json: Json = False) -> None:
    """Write every saved version to a folder for git, or to MLflow's prompt registry."""
    folder, names = _where(words, mlflow)
    layout = Layout.find()
    if mlflow is not None:
        from workbench.registry.prompt_mlflow import export_to_mlflow

        done = export_to_mlflow(layout, mlflow, names)
        if as_json:
            print_json(done.to_json())
            return
        for name, versions in done.prompts.items():
            new = done.created[name]
            typer.echo(f"{name}: {counted(len(new), 'version')} registered, {len(versions) - len(new)} there already")
        _tell(done.notes)
        return
    from workbench.registry.prompt_files import export_prompts

    exported = export_prompts(layout, folder, names)
    if as_json:
        print_json([one.to_json() for one in exported])
        return
    for one in exported:
        typer.echo(f"{one.name}: {counted(one.versions, 'version')}, {counted(len(one.written), 'file')} written")


@prompt_app.command("import")
def import_(
    words: Words = None,
    mlflow: Mlflow = None,
    history: Annotated[
        bool, typer.Option("--history", help="Every version of the files (*.md) that was committed to git.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take over the versions in a folder, a git history or MLflow's prompt registry. The tag `tested` never comes along."""
    folder, names = _where(words, mlflow)
    layout = Layout.find()
    if mlflow is not None:
        if history:
            raise UsageError("--history and --mlflow exclude one another", hint="Give one of them.")
        from workbench.registry.prompt_mlflow import import_from_mlflow

        report = import_from_mlflow(layout, mlflow, names)
    elif history:
        from workbench.registry.prompt_history import import_history

        report = import_history(layout, folder, names)
    else:
        from workbench.registry.prompt_files import import_prompts

        report = import_prompts(layout, folder, names)
    if as_json:
        print_json(report.to_json())
        return
    for taken in report.prompts:
        typer.echo(_told(taken))
    _tell(report.notes)


def _where(words: list[str] | None, mlflow: str | None) -> tuple[Path, list[str]]:
    """The folder and the names; with MLflow all words are names."""
    given = words or []
    if mlflow is not None:
        return Path(), given
    if not given:
        raise UsageError("no folder given", hint="Name one, or an MLflow registry: --mlflow URI")
    return Path(given[0]), given[1:]


def _told(taken: Taken) -> str:
    # They follow one another, since each is the next that was free.
    ends = dict.fromkeys((*taken.added[:1], *taken.added[-1:]))
    which = f" ({' to '.join(map(str, ends))})" if ends else ""
    return f"{taken.name}: {counted(len(taken.added), 'version')} added{which}, {len(taken.found)} here already"


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes:
        typer.echo(f"note: {note}")
