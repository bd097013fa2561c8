"""Prompts as a folder of files for git: every version as a file of its own, and `versions.json` beside them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.errors import DataError, IntegrityError, NotFoundError, PromptError, UsageError
from workbench.files import short, write_atomic
from workbench.pipeline.prompt import Prompt
from workbench.registry.names import check_alias, check_name
from workbench.registry.prompt_import import ImportReport, Incoming, take_over
from workbench.registry.prompts import SavedPrompt, kept_prompts
from workbench.state.db import timestamp
from workbench.validation import first_fault
from workbench.workspace import Layout

VERSIONS_FILE = "versions.json"
_VERSION_FILE = re.compile(r"(\d{4,})\.(md|json)")


class VersionEntry(BaseModel):
    """One version in `versions.json`; its text is in `NNNN.md`, or in `NNNN.json` where Markdown cannot hold it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = Field(ge=1)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    created_at: str
    message: str = ""
    tags: tuple[str, ...] = ()

    @field_validator("created_at")
    @classmethod
    def _check_time(cls, time: str) -> str:
        return utc(time)

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            try:
                check_alias(tag)
            except UsageError as error:
                raise ValueError(error.message) from None
        return tags


class VersionsFile(BaseModel):
    """`versions.json`: the versions of one prompt, the oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    versions: tuple[VersionEntry, ...]

    @field_validator("versions")
    @classmethod
    def _check_order(cls, versions: tuple[VersionEntry, ...]) -> tuple[VersionEntry, ...]:
        numbers = [entry.version for entry in versions]
        if numbers != sorted(set(numbers)):
            raise ValueError("versions must rise, each once")
        return versions


@dataclass(frozen=True)
class ExportedPrompt:
    """A name, how many versions of it are in the folder, and the files that were written for it."""

    name: str
    versions: int
    written: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "versions": self.versions, "written": [str(path) for path in self.written]}


def utc(time: str) -> str:
    """An ISO 8601 time with its zone, as the state keeps times.

    Raises:
        ValueError: it is none, or says no zone.
    """
    read = datetime.fromisoformat(time)
    if read.tzinfo is None:
        raise ValueError("the time must say its zone, as 2026-01-31T12:00:00+00:00 does")
    return timestamp(read)


def export_prompts(layout: Layout, folder: Path, names: Iterable[str] = ()) -> tuple[ExportedPrompt, ...]:
    """Write every kept version of the named prompts, or of all, to `folder`. What is there already is not written again.

    Raises:
        NotFoundError: nothing was saved under a name.
        PromptError: the folder has a version that is not kept here, or another one; nothing was written.
        DataError: a `versions.json` there is malformed.
    """
    kept = kept_prompts(layout, names)
    files = {name: _files(folder / name, versions) for name, versions in kept.items()}
    exported = []
    for name, contents in files.items():
        changed = [path for path, data in contents.items() if not path.is_file() or path.read_bytes() != data]
        for path in changed:
            write_atomic(path, contents[path])
        exported.append(ExportedPrompt(name, len(kept[name]), tuple(changed)))
    return tuple(exported)


def import_prompts(
    layout: Layout,
    folder: Path,
    names: Iterable[str] = (),
    *,
    actor: str | None = None,
    at: datetime | None = None,
) -> ImportReport:
    """Take over the versions in a folder that `export_prompts` wrote; of a folder of prompt files (`*.md`), each file as
    the next version of its name. All of them, or none.

    Raises:
        NotFoundError: no such folder, or a name is not in it.
        DataError: a `versions.json` is malformed, or the files are not those that it lists.
        IntegrityError: a file is not the version that `versions.json` says; names the file.
        PromptError: a file is no prompt, or the history of a name is another one here.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", hint="Check the path.")
    if (folder / VERSIONS_FILE).is_file():
        raise UsageError(f"{folder} is the folder of one prompt", hint=f"Name the folder above it: {folder.parent}")
    histories = sorted(path.parent for path in folder.glob(f"*/{VERSIONS_FILE}"))
    if histories:
        chosen = choose(folder, {path.name: path for path in histories}, names)
        incoming: dict[str, Sequence[Incoming]] = {name: _history(chosen[name]) for name in chosen}
        return take_over(layout, str(folder), incoming, actor=actor, at=at)
    files, notes = prompt_files(folder, names)
    incoming = {name: [_file(path, at)] for name, path in files.items()}
    return take_over(layout, str(folder), incoming, whole=False, notes=notes, actor=actor, at=at)


def read_prompt(data: bytes, *, markdown: bool = True) -> Prompt:
    """The prompt in the bytes of a file, Markdown or JSON.

    Raises:
        PromptError: there is none, whatever the fault.
    """
    try:
        # Bytes, since reading a file as text would turn a lone carriage return into another line ending.
        text = data.decode()
        return Prompt.from_text(text) if markdown else Prompt.model_validate_json(text)
    except ValidationError as error:
        raise PromptError(first_fault(error, "the prompt"), hint="Correct that field.") from None
    except UnicodeDecodeError:
        raise PromptError("it is not UTF-8 text", hint="Save it as UTF-8.") from None
    except (TypeError, ValueError, RecursionError) as error:  # a header that is YAML, and no header
        raise PromptError(f"its header is malformed: {error}", hint="Mend it between the --- lines.") from None


def prompt_files(folder: Path, names: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """The prompt files of a folder by the names they can have, and a sentence on each other file.

    Raises:
        NotFoundError: one of the `names` has no file there.
    """
    files, notes = {}, []
    wanted = list(names)
    for path in sorted(folder.glob("*.md")):
        try:
            check_name(path.stem)
        except UsageError:
            if not wanted:
                notes.append(f"{path.name} was left out, since {path.stem!r} cannot be the name of a prompt")
            continue
        files[path.stem] = path
    return choose(folder, files, wanted), notes


def choose(place: Path | str, there: Mapping[str, Path], names: Iterable[str]) -> dict[str, Path]:
    """Those of the names that are wanted, or all."""
    wanted = list(dict.fromkeys(names))
    if not there and not wanted:
        raise NotFoundError(
            f"no prompts in {place}", hint=f"It must hold files NAME.md, or folders NAME with a {VERSIONS_FILE}."
        )
    for name in wanted:
        if name not in there:
            raise NotFoundError(f"no prompt {name!r} in {place}", hint=f"There are: {', '.join(sorted(there))}.")
    return {name: there[name] for name in wanted or sorted(there)}


def _files(folder: Path, kept: Sequence[SavedPrompt]) -> dict[Path, bytes]:
    """What the folder of one prompt must hold; `versions.json` last, so that it lists no file that is not there."""
    there = {entry.version: entry for entry in _read_versions(folder)} if (folder / VERSIONS_FILE).is_file() else {}
    here = {saved.version: saved.digest for saved in kept}
    for number, entry in there.items():
        if here.get(number) != entry.digest:
            what = f"version {number} as {short(entry.digest)}"
            raise PromptError(
                f"{folder} has {what}, which is not kept here, so nothing was written",
                hint="Import that folder first, or export to another one.",
            )
    contents, entries = {}, []
    for saved in kept:
        name, data = _content(saved)
        contents[folder / name] = data
        # What another workspace wrote of the same version stays, or the two would undo each other's exports in git.
        before = there.get(saved.version)
        entries.append(
            VersionEntry(
                version=saved.version,
                digest=saved.digest,
                created_at=before.created_at if before else saved.created_at,
                message=before.message if before else saved.message,
                tags=tuple(sorted({*saved.tags, *(before.tags if before else ())})),
            )
        )
    listed = VersionsFile(versions=tuple(entries)).model_dump(mode="json")
    contents[folder / VERSIONS_FILE] = json.dumps(listed, indent=2, ensure_ascii=False).encode() + b"\n"
    return contents


def _content(saved: SavedPrompt) -> tuple[str, bytes]:
    """The name and the bytes of a version's file. Markdown, unless that would be read back as another prompt, as with
    white space around a message or a heading inside one.
    """
    text = saved.prompt.to_text()
    with contextlib.suppress(PromptError):
        if read_prompt(text.encode()).digest == saved.digest:
            return f"{saved.version:04}.md", text.encode()
    data = json.dumps(saved.prompt.model_dump(mode="json"), indent=2, ensure_ascii=False).encode()
    return f"{saved.version:04}.json", data + b"\n"


def _read_versions(folder: Path) -> tuple[VersionEntry, ...]:
    path = folder / VERSIONS_FILE
    try:
        return VersionsFile.model_validate(json.loads(path.read_bytes())).versions
    except ValidationError as error:
        raise DataError(first_fault(error, "the file"), path=str(path), hint="Export the prompts again.") from None
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        hint = "Mend it; a merge in git may have left its marks."
        raise DataError(f"not JSON: {error}", path=str(path), hint=hint) from None


def _history(folder: Path) -> list[Incoming]:
    entries = _read_versions(folder)
    listed = {entry.version for entry in entries}
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := _VERSION_FILE.fullmatch(path.name):
            number = int(match.group(1))
            if number not in listed or number in files:
                what = f"{path.name} is not in it" if number not in listed else f"version {number} has two files"
                raise DataError(what, path=str(folder / VERSIONS_FILE), hint="Remove the file, or export again.")
            files[number] = path
    if missing := sorted(listed - files.keys()):
        hint = "Bring the file back from git, or export again."
        raise DataError(f"no file of version {missing[0]}", path=str(folder / VERSIONS_FILE), hint=hint)
    return [
        Incoming(_read(files[entry.version], entry.digest), entry.created_at, entry.message, entry.tags, entry.version)
        for entry in entries
    ]


def _file(path: Path, at: datetime | None) -> Incoming:
    try:
        return Incoming(read_prompt(path.read_bytes()), timestamp(at), f"imported from {path.name}")
    except PromptError as error:
        raise PromptError(f"{path}: {error.message}", hint=error.hint) from None


def _read(path: Path, digest: str) -> Prompt:
    hint = f"Bring the file back from git. To keep a change, save it: workbench prompt save {path.parent.name} FILE"
    try:
        prompt = read_prompt(path.read_bytes(), markdown=path.suffix == ".md")
    except PromptError as error:
        raise IntegrityError(f"{path} is no prompt, so nothing was imported: {error.message}", hint=hint) from None
    if prompt.digest != digest:
        raise IntegrityError(
            f"{path} is {short(prompt.digest)}, and {VERSIONS_FILE} says {short(digest)}, so nothing was imported",
            hint=hint,
        )
    return prompt
