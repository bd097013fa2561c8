"""Approvals: people of a role who consent to a version of an artifact, once each, on record for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from workbench.errors import UsageError
from workbench.registry import names
from workbench.state import audit
from workbench.state.db import Approval, reading, timestamp, writing
from workbench.workspace import Layout


@dataclass(frozen=True)
class Consent:
    """Who approved a version, as what, when, and in which words."""

    role: str
    actor: str
    at: str
    comment: str


def approve(
    layout: Layout,
    reference: str,
    role: str,
    *,
    comment: str = "",
    actor: str | None = None,
    at: datetime | None = None,
) -> names.NamedVersion:
    """Put on record that `actor` (the user of this process by default), who has the role, approves a version.

    Approving twice is approving once.

    Raises:
        NotFoundError: no such artifact.
        UsageError: nobody has the role, or the actor has not.
    """
    found, who, when = names.resolve(layout, reference), actor or names.current_user(), timestamp(at)
    members = layout.settings.roles.get(role, ())
    if who not in members:
        there = f"{role} is: {', '.join(members)}." if members else f'Name people: [roles] {role} = ["{who}"]'
        raise UsageError(f"{who} is not {role} by [roles] in workbench.toml", hint=there)
    with writing(layout.state_url) as session:
        if session.get(Approval, (found.name, found.version, role, who)) is None:
            fields = {"name": found.name, "version": found.version, "role": role, "actor": who}
            session.add(Approval(**fields, at=when, comment=comment))
            audit.append(
                session,
                when,
                "approve",
                found.name,
                who,
                to_version=found.version,
                detail={"role": role, "comment": comment, "digest": found.digest},
            )
    return found


def approvals(layout: Layout, name: str, version: int) -> tuple[Consent, ...]:
    """Who approved a version, in order of time."""
    with reading(layout.state_url) as session:
        found = session.scalars(select(Approval).filter_by(name=name, version=version).order_by(Approval.at))
        return tuple(Consent(row.role, row.actor, row.at, row.comment) for row in found)


def counted(found: Sequence[Consent], role: str, members: Mapping[str, Sequence[str]]) -> list[str]:
    """People who approved in the role and have it still."""
    return [consent.actor for consent in found if consent.role == role and consent.actor in members.get(role, ())]
