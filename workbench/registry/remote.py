"""Push and pull: artifacts to and from an OCI registry, byte for byte, with the signatures and attestations on them.

What the other side has is not moved again, so that a push or pull that broke off goes on, in the midst of a large blob
too where the registry allows it. What comes in is held against
its digest before it is stored, and an artifact has a name only when all of it is here.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from workbench.errors import IntegrityError, NotFoundError, WorkbenchError
from workbench.files import digest_bytes
from workbench.progress import Progress, progress
from workbench.registry import build, names
from workbench.registry.artifact import REQUIRED, Artifact
from workbench.registry.oci import MANIFEST_TYPE, Descriptor, OciLayout, blobs_of, subject_of
from workbench.registry.remote_client import Repository
from workbench.registry.remote_receiver import Receiver
from workbench.registry.remote_reference import Reference
from workbench.workspace import Layout

Sleep = Callable[[float], object]

# Work that takes no longer needs no bar.
_QUIET_S = 1.0


@dataclass(frozen=True)
class Moved:
    """What a push or pull did.

    Attributes:
        artifact: the one here. reference: where it lies in the registry.
        blobs, blobs_moved: how many blobs it and its referrers have, and how many of them had to be moved.
        bytes_moved: the sizes of these. manifests_moved: manifests, tags and lists that had to be written or fetched.
        referrers: digests of the manifests that came along, such as signatures.
    """

    artifact: Artifact
    reference: str
    blobs: int
    blobs_moved: int
    bytes_moved: int
    manifests_moved: int
    referrers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.artifact.name,
            "version": self.artifact.version,
            "digest": self.artifact.digest,
            "reference": self.reference,
            "blobs": self.blobs,
            "blobs_moved": self.blobs_moved,
            "bytes_moved": self.bytes_moved,
            "manifests_moved": self.manifests_moved,
            "referrers": list(self.referrers),
        }


def push(
    layout: Layout,
    artifact: str,
    target: str,
    *,
    insecure: bool = False,
    show_progress: bool = True,
    sleep: Sleep = time.sleep,
) -> Moved:
    """Copy an artifact of this workspace, with what refers to it, to a registry, and point the tag at it.

    The tag is written last: who finds it finds everything.

    Args:
        artifact: `NAME`, `NAME@3`, `NAME@ALIAS` or `NAME@sha256:…`.
        target: `REGISTRY/REPOSITORY[:TAG]`; the tag is `latest` by default.
        insecure: speak plain http to a registry on another machine.

    Raises:
        UsageError: the target is malformed or has a digest.
        NotFoundError: there is no such artifact here, or no such repository there.
        IntegrityError: the artifact is damaged here; nothing was sent.
        WorkbenchError: the registry does not answer, or refuses.
    """
    reference = Reference.parse_target(target)
    found = Artifact.open(layout, artifact)
    whole = {check.digest for check in found.verify()}
    store = found.store
    manifests = store.with_referrers(found.digest)
    blobs = blobs_of(json.loads(manifest) for manifest in manifests.values())
    for blob in blobs.values():
        if blob.digest not in whole:
            store.check_blob(blob.digest, title=blob.title)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(_Bar(f"Pushing {found.name}@{found.version}, kB", show_progress))
        there = stack.enter_context(Repository(reference, insecure=insecure, sleep=sleep, moved=bar.add))
        missing = [blob for blob in blobs.values() if not there.has_blob(blob.digest)]
        bar.total = sum(blob.size for blob in missing)
        for blob in missing:
            there.upload(blob, store.blob_path(blob.digest), layout.root / ".workbench" / "uploads")
        written = 0
        for digest, data in manifests.items():
            if there.manifest_digest(digest) != digest:
                there.put_manifest(data, MANIFEST_TYPE, digest)
                written += 1
        for subject, entries in _bysubject_of(manifests).items():
            written += there.list_referrers(subject, entries)
        if there.manifest_digest(reference.tag) != found.digest:
            there.put_manifest(manifests[found.digest], MANIFEST_TYPE, reference.tag)
            written += 1
    return Moved(
        found,
        str(reference),
        len(blobs),
        len(missing),
        bar.total,
        written,
        tuple(d for d in manifests if d != found.digest),
    )


def pull(
    layout: Layout,
    source: str,
    *,
    name: str | None = None,
    insecure: bool = False,
    show_progress: bool = True,
    sleep: Sleep = time.sleep,
    actor: str | None = None,
) -> Moved:
    """Copy an artifact, with what refers to it, from a registry, and register it as the next version of a name.

    No alias moves. The same digest again is the version that is there.

    Args:
        source: `REGISTRY/REPOSITORY[:TAG]` or `REGISTRY/REPOSITORY@sha256:…`; the tag is `latest` by default.
        name: the last part of the repository by default.
        insecure: speak plain http to a registry on another machine.
        actor: who does it; the user of this process by default.

    Raises:
        UsageError: the source or the name is malformed.
        NotFoundError: there is no such repository, tag or digest.
        IntegrityError: the registry serves other bytes than it names, or not a workbench artifact; nothing is registered.
        WorkbenchError: the registry does not answer, or refuses.
    """
    reference = Reference.parse(source)
    name = name if name is not None else reference.name
    names.check_name(name)
    store = Receiver(layout.blobs)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(_Bar(f"Pulling {reference.where}, kB", show_progress))
        there = stack.enter_context(Repository(reference, insecure=insecure, sleep=sleep, moved=bar.add))
        data = there.manifest(reference.selector)
        if data is None:
            raise _not_there(there)
        digest = digest_bytes(data)
        _check_is_artifact(_parsed(data, reference), reference)
        manifests = {digest: data} | _manifests_there(there, digest)
        blobs = blobs_of(_parsed(manifest, reference) for manifest in manifests.values())
        missing = [blob for blob in blobs.values() if not store.has(blob.digest)]
        bar.total = sum(blob.size for blob in missing)
        for blob in missing:
            store.receive(blob, there)
    for manifest in manifests.values():
        store.add_manifest_bytes(manifest)
    version = _register(layout, store, name, digest, reference, actor)
    return Moved(
        Artifact.open(layout, f"{name}@{version}"),
        str(reference),
        len(blobs),
        len(missing),
        bar.total,
        len(manifests),
        tuple(found for found in manifests if found != digest),
    )


class _Bar:
    """A progress bar over bytes that shows itself once the work has taken a second."""

    def __init__(self, title: str, show: bool) -> None:
        self.total = 0
        self._title, self._show = title, show
        self._done = self._shown = 0
        self._began = time.monotonic()
        self._stack = contextlib.ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, count: int) -> None:
        self._done += count
        if self._bar is None and time.monotonic() - self._began > _QUIET_S:
            total = max(1, self.total // 1000)
            self._bar = self._stack.enter_context(progress(total, self._title, show=self._show))
        # What has to be sent again was shown already.
        self._shown = max(self._shown, self._done)
        if self._bar is not None:
            self._bar.update(self._shown // 1000)


def _manifests_there(there: Repository, artifact: str) -> dict[str, bytes]:
    """Those that refer to the artifact in the registry, to one of these, and so on; bytes by digest."""
    found: dict[str, bytes] = {}
    waiting = [artifact]
    while waiting:
        subject = waiting.pop(0)
        for entry in there.referrers(subject):
            # An index that refers to it names further manifests, which are not part of an artifact.
            if entry.digest in found or entry.digest == artifact or entry.media_type != MANIFEST_TYPE:
                continue
            data = there.manifest(entry.digest)
            if data is None or subject_of(_parsed(data, there.reference)) != subject:
                raise IntegrityError(
                    f"{there.reference.where} lists {entry.digest} as referring to {subject}, which it does not",
                    hint="The registry is damaged or was tampered with; nothing was registered here.",
                )
            found[entry.digest] = data
            waiting.append(entry.digest)
    return found


def _bysubject_of(manifests: Mapping[str, bytes]) -> dict[str, list[Descriptor]]:
    """Descriptors of manifests by what they refer to, as a referrers list has them (distribution-spec 1.1)."""
    found: dict[str, list[Descriptor]] = {}
    for digest, data in manifests.items():
        manifest = json.loads(data)
        if subject := subject_of(manifest):
            kind = manifest.get("artifactType") or manifest["config"]["mediaType"]
            entry = Descriptor(MANIFEST_TYPE, digest, len(data), manifest.get("annotations") or {}, kind)
            found.setdefault(subject, []).append(entry)
    return {subject: entries for subject, entries in found.items() if subject in manifests}


def _parsed(data: bytes, reference: Reference) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise IntegrityError(f"{reference.where} serves a malformed manifest", hint="Ask who keeps the registry.")
    return manifest


def _check_is_artifact(manifest: Mapping[str, Any], reference: Reference) -> None:
    kind = manifest.get("artifactType")
    sound = kind == build.ARTIFACT_TYPE and isinstance(manifest.get("layers"), list)
    titles = [blob.title for blob in blobs_of([manifest]).values()] if sound else []
    if not set(REQUIRED) <= {str(title) for title in titles}:
        what = kind or manifest.get("mediaType") or "something else"
        raise IntegrityError(
            f"{reference} is not a workbench artifact but {str(what)[:100]}",
            hint="Push one with: workbench artifact push",
        )


def _not_there(there: Repository) -> WorkbenchError:
    reference, tags = there.reference, there.tags()
    if not tags:
        return NotFoundError(
            f"there is no {reference.where}", hint=f"Push to it with: workbench artifact push NAME {reference.where}"
        )
    shown = f"It has the tags: {', '.join(sorted(tags)[:10])}{', …' if len(tags) > 10 else ''}."
    return NotFoundError(f"there is no {reference}", hint=shown)


def _register(layout: Layout, store: OciLayout, name: str, digest: str, reference: Reference, actor: str | None) -> int:
    unnamed = Artifact(store, names.NamedVersion(name, 0, digest, (), ""), layout)
    unnamed.verify()
    try:
        told = unnamed.to_json()
        source, decision = told["provenance"], told["decision"]
        run_id, variant = str(source["run_id"]), str(source["variant"])
        outcome = str(decision["outcome"]) if decision else None
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(
            f"{reference}: its provenance cannot be read", hint="It was not made by `workbench promote`."
        ) from None
    return names.register(
        layout,
        name,
        digest,
        run_id=run_id,
        variant=variant,
        decision=outcome,
        actor=actor,
        detail={"from": str(reference)},
    )
