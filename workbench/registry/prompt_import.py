"""Versions of prompts that come from elsewhere: held against those that are kept here, and taken over in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from workbench.errors import PromptError, UsageError
from workbench.files import short
from workbench.pipeline.prompt import Prompt
from workbench.registry.names import check_alias, check_name, current_user
from workbench.registry.prompts import LATEST, TESTED, put_tag
from workbench.state import audit
from workbench.state.db import PromptTag, PromptVersion, timestamp, writing
from workbench.workspace import Layout


@dataclass(frozen=True)
class Incoming:
    """A version as the other place has it.

    Attributes:
        number: the version that it must be here too; None where it is the next that is free.
        aliases: words that are moved from version to version there. Here they become tags, where the newest version with
            one is then the version that it points at.
    """

    prompt: Prompt
    created_at: str
    message: str = ""
    tags: tuple[str, ...] = ()
    number: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """What became of the versions of one name: those added, and those that were here."""

    name: str
    added: tuple[int, ...]
    found: tuple[int, ...]


@dataclass(frozen=True)
class ImportReport:
    """What an import did; `notes` are sentences on what was left out, and why."""

    source: str
    prompts: tuple[Taken, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        prompts = [{"name": one.name, "added": list(one.added), "found": list(one.found)} for one in self.prompts]
        return {"source": self.source, "prompts": prompts, "notes": list(self.notes)}


@dataclass
class _Kept:
    """The versions of a name and their tags, those that are being added included."""

    digests: dict[int, str] = field(default_factory=dict)
    tags: set[tuple[str, int]] = field(default_factory=set)


def take_over(
    layout: Layout,
    source: str,
    incoming: Mapping[str, Sequence[Incoming]],
    *,
    whole: bool = True,
    notes: Iterable[str] = (),
    actor: str | None = None,
    at: datetime | None = None,
) -> ImportReport:
    """Add the versions that are not kept here, in order, each with a line of the audit. All are, or none is.

    A version with a number is found where that number is the same prompt here, and refused where it is another. Of
    versions without numbers, those are found that follow one another here in the same order.

    Args:
        source: where they come from, for the audit.
        incoming: the versions of each name, the oldest first.
        whole: they are the history of their name; False where each is only what it is now, which is then held against
            the newest version here, as `save_prompt` does.
        notes: what was left out before.

    Raises:
        PromptError: the history of a name is another one here, or a version before these is missing.
        UsageError: a name or a tag is malformed.
    """
    actor = actor or current_user()
    told, taken = list(notes), []
    with writing(layout.state_url) as session:
        for name, versions in incoming.items():
            check_name(name)
            kept = _kept(session, name)
            before = frozenset(kept.digests)
            if any(one.number is not None for one in versions):
                numbers = _numbered(name, kept.digests, versions)
            else:
                numbers = _following(kept.digests, [one.prompt.digest for one in versions], whole)
            for number, version in zip(numbers, versions, strict=True):
                if number not in kept.digests:
                    _add(session, name, number, version, source, actor, at)
                    kept.digests[number] = version.prompt.digest
            session.flush()
            told += _tag(session, name, kept, zip(numbers, versions, strict=True), source, actor, at)
            unique = sorted(set(numbers))
            added = tuple(number for number in unique if number not in before)
            taken.append(Taken(name, added, tuple(number for number in unique if number in before)))
    return ImportReport(source, tuple(taken), tuple(told))


def in_order(kept: Sequence[str | None], wanted: Sequence[str], start: int = 0) -> list[int | None]:
    """Where each wanted digest is found among those kept, in the same order and none before `start`. None is not found,
    nor is any after it but one that repeats what comes before it; what is not found is added at the end.
    """
    places: list[int | None] = []
    here = start
    for digest in wanted:
        found = next((place for place in range(here, len(kept)) if kept[place] == digest), None)
        places.append(found)
        here = len(kept) if found is None else found
    return places


def _following(kept: Mapping[int, str], wanted: Sequence[str], whole: bool) -> list[int]:
    there = sorted(kept)
    places = in_order([kept[number] for number in there], wanted, 0 if whole or not there else len(there) - 1)
    newest, last = max(there, default=0), ""
    numbers = []
    for place, digest in zip(places, wanted, strict=True):
        if place is None:
            newest += digest != last
            last = digest
        numbers.append(newest if place is None else there[place])
    return numbers


def _numbered(name: str, kept: Mapping[int, str], versions: Sequence[Incoming]) -> list[int]:
    newest = max(kept, default=0)
    numbers = []
    for version in versions:
        number, digest = version.number or 0, version.prompt.digest
        if kept.get(number, digest) != digest:
            raise PromptError(
                f"version {number} of {name} is {short(digest)} there and {short(kept[number])} here, so nothing was "
                "imported",
                hint="Rename the folder there to import it under another name.",
            )
        if number not in kept:
            if number != newest + 1:
                raise PromptError(
                    f"version {number} of {name} would come after version {newest}, so nothing was imported",
                    hint="Bring the versions between them too.",
                )
            newest = number
        numbers.append(number)
    return numbers


def _kept(session: Session, name: str) -> _Kept:
    return _Kept(
        {row.version: row.digest for row in session.scalars(select(PromptVersion).filter_by(name=name))},
        {(row.tag, row.version) for row in session.scalars(select(PromptTag).filter_by(name=name))},
    )


def _add(
    session: Session, name: str, number: int, version: Incoming, source: str, actor: str, at: datetime | None
) -> None:
    session.add(
        PromptVersion(
            name=name,
            version=number,
            digest=version.prompt.digest,
            created_at=version.created_at,
            message=version.message,
            content=version.prompt.model_dump(mode="json"),
        )
    )
    # A save says itself when it was; an imported version says what the other place said, so who brought it is on record.
    detail = {"from": source, "digest": version.prompt.digest}
    audit.append(session, timestamp(at), "import", f"prompt/{name}", actor, to_version=number, detail=detail)


def _tag(
    session: Session,
    name: str,
    kept: _Kept,
    versions: Iterable[tuple[int, Incoming]],
    source: str,
    actor: str,
    at: datetime | None,
) -> list[str]:
    notes: list[str] = []
    untaken: list[int] = []

    def put(tag: str, number: int) -> None:
        if (tag, number) not in kept.tags:
            put_tag(session, name, number, tag, actor, {"from": source}, at)
            kept.tags.add((tag, number))

    placed = list(versions)
    for number, version in placed:
        if TESTED in (*version.tags, *version.aliases) and (TESTED, number) not in kept.tags:
            untaken.append(number)
        for tag in version.tags:
            if tag == LATEST:
                raise UsageError(f"{name}: {tag!r} is no tag", hint="It means the newest version.")
            check_alias(tag)
            if tag != TESTED:
                put(tag, number)
    for number, version in placed:
        for alias in version.aliases:
            newer = [other for tag, other in kept.tags if tag == alias and other > number]
            if newer:
                notes.append(f"{name}: {alias} points at version {number} there, and version {max(newer)} is it here")
            elif alias != TESTED:
                put(alias, number)
    if untaken:
        which = ", ".join(map(str, sorted(set(untaken))))
        notes.append(f"{name}: `{TESTED}` was left out on version {which}, since only a gate of this workspace puts it")
    return notes
