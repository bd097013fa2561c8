"""Prompts by name: files in `prompts/` that people edit, and versions that are kept and never overwritten."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from workbench.errors import NotFoundError, PromptError, UsageError, WorkbenchError
from workbench.files import write_atomic
from workbench.pipeline.prompt import Prompt
from workbench.registry.names import check_alias, check_name, current_user
from workbench.state import audit
from workbench.state.db import PromptTag, PromptVersion, reading, timestamp, writing
from workbench.workspace import Layout

# What a version is called that a gate let pass.
TESTED = "tested"
# What the newest version is called, whichever that is.
LATEST = "latest"
# Where the header of a prompt's text ends, and how a message begins.
_END = "\n---\n"
_HEADING = re.compile(r"^## ", re.MULTILINE)


@dataclass(frozen=True)
class SavedPrompt:
    """One kept version of a prompt."""

    name: str
    version: int
    digest: str
    created_at: str
    message: str
    prompt: Prompt
    tags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, str | int | list[str]]:
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "created_at": self.created_at,
            "message": self.message,
            "tags": list(self.tags),
        }


def save_prompt(layout: Layout, name: str, prompt: Prompt, *, message: str = "", at: datetime | None = None) -> int:
    """Keep `prompt` as the next version of `name`. Where the newest version is this very prompt, that is the answer."""
    return keep_prompt(layout, name, prompt, message=message, at=at)[0]


def keep_prompt(
    layout: Layout, name: str, prompt: Prompt, *, message: str = "", at: datetime | None = None
) -> tuple[int, bool]:
    """As `save_prompt`: the version, and whether it is new. Where it is not, the message is not kept."""
    check_name(name)
    with writing(layout.state_url) as session:
        newest = session.scalar(
            select(PromptVersion).filter_by(name=name).order_by(PromptVersion.version.desc()).limit(1)
        )
        if newest is not None and newest.digest == prompt.digest:
            return newest.version, False
        latest = session.scalar(select(func.max(PromptVersion.version)).filter_by(name=name)) or 0
        session.add(
            PromptVersion(
                name=name,
                version=latest + 1,
                digest=prompt.digest,
                created_at=timestamp(at),
                message=message,
                content=prompt.model_dump(mode="json"),
            )
        )
        return latest + 1, True


def prompt_log(layout: Layout, name: str | None = None) -> list[SavedPrompt]:
    """Kept versions, the newest first; of every prompt where no name is given.

    Raises:
        NotFoundError: nothing was saved under that name.
    """
    with reading(layout.state_url) as session:
        query = select(PromptVersion).order_by(PromptVersion.name, PromptVersion.version.desc())
        tagged = select(PromptTag).order_by(PromptTag.tag)
        if name is not None:
            query, tagged = query.filter_by(name=name), tagged.filter_by(name=name)
        tags: dict[tuple[str, int], list[str]] = {}
        for tag in session.scalars(tagged):
            tags.setdefault((tag.name, tag.version), []).append(tag.tag)
        found = [
            SavedPrompt(
                row.name,
                row.version,
                row.digest,
                row.created_at,
                row.message or "",
                Prompt.model_validate(row.content),
                tuple(tags.get((row.name, row.version), ())),
            )
            for row in session.scalars(query)
        ]
    if name is not None and not found:
        raise NotFoundError(f"no prompt was saved as {name!r}", hint=f"Save it: workbench prompt save {name} FILE")
    return found


def kept_prompts(layout: Layout, names: Iterable[str] = ()) -> dict[str, list[SavedPrompt]]:
    """The kept versions of the named prompts, or of all, by name, the oldest first.

    Raises:
        NotFoundError: nothing was saved under a name.
    """
    wanted = list(dict.fromkeys(names))
    kept: dict[str, list[SavedPrompt]] = {name: [] for name in wanted}
    for log in [prompt_log(layout, name) for name in wanted] if wanted else [prompt_log(layout)]:
        for saved in reversed(log):
            kept.setdefault(saved.name, []).append(saved)
    return kept if wanted else dict(sorted(kept.items()))


def find_prompt(layout: Layout, reference: str) -> Prompt:
    """A prompt file (`triage`, `prompts/triage.md`, any path) or a kept version (`triage@3`, `triage@latest`), or the
    newest with a tag (`triage@tested`).

    Raises:
        NotFoundError: there is none.
        PromptError: the file is malformed.
    """
    name, at, version = reference.partition("@")
    if at:
        versions = prompt_log(layout, name)
        if version in ("", LATEST):
            return versions[0].prompt
        for saved in versions:
            if str(saved.version) == version or version in saved.tags:
                return saved.prompt
        what = "version" if version.isdecimal() else "tag"
        raise NotFoundError(
            f"{name} has no {what} {version}", hint=f"It has {len(versions)}: workbench prompt log {name}"
        )
    for path in (
        Path(reference),
        layout.root / reference,
        layout.prompts / reference,
        layout.prompts / f"{reference}.md",
    ):
        if path.is_file():
            return Prompt.from_file(path)
    try:
        return prompt_log(layout, name)[0].prompt
    except (NotFoundError, UsageError):
        raise NotFoundError(
            f"no prompt {reference!r}",
            hint=f"Put it in {layout.prompts.name}/{reference}.md, or see: workbench prompt ls",
        ) from None


def tag_prompt(
    layout: Layout, name: str, version: int, tag: str, *, actor: str | None = None, at: datetime | None = None
) -> None:
    """Put a tag on a kept version. The same tag may be on several.

    Raises:
        NotFoundError: there is no such version.
        UsageError: the tag is malformed, or `tested`, which only a gate that let the prompt pass puts.
    """
    check_alias(tag)
    if tag in (TESTED, LATEST):
        raise UsageError(
            f"nobody puts the tag {tag!r} by hand", hint="`tested` is put when a variant with the prompt is promoted."
        )
    with writing(layout.state_url) as session:
        if session.get(PromptVersion, (name, version)) is None:
            raise NotFoundError(f"{name} has no version {version}", hint=f"See: workbench prompt log {name}")
        put_tag(session, name, version, tag, actor or current_user(), {}, at)


def tag_tested(
    layout: Layout, prompt: Prompt, run_id: str, variant: str, *, actor: str | None = None, at: datetime | None = None
) -> None:
    """Tag every kept version that is this very prompt as `tested`, since a gate let a variant with it pass."""
    with writing(layout.state_url) as session:
        for row in session.scalars(select(PromptVersion).filter_by(digest=prompt.digest)).all():
            put_tag(
                session,
                row.name,
                row.version,
                TESTED,
                actor or current_user(),
                {"run_id": run_id, "variant": variant},
                at,
            )


def put_tag(
    session: Session, name: str, version: int, tag: str, actor: str, detail: dict[str, str], at: datetime | None
) -> None:
    """Put a tag on a kept version, with a line of the audit, in the caller's writing transaction."""
    if session.get(PromptTag, (name, tag, version)) is not None:
        return
    session.add(PromptTag(name=name, tag=tag, version=version, at=timestamp(at)))
    # Prompts and artifacts are named apart, and often alike.
    line = {"to_version": version, "detail": {"tag": tag, **detail}}
    audit.append(session, timestamp(at), "tag", f"prompt/{name}", actor, **line)


def rollback_prompt(layout: Layout, name: str, *, to: int | None = None) -> int:
    """Bring back an earlier version (the last but one by default) as the newest, and as the file in `prompts/`.

    Nothing is removed: the version rolled back from stays in the log. A file that says the same is left as it is; another
    one keeps its style.

    Raises:
        PromptError: there is no earlier version.
    """
    versions = prompt_log(layout, name)
    wanted = to if to is not None else versions[0].version - 1
    found = next((saved for saved in versions if saved.version == wanted), None)
    if found is None:
        raise PromptError(f"{name} has no version {wanted}", hint=f"See: workbench prompt log {name}")
    version = save_prompt(layout, name, found.prompt, message=f"rollback to version {wanted} by {current_user()}")
    path = layout.prompts / f"{name}.md"
    there = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    if not _says(there, found.prompt):
        write_atomic(path, in_style(there, found.prompt))
    return version


def in_style(file: str, prompt: Prompt) -> str:
    """The text of a prompt as it would be written in a file: its header if that still fits, its way to write a single
    message, and variables in one line.
    """
    text = prompt.to_text()
    header, body = text[: text.index(_END) + len(_END)], text[text.index(_END) + len(_END) :]
    own = file[: file.index(_END) + len(_END)] if file.startswith("---\n") and _END in file else ""
    flow = "" if prompt.examples else f"---\nvariables: [{', '.join(prompt.variables)}]{_END}"
    if len(prompt.messages) == 1 and not _HEADING.search(file):
        body = f"{prompt.messages[0].content}\n"
    tries = [header_ + body for header_ in (own, flow, header) if header_ or not file.startswith("---")]
    return next((written for written in tries if _says(written, prompt)), text)


def _says(text: str, prompt: Prompt) -> bool:
    try:
        return Prompt.from_text(text).digest == prompt.digest
    except (WorkbenchError, ValueError, TypeError):  # whatever it is, it is not this prompt
        return False
