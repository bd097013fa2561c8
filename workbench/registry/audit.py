"""The audit of a workspace: held against its chain and against what the state says now, and written out."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from workbench.files import atomic_file, canonical_json
from workbench.state.audit import AuditCheck, check_chain, lines
from workbench.state.db import Alias, ArtifactVersion, reading
from workbench.workspace import Layout


def verify_audit(layout: Layout, head: str | None = None) -> AuditCheck:
    """Whether any line was changed, removed, added or moved, and whether aliases and versions are as the lines say.

    The second finds an end that was cut off, if it moved something; a `head` that was kept elsewhere finds any.
    """
    with reading(layout.state_url) as session:
        found = list(lines(session))
        aliases = {(row.name, row.alias): row.version for row in session.scalars(select(Alias))}
        versions = {(row.name, row.version) for row in session.scalars(select(ArtifactVersion))}
    check = check_chain(found, head)
    told: dict[tuple[str, str], int] = {}
    registered = set()
    for line in found:
        if line["kind"] in ("alias", "rollback"):
            told[line["name"], line["alias"]] = line["to_version"]
        elif line["kind"] == "register":
            registered.add((line["name"], line["to_version"]))
    faults = list(check.faults)
    for key in sorted(aliases.keys() | told.keys()):
        if aliases.get(key) != told.get(key):
            faults.append(f"{'@'.join(key)} points at version {aliases.get(key)}, and the audit says {told.get(key)}")
    faults += [
        f"version {version} of {name} is in the {'state' if (name, version) in versions else 'audit'} alone"
        for name, version in sorted(versions ^ registered)
    ]
    return AuditCheck(check.count, check.head, tuple(faults))


def export_audit(layout: Layout, path: Path) -> int:
    """Write every line as JSON Lines, digests included; returns how many."""
    count = 0
    with reading(layout.state_url) as session, atomic_file(path) as file:
        for line in lines(session):
            file.write(canonical_json(line) + b"\n")
            count += 1
    return count
