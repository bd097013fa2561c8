"""Taking in what a registry has: in pieces, from where an earlier pull broke off, and held against its digest."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import IntegrityError
from workbench.files import digest_file, fsync_directory
from workbench.registry.oci import Descriptor, OciLayout
from workbench.registry.remote_client import Repository


class Receiver(OciLayout):
    """A layout that takes in what others made."""

    def has(self, digest: str) -> bool:
        """Whether the blob is here and whole; it counts as just stored then."""
        path = self.blob_path(digest)
        if not path.is_file() or digest_file(path) != digest:
            return False
        os.utime(path)
        return True

    def receive(self, blob: Descriptor, there: Repository) -> None:
        """Fetch a blob, from where an earlier pull broke off; where it is not what its descriptor says, nothing is stored.

        Raises:
            IntegrityError: the registry has other bytes, or none.
        """
        self._begin()
        with self._part(blob) as part:
            resumed = there.download(blob, part)
            if resumed and not _is(part, blob):
                # What lay here may be what is wrong.
                part.unlink()
                there.download(blob, part)
            if not _is(part, blob):
                part.unlink()
                raise IntegrityError(
                    f"{there.reference.where} serves other bytes than {blob.title or 'the blob'} ({blob.digest})",
                    hint="The registry is damaged or was tampered with; nothing was registered here.",
                )
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, self.blob_path(blob.digest))
            fsync_directory(part.parent)

    @contextlib.contextmanager
    def _part(self, blob: Descriptor) -> Iterator[Path]:
        """The file that a blob is fetched into, beside where it goes; another one where another pull is fetching it."""
        whole = self.blob_path(blob.digest)
        whole.parent.mkdir(parents=True, exist_ok=True)
        path = whole.with_name(f".{whole.name}.part")
        with path.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                path = whole.with_name(f".{whole.name}.{os.getpid()}.part")
            yield path


def _is(path: Path, blob: Descriptor) -> bool:
    return path.stat().st_size == blob.size and digest_file(path) == blob.digest
