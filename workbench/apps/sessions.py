"""Sessions: a signed cookie that says who signed in how, held against the keys in force at each request."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from workbench.access import Viewer
from workbench.errors import WorkspaceError, require
from workbench.state.keys import find_grant
from workbench.workspace import Layout

COOKIE = "workbench_session"
SECRET = "WORKBENCH_APPS_SECRET"
# Seconds for which a key that was found in force is taken to be so.
_FRESH_S = 5.0


class Sessions:
    """Makes and reads the cookies of one workspace.

    The secret that signs them is in the environment variable `WORKBENCH_APPS_SECRET`, for several servers behind one
    address, or in a file of the workspace that only its owner can read.
    """

    def __init__(self, layout: Layout) -> None:
        itsdangerous = require("itsdangerous", extra="apps")
        self.layout = layout
        self.seconds = layout.settings.apps.session_hours * 3600
        self.secret = _secret(layout.root)
        self._signer = itsdangerous.URLSafeTimedSerializer(self.secret, salt="workbench apps")
        self._bad = itsdangerous.BadData
        self._known: dict[str, tuple[float, Viewer | None]] = {}

    def of_key(self, key_id: str) -> str:
        """The cookie of somebody who showed a key."""
        return str(self._signer.dumps({"key": key_id}))

    def of_viewer(self, viewer: Viewer) -> str:
        """The cookie of somebody whom a provider told us of; what it grants holds until it ends."""
        return str(self._signer.dumps({"viewer": viewer.to_json()}))

    def viewer(self, cookie: str | None) -> Viewer | None:
        """Who a cookie belongs to; None where it is malformed, old, or its key was revoked."""
        if not cookie:
            return None
        try:
            said: dict[str, Any] = self._signer.loads(cookie, max_age=self.seconds)
            if "viewer" in said:
                return Viewer.from_json(said["viewer"])
            return self._of_key(str(said["key"]))
        except (self._bad, KeyError, TypeError):
            return None

    def _of_key(self, key_id: str) -> Viewer | None:
        at, viewer = self._known.get(key_id, (-_FRESH_S, None))
        if time.monotonic() - at > _FRESH_S:
            grant = find_grant(self.layout.state_url, key_id)
            viewer = grant.viewer if grant else None
            self._known[key_id] = (time.monotonic(), viewer)
        return viewer


def _secret(root: Path) -> str:
    """The secret of this workspace's cookies, made where there is none.

    Raises:
        WorkspaceError: others can read its file, or it cannot be written.
    """
    if given := os.environ.get(SECRET):
        if len(given) < 32:
            raise WorkspaceError(f"{SECRET} is too short", hint="Set it to at least 32 random characters.")
        return given
    path = root / ".workbench" / "apps.secret"
    if not path.exists():
        try:
            _make(path)
        except OSError as error:
            raise WorkspaceError(
                f"the secret of the sign-in cannot be kept in {path}: {error.strerror or error}",
                hint=f"Set {SECRET} to at least 32 random characters, or make the folder writable.",
            ) from None
    if path.stat().st_mode & 0o077:
        raise WorkspaceError(f"{path} can be read by others", hint=f"Run: chmod 600 {path}")
    return path.read_text("ascii")


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp's file is its owner's alone; linked into place, it is there whole or not at all.
    descriptor, name = tempfile.mkstemp(prefix=".apps.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
