"""Garbage collection: blobs that no version of an artifact needs any more, such as those of a promotion that was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from workbench.errors import IntegrityError
from workbench.registry.oci import OciLayout
from workbench.state.db import ArtifactVersion, writing
from workbench.workspace import Layout

# Younger blobs are never removed: a promotion may be about to name them.
GRACE_S = 3600.0


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be.

    Attributes:
        manifests: digests that leave `index.json`. blobs: digests whose files go, with their sizes in bytes.
        kept: how many blobs stay. young: how many of these only because they are young.
    """

    manifests: tuple[str, ...]
    blobs: Mapping[str, int]
    kept: int
    young: int

    @property
    def size(self) -> int:
        """Bytes of what goes."""
        return sum(self.blobs.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "manifests": list(self.manifests),
            "blobs": dict(self.blobs),
            "bytes": self.size,
            "kept": self.kept,
            "young": self.young,
        }


def collect_garbage(
    layout: Layout, *, dry_run: bool = False, grace_s: float = GRACE_S, now: float | None = None
) -> Collected:
    """Remove what no version needs: not the version's manifest, its blobs, or what refers to it, such as a signature.

    Nobody can register a version meanwhile. Every version is needed for good, whether or not an alias points at it.

    Args:
        dry_run: remove nothing.
        grace_s: seconds for which a blob is left alone after it was last stored.

    Raises:
        IntegrityError: a manifest that a version needs is missing or damaged, so what it needs is not known; nothing is
            removed then.
    """
    store = OciLayout(layout.blobs)
    with writing(layout.state_url) as session, store.index_lock():
        versions = set(session.scalars(select(ArtifactVersion.digest)))
        listed = [entry.digest for entry in store.manifests()]
        needed = _needed(store, versions)
        young = (now if now is not None else time.time()) - grace_s
        blobs: dict[str, int] = {}
        kept = spared = 0
        folder = store.path / "blobs" / "sha256"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            stat, digest = path.stat(), f"sha256:{path.name}"
            if digest in needed or stat.st_mtime > young:
                kept += 1
                spared += digest not in needed
            else:
                blobs[digest] = stat.st_size
        manifests = tuple(digest for digest in listed if digest in blobs)
        if not dry_run:
            # From the index first: what is listed must be there.
            store.forget_manifests(manifests)
            for digest in blobs:
                (folder / digest.removeprefix("sha256:")).unlink(missing_ok=True)
    return Collected(manifests, blobs, kept, spared)


def _needed(store: OciLayout, versions: set[str]) -> set[str]:
    needed: set[str] = set()
    subjects = store.referrers()
    waiting = list(versions)
    while waiting:
        digest = waiting.pop()
        if digest in needed:
            continue
        needed.add(digest)
        manifest = _manifest(store, digest)
        needed |= {part["digest"] for part in (manifest["config"], *manifest["layers"])}
        waiting += subjects.get(digest, {})
    return needed


def _manifest(store: OciLayout, digest: str) -> dict[str, Any]:
    manifest = json.loads(store.read_blob(digest, title="manifest"))
    if not isinstance(manifest, dict) or "config" not in manifest or "layers" not in manifest:
        raise IntegrityError(f"{digest} is not a manifest", hint="Restore it from a copy.")
    return manifest
