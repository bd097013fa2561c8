"""`workbench prompt`: prompts by name, every saved version kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workbench.cli.common import print_json
from workbench.errors import UsageError
from workbench.files import short
from workbench.workspace import Layout

prompt_app = typer.Typer(no_args_is_help=True, help="Prompts: save, list, compare and bring back versions.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The prompt's name.")]
Reference = Annotated[str, typer.Argument(metavar="PROMPT", help="NAME, NAME@3, or a file.")]


@prompt_app.command("save")
def save(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="The prompt file; prompts/NAME.md by default.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Why it changed.")] = "",
    as_json: Json = False,
) -> None:
    """Keep a prompt file as the next version. An unchanged prompt gets no new one."""
    from workbench.pipeline.prompt import Prompt
    from workbench.registry.prompts import save_prompt

    layout = Layout.find()
    prompt = Prompt.from_file(file or layout.prompts / f"{name}.md")
    version = save_prompt(layout, name, prompt, message=message)
    if as_json:
        print_json({"name": name, "version": version, "digest": prompt.digest})
    else:
        typer.echo(f"{name}@{version}  {short(prompt.digest)}")


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
    table = Table("name", "version", "digest", "saved", "message", box=None, pad_edge=False)
    for saved in newest.values():
        table.add_row(saved.name, str(saved.version), short(saved.digest), saved.created_at[:19], saved.message)
    for name in unsaved:
        table.add_row(name, "not saved", "", "", "")
    Console().print(table)


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
    table = Table("version", "digest", "saved", "tags", "message", box=None, pad_edge=False)
    for saved in versions:
        tags = ", ".join(saved.tags)
        table.add_row(str(saved.version), short(saved.digest), saved.created_at[:19], tags, saved.message)
    Console().print(table)


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
