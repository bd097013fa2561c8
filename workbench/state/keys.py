"""Keys that people sign in with: a random text each, of which only the digest is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from workbench.access import Viewer, current
from workbench.errors import NotFoundError, UsageError
from workbench.state import audit
from workbench.state.db import AccessKey, reading, timestamp, writing

_KEY = re.compile(r"wbk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_ROLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")


@dataclass(frozen=True)
class Grant:
    """What a key lets its holder do; never the key itself.

    Attributes:
        id: the middle of the key, by which it is named and revoked.
    """

    id: str
    viewer: Viewer
    created_at: str
    created_by: str
    revoked_at: str | None = None

    def to_json(self) -> dict[str, object]:
        fields = {"created_at": self.created_at, "created_by": self.created_by, "revoked_at": self.revoked_at}
        return {"id": self.id, **self.viewer.to_json(), **fields}


def grant(
    url: str,
    person: str,
    roles: Sequence[str],
    *,
    tenants: Sequence[str] | None = None,
    at: datetime | None = None,
) -> str:
    """Make a key for a person and return it. It is not kept, so it cannot be shown again.

    Args:
        url: of the state database.
        tenants: whose rows the person may see; None is all.

    Raises:
        UsageError: the person or a role is malformed, or there is no role.
    """
    if not _PERSON.fullmatch(person):
        raise UsageError(f"{person!r} is no name of a person", hint="Use letters, digits and . _ @ + -")
    if not roles:
        raise UsageError("a key needs a role", hint="Name one: --role viewer, --role editor or --role admin.")
    for role in roles:
        if not _ROLE.fullmatch(role):
            raise UsageError(f"{role!r} is no role", hint="Use lower-case letters, digits and . _ -")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    by, when = current().name, timestamp(at)
    told = {"roles": sorted(set(roles)), "tenants": None if tenants is None else sorted(set(tenants))}
    with writing(url) as session:
        session.add(
            AccessKey(id=key_id, person=person, secret_digest=_digest(secret), created_at=when, created_by=by, **told)
        )
        audit.append(session, when, "grant", f"access/{person}", by, detail={"key": key_id, **told})
    return f"wbk_{key_id}_{secret}"


def find_key(url: str, key: str) -> Grant | None:
    """What a key grants; None where there is no such key or it was revoked."""
    parts = _KEY.fullmatch(key.strip())
    if parts is None:
        return None
    with reading(url) as session:
        row = session.get(AccessKey, parts[1])
        if row is None or not hmac.compare_digest(row.secret_digest, _digest(parts[2])):
            return None
        return _grant(row) if row.revoked_at is None else None


def find_grant(url: str, key_id: str) -> Grant | None:
    """What the key with an id grants now; None where it was revoked."""
    with reading(url) as session:
        row = session.get(AccessKey, key_id)
        return _grant(row) if row is not None and row.revoked_at is None else None


def list_grants(url: str) -> list[Grant]:
    """Every key that was made, by person and time, revoked ones too."""
    with reading(url) as session:
        rows = session.scalars(select(AccessKey).order_by(AccessKey.person, AccessKey.created_at))
        return [_grant(row) for row in rows]


def revoke(url: str, who: str, *, at: datetime | None = None) -> list[str]:
    """End the key with an id, or all keys of a person, and return the ids of those that ended.

    Raises:
        NotFoundError: there is no such key in force.
    """
    by, when = current().name, timestamp(at)
    with writing(url) as session:
        in_force = select(AccessKey).where(AccessKey.revoked_at.is_(None))
        found = session.scalars(in_force.where((AccessKey.id == who) | (AccessKey.person == who))).all()
        for row in found:
            row.revoked_at = when
            audit.append(session, when, "revoke", f"access/{row.person}", by, detail={"key": row.id})
        if not found:
            raise NotFoundError(
                f"no key in force is called {who}, or belongs to {who}", hint="See: workbench access ls"
            )
        return [row.id for row in found]


def _grant(row: AccessKey) -> Grant:
    tenants = None if row.tenants is None else tuple(row.tenants)
    viewer = Viewer(row.person, frozenset(row.roles), tenants)
    return Grant(row.id, viewer, row.created_at, row.created_by, row.revoked_at)


def _digest(secret: str) -> str:
    # 256 random bits need no slow hash.
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()
