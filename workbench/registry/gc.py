"""Garbage collection: blobs that no version of an artifact needs any more, such as those of a promotion that was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from workbench.errors import IntegrityError, WorkspaceError
from workbench.registry.build import ARTIFACT_TYPE
from workbench.registry.oci import OciLayout
from workbench.state.db import ArtifactVersion, shown, writing
from workbench.workspace import Layout

# Younger blobs are never removed: a promotion may be about to name them.
GRACE_S = 3600.0


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be.

    Attributes:
        manifests: digests that leave `index.json`. blobs: digests whose files go, with their sizes in bytes.
        kept: how many blobs stay. young: how many of these only because they are young.
        unnamed: digests of artifacts that stay although no version names them.
    """

    manifests: tuple[str, ...]
    blobs: Mapping[str, int]
    kept: int
    young: int
    unnamed: tuple[str, ...] = ()

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
            "unnamed": list(self.unnamed),
        }


def collect_garbage(
    layout: Layout,
    *,
    dry_run: bool = False,
    forgotten: bool = False,
    grace_s: float = GRACE_S,
    now: float | None = None,
) -> Collected:
    """Remove what no version needs: not the version's manifest, its blobs, or what refers to it, such as a signature.

    Nobody can register a version meanwhile. Every version is needed for good, whether or not an alias points at it. A
    whole artifact that no version names stays too: it may be of a promotion that was killed at its end, and as well one
    that a state which was lost, exchanged or put back from a copy knew. Runs lie elsewhere, and none is ever removed.

    Args:
        dry_run: remove nothing.
        forgotten: remove artifacts that no version names as well.
        grace_s: seconds for which a blob is left alone after it was last stored.

    Raises:
        WorkspaceError: there are artifacts, and the state has no version at all: it is not the one they were named in.
        IntegrityError: a manifest is missing or damaged, or the index is missing or lacks a version, so what is needed is
            not known. Nothing is removed in either case.
    """
    store = OciLayout(layout.blobs)
    with writing(layout.state_url) as session, store.index_lock():
        versions = set(session.scalars(select(ArtifactVersion.digest)))
        listed = store.manifests()
        young = (now if now is not None else time.time()) - grace_s
        index, folder = store.path / "index.json", store.path / "blobs" / "sha256"
        if not (forgotten or index.is_file()) and folder.is_dir() and any(folder.iterdir()):
            raise IntegrityError(
                f"{index} is missing, so nothing says which blobs are of artifacts",
                hint="Restore it from a copy. workbench gc --forgotten removes what no version names.",
            )
        artifacts = {entry.digest for entry in listed if entry.artifact_type == ARTIFACT_TYPE}
        unnamed = set() if forgotten else {one for one in artifacts - versions if _stored(store, one) <= young}
        if unnamed and not versions:
            raise WorkspaceError(
                f"{layout.blobs} holds {len(unnamed)} artifacts, and the state {shown(layout.state_url)} knows no version "
                "of any: it was lost, or is another one",
                hint="Put the state back, or correct [state] url in workbench.toml. workbench gc --forgotten removes them.",
            )
        if lost := versions - {entry.digest for entry in listed}:
            raise IntegrityError(
                f"{index} does not list {min(lost)}, which a version names, so it may lack signatures too",
                hint="Restore it from a copy, or pull that version from where it lies.",
            )
        needed = _needed(store, versions)
        try:
            needed |= _needed(store, unnamed)
        except IntegrityError as error:
            hint = "No version names it: restore it from a copy, or remove it too with: workbench gc --forgotten"
            raise IntegrityError(error.message, hint=hint) from None
        blobs: dict[str, int] = {}
        kept = spared = 0
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            stat, digest = path.stat(), f"sha256:{path.name}"
            if digest in needed or stat.st_mtime > young:
                kept += 1
                spared += digest not in needed
            else:
                blobs[digest] = stat.st_size
        manifests = tuple(entry.digest for entry in listed if entry.digest in blobs)
        if not dry_run:
            # From the index first: what is listed must be there.
            store.forget_manifests(manifests)
            for digest in blobs:
                (folder / digest.removeprefix("sha256:")).unlink(missing_ok=True)
    return Collected(manifests, blobs, kept, spared, tuple(sorted(unnamed)))


def _stored(store: OciLayout, digest: str) -> float:
    """When a blob was last stored; long ago where it is gone."""
    try:
        return store.blob_path(digest).stat().st_mtime
    except FileNotFoundError:
        return 0.0


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
