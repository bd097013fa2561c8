"""Prompts out of a git history: every committed version of a prompt file as a version of the store."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workbench.errors import NotFoundError, PromptError, UsageError
from workbench.registry.prompt_files import VERSIONS_FILE, prompt_files, read_prompt, utc
from workbench.registry.prompt_import import ImportReport, Incoming, take_over
from workbench.workspace import Layout

# A commit in `git log -z --name-status`: what `_FORMAT` says of it, then a letter and the file's path, or two of them.
_FORMAT = "%x01%H%x02%cI%x02%s"
_COMMIT = re.compile(
    r"\x01([0-9a-f]+)\x02([^\x02]*)\x02([^\x00]*)\x00\n?([A-Z])\d*\x00([^\x00]+)\x00(?:([^\x00\x01]+)\x00)?"
)


@dataclass(frozen=True)
class _Commit:
    id: str
    at: str
    subject: str
    change: str
    path: str


def import_history(
    layout: Layout,
    folder: Path,
    names: Iterable[str] = (),
    *,
    actor: str | None = None,
    at: datetime | None = None,
) -> ImportReport:
    """Take over every committed version of the prompt files (`*.md`) in a folder of a git work tree, the oldest first:
    the commit's subject is its message, and the commit's time when it was made. Renamed files are followed.

    A commit in which the file is no prompt is left out, and the notes say so. So are changes that are not committed.

    Raises:
        NotFoundError: no such folder, or a name is not in it.
        UsageError: the folder is in no git work tree, or there is no git.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", hint="Check the path.")
    if next(folder.glob(f"*/{VERSIONS_FILE}"), None) is not None:
        raise UsageError(f"{folder} has every version as a file", hint="Import it without --history.")
    if _git(folder, "rev-parse", "--is-inside-work-tree").strip() != b"true":
        raise UsageError(f"{folder} is in no git work tree", hint="Leave out --history, or name another folder.")
    files, notes = prompt_files(folder, names)
    incoming: dict[str, Sequence[Incoming]] = {}
    for name, path in files.items():
        versions = []
        for commit in _commits(folder, path.name):
            try:
                versions.append(_version(folder, commit))
            except PromptError as error:
                notes.append(f"{path.name} in {commit.id[:10]} was left out: {error.message}")
        if versions:
            incoming[name] = versions
        else:
            notes.append(f"{path.name} was left out, since no commit has it as a prompt")
    return take_over(layout, f"git log of {folder}", incoming, notes=notes, actor=actor, at=at)


def _commits(folder: Path, file: str) -> list[_Commit]:
    """The commits that changed a file or its forerunners and left it there, the oldest first."""
    # `--reverse` is applied before renames are followed, and loses what came before one.
    log = _git(
        folder,
        *("log", "--follow", "--date-order", "--no-show-signature", "--no-color", "--encoding=UTF-8"),
        *("--no-ext-diff", "-z", "--name-status", f"--format={_FORMAT}", "--", file),
    )
    return list(reversed(list(_own(log.decode("utf-8", "surrogateescape")))))


def _own(log: str) -> Iterator[_Commit]:
    for commit, at, subject, change, path, renamed in _COMMIT.findall(log):
        if change != "D":
            yield _Commit(commit, utc(at), subject, change, renamed or path)
        if change == "C":
            return  # what came before is the history of the file that it was copied from


def _version(folder: Path, commit: _Commit) -> Incoming:
    data = _git(folder, "cat-file", "blob", f"{commit.id}:{commit.path}")
    return Incoming(read_prompt(data), commit.at, commit.subject)


def _git(folder: Path, *arguments: str) -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = [b"git", *(argument.encode("utf-8", "surrogateescape") for argument in arguments)]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, env=environment, check=False)
    except FileNotFoundError:
        raise UsageError("there is no git on this machine", hint="Install it, or leave out --history.") from None
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines() or [f"code {result.returncode}"]
        raise UsageError(f"git in {folder}: {said[-1]}", hint="Leave out --history, or name a folder in a work tree.")
    return result.stdout
