"""A large blob on its way to a registry: in pieces, from where an earlier push broke off.

By OCI distribution-spec 1.1, "Pushing a blob in chunks". Where the upload goes on is kept in a small file.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import WorkbenchError
from workbench.files import digest_bytes, write_atomic
from workbench.registry.oci import Descriptor
from workbench.registry.remote_http import ATTEMPTS, Connection, Transient

# Memory holds one piece, and what broke off sends at most one again.
PIECE = 8 << 20

# Answers of a registry that knows nothing of an upload, or not what we think.
_FORGOTTEN = (400, 403, 404, 405, 410, 416)


class KeptUpload(BaseModel):
    """Where an upload that broke off goes on. What has arrived, the registry says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = 1
    location: str


class Upload:
    """One upload of a blob from a file.

    Args:
        folder: of files with uploads that broke off.
        moved: told of bytes as they are sent, or need not be; negative where they have to be sent again.
    """

    def __init__(
        self, http: Connection, blob: Descriptor, path: Path, folder: Path, moved: Callable[[int], object]
    ) -> None:
        self._http, self._blob, self._path, self._moved = http, blob, path, moved
        where = f"{http.reference.where}@{blob.digest}"
        self._file = folder / f"{digest_bytes(where.encode()).removeprefix('sha256:')}.json"
        self._keeps = False
        self._location: str | None = None
        # Bytes that have arrived; None where only the registry knows.
        self._offset: int | None = None
        self._told = self._begun = 0
        self._done = False

    def send(self) -> None:
        """Send what is missing. A piece that fails for a moment is tried again.

        Raises:
            WorkbenchError: the registry does not answer, or refuses. The next upload of this blob goes on.
        """
        with self._alone() as self._keeps:
            self._location = self._kept()
            while not self._done:
                self._http.again(self._step)

    def _step(self) -> None:
        """One piece more, or the end. Whoever tries again asks first what has arrived."""
        if self._location is not None and self._offset is None:
            self._ask()
        if self._done:
            return
        if self._location is None:
            self._begin()
        try:
            self._advance()
        except Transient:
            self._offset = None
            raise

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > ATTEMPTS:
            raise WorkbenchError(
                f"{self._http.reference.where} loses uploads in their midst", hint="Ask who keeps the registry."
            )
        url = f"{self._http.base}/blobs/uploads/"
        response = self._http.send(url, "POST", headers={"Content-Length": "0"}, passing=())
        self._arrived(response, 0)

    def _ask(self) -> None:
        response = self._http.send(str(self._location), "GET", passing=_FORGOTTEN)
        if response.status_code in _FORGOTTEN:
            self._forget()
            # It may have arrived, and only the answer was lost.
            there = self._http.send(f"{self._http.base}/blobs/{self._blob.digest}", "HEAD")
            self._done = there.status_code != 404
            return
        self._arrived(response, _arrived_bytes(response))

    def _advance(self) -> None:
        location, offset = str(self._location), self._offset or 0
        if offset >= self._blob.size:
            # Bytes that are not of this digest are refused: the upload is over either way.
            separator = "&" if urlsplit(location).query else "?"
            url = f"{location}{separator}{urlencode({'digest': self._blob.digest})}"
            try:
                self._http.send(url, "PUT", headers={"Content-Length": "0"}, passing=())
            except WorkbenchError:
                self._forget()
                raise
            self._done = True
            self._remove()
            return
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{offset + len(data) - 1}",
            "Content-Length": str(len(data)),
        }
        response = self._http.send(location, "PATCH", data=data, headers=headers, passing=())
        arrived = _arrived_bytes(response, otherwise=offset + len(data))
        if arrived <= offset:
            raise Transient("it takes no more of a blob")
        self._arrived(response, arrived)

    def _arrived(self, response: Any, offset: int) -> None:
        location = response.headers.get("Location") or self._location
        if not location:
            raise WorkbenchError(
                f"{self._http.reference.registry} gives no address to upload to",
                hint="Is it an OCI registry? Ask who keeps it.",
            )
        if offset > self._blob.size:
            self._forget()
            return
        self._location, self._offset = urljoin(self._http.base, location), offset
        self._moved(offset - self._told)
        self._told = offset
        if self._keeps:
            write_atomic(self._file, KeptUpload(location=self._location).model_dump_json())

    def _forget(self) -> None:
        """Start over: the registry knows nothing of the upload, or other bytes."""
        self._moved(-self._told)
        self._told = 0
        self._location = self._offset = None
        self._remove()

    def _kept(self) -> str | None:
        try:
            return KeptUpload.model_validate_json(self._file.read_bytes()).location if self._keeps else None
        except (OSError, ValidationError):  # there is none, or none that can be read: it starts over
            return None

    def _remove(self) -> None:
        if self._keeps:
            self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this is the only upload of the blob to this place; another one then begins anew and keeps nothing."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with (self._file.parent / ".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True


def _arrived_bytes(response: Any, *, otherwise: int = 0) -> int:
    """How many bytes an answer says have arrived. It names the last one, and 0 where there is none as well."""
    match = re.fullmatch(r"(?:bytes[= ])?0-(\d+)", response.headers.get("Range", ""))
    last = int(match[1]) if match else 0
    return last + 1 if last else otherwise
