"""Names, versions and aliases of artifacts, and the history of every move.

A name's versions count from 1 and never change. An alias points at one version; moving it, and moving it back, are
events. Several processes may write at once: each gets its own version number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import EllipsisType
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from workbench import access
from workbench.errors import GateRefused, NotFoundError, UsageError
from workbench.state import audit
from workbench.state.db import Alias, ArtifactVersion, Audit, reading, timestamp, writing
from workbench.workspace import Layout

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{6,64}")


@dataclass(frozen=True)
class NamedVersion:
    """One version of a named artifact and the aliases that point at it now."""

    name: str
    version: int
    digest: str
    aliases: tuple[str, ...]
    created_at: str
    run_id: str | None = None
    variant: str | None = None
    decision: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "aliases": list(self.aliases),
            "created_at": self.created_at,
        }


@dataclass(frozen=True)
class Move:
    """One event in a name's history. `kind` is `register`, `alias`, `rollback`, `refuse` or `approve`."""

    seq: int
    at: str
    kind: str
    name: str
    alias: str | None
    from_version: int | None
    to_version: int | None
    actor: str
    detail: Mapping[str, Any]


def register(
    layout: Layout,
    name: str,
    digest: str,
    *,
    run_id: str | None = None,
    variant: str | None = None,
    decision: str | None = None,
    alias: str | None = None,
    actor: str | None = None,
    detail: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> int:
    """The version of `name` that has `digest`: the one it has already, else the next number.

    With `alias`, that alias moves to the version in the same transaction. What the version is goes into the line of the
    audit too, so that an exchanged digest shows.

    Raises:
        UsageError: the name or the alias is malformed.
    """
    check_name(name)
    if alias is not None:
        check_alias(alias)
    with writing(layout.state_url) as session:
        found = session.scalar(select(ArtifactVersion).filter_by(name=name, digest=digest))
        if found is None:
            latest = session.scalar(select(func.max(ArtifactVersion.version)).filter_by(name=name)) or 0
            about = {"digest": digest, "run_id": run_id, "variant": variant, "decision": decision}
            found = ArtifactVersion(name=name, version=latest + 1, created_at=timestamp(at), **about)
            session.add(found)
            session.flush()
            _log(session, "register", name, None, None, found.version, actor, {**(detail or {}), **about}, at)
        if alias is not None:
            _move(session, "alias", name, alias, found.version, actor, detail, at)
        return found.version


def set_alias(
    layout: Layout,
    name: str,
    alias: str,
    version: int,
    *,
    actor: str | None = None,
    at: datetime | None = None,
    detail: Mapping[str, Any] | None = None,
    was: int | EllipsisType | None = ...,
) -> NamedVersion:
    """Point an alias at a version, whatever its policy says; `aliases.move_alias` asks that first.

    Where it points there already, nothing is recorded.

    Args:
        was: the version that it must point at until then, None for nowhere; by default any.

    Raises:
        NotFoundError: the name has no such version.
        UsageError: the alias is malformed.
        GateRefused: it does not point at `was`.
    """
    check_alias(alias)
    with writing(layout.state_url) as session:
        _version(session, name, version)
        if was is not ...:
            row = session.get(Alias, (name, alias))
            if (row.version if row else None) != was:
                raise GateRefused([f"{name}@{alias} was moved while the policy was held against version {version}"])
        _move(session, "alias", name, alias, version, actor, detail, at)
        return _describe(session, _version(session, name, version))


def rollback(
    layout: Layout,
    name: str,
    alias: str,
    *,
    actor: str | None = None,
    at: datetime | None = None,
    was: int | None = None,
    to: int | None = None,
) -> NamedVersion:
    """Point an alias back at the version before the present one; again, at the one before that.

    Whatever state that version is in: `aliases.roll_back` looks at it first.

    Args:
        was: the version that it must point at until then; by default any.
        to: the version that it must go back to; by default any.

    Raises:
        AccessDenied: who is signed in is no editor.
        NotFoundError: no such alias, or it never pointed anywhere else.
        UsageError: it does not point at `was`, or goes back elsewhere than `to`.
    """
    access.require("editor", "roll back")
    with writing(layout.state_url) as session:
        _, before = _way_back(session, name, alias, was)
        if to is not None and before != to:
            raise UsageError(
                f"{name}@{alias} goes back to version {before} by now, not to {to}: somebody moved it",
                hint="Look again.",
            )
        _move(session, "rollback", name, alias, before, actor, None, at)
        return _describe(session, _version(session, name, before))


def way_back(layout: Layout, name: str, alias: str, *, was: int | None = None) -> tuple[int, int]:
    """The version that an alias points at, and the one that a rollback takes it to.

    Raises:
        NotFoundError: no such alias, or it never pointed anywhere else.
        UsageError: it does not point at `was`.
    """
    with reading(layout.state_url) as session:
        return _way_back(session, name, alias, was)


def _way_back(session: Session, name: str, alias: str, was: int | None) -> tuple[int, int]:
    row = session.get(Alias, (name, alias))
    if row is None:
        raise _no_alias(session, name, alias)
    if was is not None and row.version != was:
        raise UsageError(
            f"{name}@{alias} points at version {row.version} by now, not at {was}: somebody moved it",
            hint="Look again.",
        )
    trail = trail_of(session.scalars(select(Audit).filter_by(name=name, alias=alias).order_by(Audit.seq)))
    if len(trail) < 2:
        raise NotFoundError(
            f"{name}@{alias} has always pointed at version {row.version}",
            hint=f"Move it with: workbench artifact alias {name}@VERSION {alias}",
        )
    return row.version, trail[-2]


def trail_of(moves: Iterable[Move | Audit]) -> list[int]:
    """The versions an alias pointed at that were not rolled back, oldest first; the last is the present one.

    Args:
        moves: what was done with that alias, oldest first.
    """
    trail: list[int] = []
    for move in moves:
        if move.kind == "alias" and move.to_version is not None:
            trail.append(move.to_version)
        elif move.kind == "rollback" and trail:
            trail.pop()
    return trail


def record_refusal(
    layout: Layout,
    name: str,
    alias: str | None,
    detail: Mapping[str, Any],
    *,
    actor: str | None = None,
    at: datetime | None = None,
) -> None:
    """Note that a promotion to `name`, or a move of one of its aliases, was refused."""
    with writing(layout.state_url) as session:
        _log(session, "refuse", name, alias, None, None, actor, detail, at)


def alias_version(layout: Layout, name: str, alias: str) -> int | None:
    """The version that an alias points at now; None where it points nowhere."""
    with reading(layout.state_url) as session:
        row = session.get(Alias, (name, alias))
        return row.version if row else None


def resolve(layout: Layout, reference: str) -> NamedVersion:
    """The version that `NAME` (its newest), `NAME@3`, `NAME@ALIAS` or `NAME@sha256:…` (six digits or more) means.

    Raises:
        NotFoundError: no such name, version, alias or digest; the hint lists what there is.
        UsageError: the reference is malformed.
    """
    name, separator, selector = reference.partition("@")
    check_name(name)
    with reading(layout.state_url) as session:
        if not separator:
            return _describe(session, _version(session, name, None))
        if selector.isdecimal() and selector.isascii():
            return _describe(session, _version(session, name, int(selector)))
        if selector.startswith("sha256:"):
            return _describe(session, _by_digest(session, name, selector))
        check_alias(selector)
        same = and_(Alias.name == ArtifactVersion.name, Alias.version == ArtifactVersion.version)
        found = session.scalar(
            select(ArtifactVersion).join(Alias, same).where(Alias.name == name, Alias.alias == selector)
        )
        if found is None:
            raise _no_alias(session, name, selector)
        return _describe(session, found)


def ls(layout: Layout, name: str | None = None) -> tuple[NamedVersion, ...]:
    """All versions, or those of one name, by name and version."""
    rows = select(ArtifactVersion).order_by(ArtifactVersion.name, ArtifactVersion.version)
    moved = select(Alias).order_by(Alias.alias)
    if name is not None:
        rows, moved = rows.filter_by(name=name), moved.filter_by(name=name)
    with reading(layout.state_url) as session:
        aliases: dict[tuple[str, int], list[str]] = {}
        for row in session.scalars(moved):
            aliases.setdefault((row.name, row.version), []).append(row.alias)
        return tuple(_named(row, aliases.get((row.name, row.version), ())) for row in session.scalars(rows))


def history(layout: Layout, name: str) -> tuple[Move, ...]:
    """Everything done under a name, oldest first; refusals too, so that a name may have a history and no version.

    Empty where nothing ever was.
    """
    with reading(layout.state_url) as session:
        return tuple(
            Move(e.seq, e.at, e.kind, e.name, e.alias, e.from_version, e.to_version, e.actor, e.detail)
            for e in session.scalars(select(Audit).filter_by(name=name).order_by(Audit.seq))
        )


def alias_at(layout: Layout, name: str, alias: str, at: datetime) -> Move:
    """The move by which an alias came to point where it pointed at a time (zone-aware); `to_version` is the answer.

    Raises:
        NotFoundError: it pointed nowhere then.
    """
    moves = [move for move in history(layout, name) if move.alias == alias and move.kind in ("alias", "rollback")]
    before = [move for move in moves if move.at <= timestamp(at)]
    if not before:
        since = f"It was first set at {moves[0].at}." if moves else f"See: workbench artifact history {name}"
        raise NotFoundError(f"{name}@{alias} pointed nowhere at {timestamp(at)}", hint=since)
    return before[-1]


def check_name(name: str) -> None:
    """Refuse a malformed name.

    Raises:
        UsageError: it is not lower-case letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not an artifact's name",
            hint="Use lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )


def check_alias(alias: str) -> None:
    """Refuse a malformed alias.

    Raises:
        UsageError: it is not formed like a name, or is all digits and so would look like a version.
    """
    if not _NAME.fullmatch(alias) or alias.isdecimal():
        raise UsageError(
            f"{alias!r} is not an alias",
            hint="Use lower-case letters, digits, '.', '_' and '-', not digits alone: staging, prod, canary.",
        )


def current_user() -> str:
    """Who acts, for the record; see `access.current`."""
    return access.current().name


def _version(session: Session, name: str, version: int | None) -> ArtifactVersion:
    query = select(ArtifactVersion).filter_by(name=name).order_by(ArtifactVersion.version.desc())
    found = session.scalars(query if version is None else query.filter_by(version=version)).first()
    if found is not None:
        return found
    latest = session.scalar(select(func.max(ArtifactVersion.version)).filter_by(name=name))
    if latest is None:
        names = sorted(set(session.scalars(select(ArtifactVersion.name))))
        there = f"There are: {', '.join(names)}." if names else "Make one with: workbench promote RUN NAME"
        raise NotFoundError(f"no artifact {name!r}", hint=there)
    raise NotFoundError(f"{name} has no version {version}", hint=f"Its newest is {latest}.")


def _by_digest(session: Session, name: str, digest: str) -> ArtifactVersion:
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest!r} is not a digest", hint="Write sha256: and at least six hexadecimal digits.")
    _version(session, name, None)
    found = session.scalars(
        select(ArtifactVersion).filter_by(name=name).where(ArtifactVersion.digest.startswith(digest))
    ).all()
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{digest} is the start of {len(found)} digests of {name}", hint="Write more of it.")
    raise NotFoundError(f"{name} has no version with digest {digest}", hint=f"See: workbench artifact ls {name}")


def _no_alias(session: Session, name: str, alias: str) -> NotFoundError:
    _version(session, name, None)
    aliases = session.scalars(select(Alias.alias).filter_by(name=name).order_by(Alias.alias)).all()
    there = f"It has: {', '.join(aliases)}." if aliases else f"Set one with: workbench artifact alias {name} {alias}"
    return NotFoundError(f"{name} has no alias {alias!r}", hint=there)


def _move(
    session: Session,
    kind: str,
    name: str,
    alias: str,
    version: int,
    actor: str | None,
    detail: Mapping[str, Any] | None,
    at: datetime | None,
) -> None:
    row = session.get(Alias, (name, alias))
    before = row.version if row else None
    if before == version:
        return
    if row is None:
        session.add(Alias(name=name, alias=alias, version=version, moved_at=timestamp(at)))
    else:
        row.version, row.moved_at = version, timestamp(at)
    _log(session, kind, name, alias, before, version, actor, detail, at)
    session.flush()


def _log(
    session: Session,
    kind: str,
    name: str,
    alias: str | None,
    before: int | None,
    after: int | None,
    actor: str | None,
    detail: Mapping[str, Any] | None,
    at: datetime | None,
) -> None:
    audit.append(
        session,
        timestamp(at),
        kind,
        name,
        actor or current_user(),
        alias=alias,
        from_version=before,
        to_version=after,
        detail=detail,
    )


def _describe(session: Session, row: ArtifactVersion) -> NamedVersion:
    aliases = session.scalars(select(Alias.alias).filter_by(name=row.name, version=row.version).order_by(Alias.alias))
    return _named(row, aliases)


def _named(row: ArtifactVersion, aliases: Iterable[str]) -> NamedVersion:
    return NamedVersion(
        row.name, row.version, row.digest, tuple(aliases), row.created_at, row.run_id, row.variant, row.decision
    )
