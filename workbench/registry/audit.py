"""The audit of a workspace: held against its chain and against what the state says now, and written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from workbench.files import atomic_file, canonical_json
from workbench.registry.audit_seen import Seen
from workbench.state.audit import AuditCheck, check_chain, lines
from workbench.state.db import Alias, Approval, ArtifactVersion, AuditEnd, reading
from workbench.workspace import Layout

# What a line of `register` says of its version, and the column that says it now.
_TOLD = ("digest", "run_id", "variant", "decision")


def verify_audit(layout: Layout, head: str | None = None) -> AuditCheck:
    """Whether any line was changed, removed, added or moved, and whether versions, aliases and approvals are as the lines
    say.

    Lines that are gone from the end are missed by the count that the database keeps of them, by what an earlier call saw
    in this workspace, and by a `head` that was kept elsewhere: whoever can write to the first two cannot to the third.
    What is found sound is kept for the next call.
    """
    with reading(layout.state_url) as session:
        found = list(lines(session))
        end = session.scalars(select(AuditEnd)).one_or_none()
        check = check_chain(found, head)
        unrecorded: list[str] = []
        faults = [
            *check.faults,
            *_of_the_end(check, end),
            *_of_aliases(session, found),
            *_of_versions(session, found, unrecorded),
            *_of_approvals(session, found),
        ]
    seen = Seen.of(layout)
    faults += seen.faults({line["digest"] for line in found})
    if not faults:
        seen.keep(check.count, check.head)
    notes = (f"{len(unrecorded)} versions were registered before digests were recorded",) if unrecorded else ()
    return AuditCheck(check.count, check.head, tuple(faults), notes)


def export_audit(layout: Layout, path: Path) -> int:
    """Write every line as JSON Lines, digests included; returns how many."""
    count = 0
    with reading(layout.state_url) as session, atomic_file(path) as file:
        for line in lines(session):
            file.write(canonical_json(line) + b"\n")
            count += 1
    return count


def _of_the_end(check: AuditCheck, end: AuditEnd | None) -> Iterator[str]:
    if end is None:
        yield "the count of the lines is gone"
    elif end.count != check.count:
        yield f"{check.count} lines are there, and {end.count} were written"
    elif end.head != check.head:
        yield f"the last line is {check.head}, and the last that was written is {end.head}"


def _of_aliases(session: Session, found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    told = {
        (line["name"], line["alias"]): line["to_version"] for line in found if line["kind"] in ("alias", "rollback")
    }
    there = {(row.name, row.alias): row.version for row in session.scalars(select(Alias))}
    for key in sorted(there.keys() | told.keys()):
        if there.get(key) != told.get(key):
            yield f"{'@'.join(key)} points at version {there.get(key)}, and the audit says {told.get(key)}"


def _of_versions(session: Session, found: Sequence[Mapping[str, Any]], unrecorded: list[str]) -> Iterator[str]:
    """Faults; versions of which their line says no more than that they are there go to `unrecorded`."""
    told = {(line["name"], line["to_version"]): line for line in found if line["kind"] == "register"}
    there = {(row.name, row.version): row for row in session.scalars(select(ArtifactVersion))}
    for key in sorted(there.keys() | told.keys()):
        label = f"{key[0]}@{key[1]}"
        if key not in there or key not in told:
            yield f"version {key[1]} of {key[0]} is in the {'state' if key in there else 'audit'} alone"
        elif "digest" not in told[key]["detail"]:
            unrecorded.append(label)
        else:
            for field in _TOLD:
                now, then = getattr(there[key], field), told[key]["detail"].get(field)
                if now != then:
                    yield f"{label} has the {field} {now}, and the audit says {then}"


def _of_approvals(session: Session, found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    told = {
        (line["name"], line["to_version"], line["detail"].get("role"), line["actor"]): line["detail"].get("comment")
        for line in found
        if line["kind"] == "approve"
    }
    there = {(row.name, row.version, row.role, row.actor): row.comment for row in session.scalars(select(Approval))}
    for key in sorted(there.keys() | told.keys(), key=str):
        name, version, role, actor = key
        what = f"the approval of {name}@{version} by {actor} as {role}"
        if key not in there or key not in told:
            yield f"{what} is in the {'state' if key in there else 'audit'} alone"
        elif there[key] != told[key]:
            yield f"{what} says {there[key]!r}, and the audit says {told[key]!r}"
