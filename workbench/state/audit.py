"""The audit chain: who did what when, each line sealed by a digest that covers the line before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from workbench.files import canonical_json, digest_json

# What the first line has in the place of a digest before it.
FIRST = "sha256:" + "0" * 64
COLUMNS = ("seq", "at", "kind", "name", "alias", "from_version", "to_version", "actor", "detail", "previous")


def line_digest(line: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a line's `COLUMNS`."""
    return digest_json({name: line[name] for name in COLUMNS})


def append(session: Session, at: str, kind: str, name: str, actor: str, **fields: Any) -> None:
    """Add a line, in the caller's writing transaction.

    Args:
        fields: alias, from_version, to_version and detail, where there are such.
    """
    from workbench.state.db import Audit

    last = session.execute(select(Audit.seq, Audit.digest).order_by(Audit.seq.desc()).limit(1)).first()
    line = dict.fromkeys(COLUMNS) | {"at": at, "kind": kind, "name": name, "actor": actor, **fields}
    # As JSON will give it back, so that the digest is the same when it is read.
    line["detail"] = json.loads(canonical_json(dict(fields.get("detail") or {})))
    line["seq"], line["previous"] = (last.seq + 1, last.digest) if last else (1, FIRST)
    session.add(Audit(**line, digest=line_digest(line)))
    session.flush()


def lines(session: Session) -> Iterator[dict[str, Any]]:
    """Every line, in order, with its digest."""
    from workbench.state.db import Audit

    for row in session.scalars(select(Audit).order_by(Audit.seq).execution_options(yield_per=1000)):
        yield {name: getattr(row, name) for name in (*COLUMNS, "digest")}


@dataclass(frozen=True)
class AuditCheck:
    """Whether the audit is what was written.

    Attributes:
        count: lines. head: digest of the last, by which the whole is known; keep it elsewhere to notice a cut-off end.
        faults: a sentence for each fault.
        notes: what could not be looked at, a sentence each.
    """

    count: int
    head: str
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.faults


def check_chain(found: Sequence[Mapping[str, Any]], expected_head: str | None = None) -> AuditCheck:
    """Go along the chain: no line may be changed, missing, added or moved.

    Args:
        expected_head: a head that was kept elsewhere; it must be among the lines, or the end was cut off.
    """
    faults: list[str] = []
    previous, seen = FIRST, {FIRST}
    for place, line in enumerate(found, 1):
        if line["seq"] != place:
            faults.append(f"line {place} is missing or moved: line {line['seq']} is in its place")
            break
        if line["previous"] != previous:
            faults.append(f"line {place} does not follow from the line before it")
        if line_digest(line) != line["digest"]:
            faults.append(f"line {place} ({line['kind']} of {line['name']}, {line['at']}) was changed")
        previous = line["digest"]
        seen.add(previous)
    if expected_head is not None and expected_head not in seen:
        faults.append(f"no line has the digest {expected_head}: lines were removed from the end, or all are others")
    return AuditCheck(len(found), previous, tuple(faults))
