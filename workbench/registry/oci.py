"""A folder in the OCI image layout: blobs by digest, and an index of manifests.

Image layout and manifest: OCI image-spec 1.1 (image-layout.md, manifest.md, descriptor.md), so that any OCI tool can
copy what lies here to a registry.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import IntegrityError, WorkspaceError
from workbench.files import atomic_file, canonical_json, digest_bytes, digest_file, write_atomic
from workbench.state.lock import locked
from workbench.state.read_only import is_read_only

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20
_LOCK = ".index.lock"


@dataclass(frozen=True)
class Descriptor:
    """What a blob is and which bytes it must have. `size` is in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None

    @property
    def title(self) -> str:
        """The file name that the blob stands for; empty where it has none."""
        return self.annotations.get(TITLE, "")

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        if self.artifact_type:
            data["artifactType"] = self.artifact_type
        return data

    @classmethod
    def from_json(cls, data: Any) -> Descriptor:
        """Read a descriptor.

        Raises:
            IntegrityError: a field is missing or of the wrong type.
        """
        try:
            descriptor = cls(
                data["mediaType"], data["digest"], data["size"], data.get("annotations", {}), data.get("artifactType")
            )
            if not _DIGEST.fullmatch(descriptor.digest) or not isinstance(descriptor.size, int):
                raise ValueError
            _ = descriptor.title
        except (KeyError, TypeError, ValueError, AttributeError):
            raise IntegrityError(f"malformed descriptor {data!r}", hint="Restore the manifest from a copy.") from None
        return descriptor


def subject_of(manifest: Any) -> str | None:
    """The digest of what a manifest refers to; None where it refers to nothing."""
    subject = manifest.get("subject") if isinstance(manifest, dict) else None
    return str(subject["digest"]) if isinstance(subject, dict) and "digest" in subject else None


def blobs_of(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Descriptor]:
    """Configurations and layers of manifests by digest, in their order."""
    found: dict[str, Descriptor] = {}
    for manifest in manifests:
        for part in (manifest.get("config"), *(manifest.get("layers") or ())):
            blob = Descriptor.from_json(part)
            found.setdefault(blob.digest, blob)
    return found


class OciLayout:
    """An OCI image layout at `path`. The folder is made by the first write."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def blob_path(self, digest: str) -> Path:
        """Where the blob with this digest lies, whether or not it is there.

        Raises:
            IntegrityError: not a sha256 digest, so not something that could have been stored.
        """
        if not _DIGEST.fullmatch(digest):
            raise IntegrityError(f"{digest!r} is not a sha256 digest", hint="Restore the manifest from a copy.")
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def put_blob(
        self, data: bytes | Path, media_type: str, *, annotations: Mapping[str, str] | None = None
    ) -> Descriptor:
        """Store bytes, or a file's bytes, under their digest. A blob that is there and whole is left as it is."""
        digest = digest_bytes(data) if isinstance(data, bytes) else digest_file(data)
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        target = self.blob_path(digest)
        self._begin()
        # A blob that was damaged on disk is replaced: storing again is how it is mended.
        if not target.is_file() or digest_file(target) != digest:
            if isinstance(data, bytes):
                write_atomic(target, data)
            else:
                with data.open("rb") as source, atomic_file(target) as file:
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
        else:
            # So that garbage collection sees that somebody is about to need it.
            os.utime(target)
        return Descriptor(media_type, digest, size, dict(annotations or {}))

    def read_blob(self, digest: str, *, title: str = "") -> bytes:
        """The bytes with this digest, hashed again.

        Raises:
            IntegrityError: they are not there or are not those bytes any more; names `title`, the digest and the file.
        """
        path = self.blob_path(digest)
        with _named_where_missing(path, digest, title):
            data = path.read_bytes()
        if digest_bytes(data) != digest:
            raise _other_bytes(path, digest, title)
        return data

    def check_blob(self, digest: str, *, title: str = "") -> int:
        """Hash the bytes with this digest again, in pieces, and return how many there are.

        Raises:
            IntegrityError: as `read_blob`.
        """
        path = self.blob_path(digest)
        with _named_where_missing(path, digest, title):
            found, size = digest_file(path), path.stat().st_size
        if found != digest:
            raise _other_bytes(path, digest, title)
        return size

    def add_manifest(self, manifest: Mapping[str, Any]) -> Descriptor:
        """Store a manifest and list it in `index.json`. Its blobs must have been stored before."""
        return self.add_manifest_bytes(canonical_json(manifest))

    def add_manifest_bytes(self, data: bytes) -> Descriptor:
        """As `add_manifest`, byte for byte, for what others have written."""
        stored, kind = self.put_blob(data, MANIFEST_TYPE), json.loads(data).get("artifactType")
        entry = Descriptor(MANIFEST_TYPE, stored.digest, stored.size, artifact_type=kind)
        with self.index_lock():
            entries = {listed.digest: listed for listed in self.manifests()}
            if entries.get(entry.digest) != entry:
                entries[entry.digest] = entry
                self._write_index(entries)
        return entry

    def manifests(self) -> tuple[Descriptor, ...]:
        """The manifests in `index.json`, by digest; none where nothing was stored yet.

        Raises:
            IntegrityError: `index.json` is malformed.
        """
        path = self.path / "index.json"
        try:
            listed = json.loads(path.read_bytes())["manifests"]
            return tuple(sorted((Descriptor.from_json(entry) for entry in listed), key=lambda entry: entry.digest))
        except FileNotFoundError:
            return ()
        except (ValueError, KeyError, TypeError):
            raise IntegrityError(f"{path} is malformed", hint="Restore it from a copy.") from None

    def referrers(self) -> dict[str, dict[str, bytes]]:
        """Listed manifests that refer to another, by its digest and their own. Those that are damaged are left out."""
        found: dict[str, dict[str, bytes]] = {}
        for entry in self.manifests():
            with contextlib.suppress(IntegrityError, ValueError):
                data = self.read_blob(entry.digest, title="manifest")
                if (subject := subject_of(json.loads(data))) is not None:
                    found.setdefault(subject, {})[entry.digest] = data
        return found

    def with_referrers(self, digest: str) -> dict[str, bytes]:
        """A manifest, then those that refer to it, to one of these, and so on; bytes by digest.

        Raises:
            IntegrityError: the manifest is missing or damaged.
        """
        subjects = self.referrers()
        found = {digest: self.read_blob(digest, title="manifest")}
        waiting = [digest]
        while waiting:
            new = {other: data for other, data in subjects.get(waiting.pop(0), {}).items() if other not in found}
            found |= new
            waiting += new
        return found

    def forget_manifests(self, digests: Iterable[str]) -> None:
        """Take manifests out of `index.json`. The caller holds `index_lock`."""
        gone = set(digests)
        if gone:
            self._write_index({entry.digest: entry for entry in self.manifests() if entry.digest not in gone})

    def index_lock(self) -> contextlib.AbstractContextManager[None]:
        """Held while `index.json` is read and written."""
        return locked(self.path / _LOCK)

    def forget_lock(self) -> None:
        """Remove the lock's file from a layout that nobody writes to any more."""
        (self.path / _LOCK).unlink(missing_ok=True)

    def _begin(self) -> None:
        marker = self.path / "oci-layout"
        if is_read_only(marker):
            raise WorkspaceError(f"{self.path} cannot be written", hint="Get the right to write there.")
        if not marker.is_file():
            write_atomic(marker, canonical_json({"imageLayoutVersion": "1.0.0"}))

    def _write_index(self, entries: Mapping[str, Descriptor]) -> None:
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [entries[digest].to_json() for digest in sorted(entries)],
        }
        write_atomic(self.path / "index.json", canonical_json(index))


_RESTORE = "Restore it from a copy, or promote the run again."


@contextlib.contextmanager
def _named_where_missing(path: Path, digest: str, title: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise IntegrityError(f"{_subject(digest, title)} is missing: {path}", hint=_RESTORE) from None


def _other_bytes(path: Path, digest: str, title: str) -> IntegrityError:
    return IntegrityError(f"{_subject(digest, title)} does not match its digest: {path}", hint=_RESTORE)


def _subject(digest: str, title: str) -> str:
    return f"{title} ({digest})" if title else digest
