"""Who acts: the person at this machine, or somebody who signed in to an app that this process serves.

Roles build upon one another: a `viewer` sees, an `editor` also promotes and moves aliases, an `admin` may do everything.
Other roles are words of the team's own, such as those that policies ask approvals of.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import AccessDenied

LADDER = ("viewer", "editor", "admin")
# Set in a process that serves apps to others: whoever is not known there may nothing.
SERVED = "WORKBENCH_SERVES_APPS"


@dataclass(frozen=True)
class Viewer:
    """A person, the roles they have, and the tenants whose rows they may see.

    Attributes:
        tenants: None sees every row, the empty tuple none.
    """

    name: str
    roles: frozenset[str] = field(default_factory=frozenset)
    tenants: tuple[str, ...] | None = None

    def has(self, role: str) -> bool:
        """Whether the person has a role, be it by one that includes it."""
        if role in LADDER:
            return any(mine in self.roles for mine in LADDER[LADDER.index(role) :])
        return role in self.roles or "admin" in self.roles

    def to_json(self) -> dict[str, Any]:
        tenants = None if self.tenants is None else list(self.tenants)
        return {"name": self.name, "roles": sorted(self.roles), "tenants": tenants}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Viewer:
        tenants: Sequence[str] | None = data["tenants"]
        return cls(str(data["name"]), frozenset(data["roles"]), None if tenants is None else tuple(tenants))


_acting: ContextVar[Viewer | None] = ContextVar("acting", default=None)


class _Opened(threading.local):
    """Who opened the page whose cells this thread runs: a server of apps has a thread for each."""

    viewer: Viewer | None = None


_opened = _Opened()


def served() -> bool:
    """Whether this process serves apps behind a sign-in."""
    return bool(os.environ.get(SERVED))


def current() -> Viewer:
    """Who acts now: the person signed in to the app that this code runs for, else the user of this machine.

    A tab that is filled when it is looked at, a page of a table and a widget's message come without a request of their
    own: who acts there is who acted in the cells of that page. A thread that a notebook starts is told by `acting_as`.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
    """
    if (viewer := _acting.get()) is not None:
        return viewer
    if (viewer := _signed_in()) is not None:
        return viewer
    if served():
        raise AccessDenied("nobody is signed in here", hint="Sign in again.")
    return Viewer(local_user(), frozenset({"admin"}))


def require(role: str, what: str) -> Viewer:
    """Who acts now, if they have a role.

    Args:
        what: they want to do, for the message: `promote`.

    Raises:
        AccessDenied: they have not.
    """
    viewer = current()
    if not viewer.has(role):
        have = ", ".join(sorted(viewer.roles)) or "no role"
        raise AccessDenied(f"{viewer.name} may not {what}: it takes the role {role}", hint=f"You have: {have}.")
    return viewer


@contextlib.contextmanager
def acting_as(viewer: Viewer) -> Iterator[None]:
    """Let somebody be the one who acts, in this context."""
    token = _acting.set(viewer)
    try:
        yield
    finally:
        _acting.reset(token)


def local_user() -> str:
    """Who runs this process, for the record: as the operating system knows it, whatever LOGNAME or USER say.

    A user who has no name, as in some containers, is the number.
    """
    try:
        import pwd
    except ModuleNotFoundError:  # a system without such users
        return getpass.getuser()
    user = os.geteuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _signed_in() -> Viewer | None:
    """The person whom the server of this marimo app let in; None where there is no such server."""
    marimo = sys.modules.get("marimo")
    if marimo is None or not marimo.running_in_notebook():
        return None
    request = marimo.app_meta().request
    # The guard of the apps lets nobody into a page but who opened it, and looks at their key at each request.
    if request is not None:
        user = request.user
        _opened.viewer = Viewer.from_json(user) if isinstance(user, Mapping) and "roles" in user else None
    return _opened.viewer
