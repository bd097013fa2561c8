"""Signatures of artifacts: each a manifest that refers to the artifact's, as cosign writes them, and goes where it goes.

Format: cosign's simple signing payload (SIGNATURE_SPEC.md of sigstore/cosign) in an OCI 1.1 referrer. Beside it lie
attestations, signed by the same key: where the artifact comes from (SLSA provenance) and what it consists of (CycloneDX).
Signatures without a key are in `keyless`.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import IntegrityError
from workbench.files import canonical_json
from workbench.html import counted
from workbench.registry.artifact import Artifact, BlobCheck
from workbench.registry.attest import (
    ATTESTED,
    CYCLONEDX,
    ENVELOPE_TYPE,
    PAYLOAD_TYPE,
    open_envelope,
    provenance_statement,
    statement,
    subjects_of,
    to_envelope,
)
from workbench.registry.keys import PrivateKey, PublicKey
from workbench.registry.oci import MANIFEST_TYPE, Descriptor
from workbench.registry.sbom import bill_of_materials

SIGNATURE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
PAYLOAD_MEDIA = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
PREDICATE = "in-toto.io/predicate-type"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_KIND = "cosign container image signature"


@dataclass(frozen=True)
class Signed:
    """What `sign_artifact` stored, by digest."""

    key_id: str
    signature: str
    attestations: tuple[str, ...]


def sign_artifact(artifact: Artifact, key: PrivateKey) -> Signed:
    """Sign an artifact's manifest, after verifying every byte of it, and attest to its origin and contents.

    Raises:
        IntegrityError: the artifact is damaged: what is signed has been looked at.
    """
    artifact.verify()
    store = artifact.store
    payload = canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": ""},
                "image": {"docker-manifest-digest": artifact.digest},
                "type": _KIND,
            },
            "optional": {},
        }
    )
    annotation = {ANNOTATION: base64.b64encode(key.sign(payload)).decode()}
    layer = store.put_blob(payload, PAYLOAD_MEDIA, annotations=annotation)
    signature = refer(artifact, SIGNATURE_ARTIFACT, layer)
    attestations = []
    for document in attested(artifact):
        envelope = canonical_json(to_envelope(document, key.sign, key.public.id))
        predicate = {PREDICATE: document["predicateType"]}
        attestations.append(
            refer(artifact, PAYLOAD_TYPE, store.put_blob(envelope, ENVELOPE_TYPE, annotations=predicate))
        )
    return Signed(key.public.id, signature, tuple(attestations))


def signatures_by(artifact: Artifact, keys: Sequence[PublicKey]) -> list[PublicKey]:
    """Those of the keys that have signed the artifact, each once, by whatever names of files it was read.

    A referrer that is damaged or of another artifact counts nothing, and neither does a key without both attestations:
    `attestation_faults` says what is wrong with them.
    """
    return [key for key in _signers(artifact, keys) if not attestation_faults(artifact, key)]


def count_signatures(artifact: Artifact) -> int:
    """How many signatures by keys lie beside the artifact, whosever they are."""
    return sum(1 for _ in _signatures(artifact))


def verify_signature(artifact: Artifact, key: PublicKey, checks: tuple[BlobCheck, ...] | None = None) -> None:
    """Make sure that a key has signed the artifact, whose bytes are verified too, and has attested to it.

    Args:
        checks: what `Artifact.check` has just found, so as not to hash it all again.

    Raises:
        IntegrityError: it is damaged, unsigned, or signed by others only; or an attestation by the key is missing, damaged
            or of another artifact.
    """
    artifact.verify(checks)
    label = f"{artifact.name}@{artifact.version}"
    hint = f"Sign it with: workbench artifact sign {label} --key FILE"
    if not _signers(artifact, [key]):
        count = count_signatures(artifact)
        others = f"has {counted(count, 'signature')}, none of this key"
        raise IntegrityError(f"{label} {others if count else 'is not signed'}", hint=hint)
    if faults := attestation_faults(artifact, key):
        raise IntegrityError(f"{label} is signed by this key, but {'; '.join(faults)}", hint=hint)


def attestations_by(artifact: Artifact, key: PublicKey) -> dict[str, dict[str, Any]]:
    """The statements about the artifact that a key has signed, by their type: its provenance and its bill of materials.

    Raises:
        IntegrityError: one is missing, malformed, damaged, by another key only, or of another artifact.
    """
    found, faults = _attestations(artifact, key)
    if faults:
        raise IntegrityError(
            f"{artifact.name}@{artifact.version}: {'; '.join(faults)}", hint="Sign the artifact again."
        )
    return found


def attestation_faults(artifact: Artifact, key: PublicKey) -> list[str]:
    """What is wrong with the attestations that a key makes beside its signature; empty where both are there and whole.

    What lies there beside these two is left alone: anybody may hang anything on an artifact.
    """
    return _attestations(artifact, key)[1]


def read_keys(root: Path, names: Sequence[str]) -> list[PublicKey]:
    """Public keys by file name, relative to a folder."""
    return [PublicKey.read(root / name) for name in names]


def attested(artifact: Artifact) -> tuple[dict[str, Any], dict[str, Any]]:
    """What goes with a signature: statements of where the artifact comes from and of what it consists of."""
    return provenance_statement(artifact), statement(artifact, CYCLONEDX, bill_of_materials(artifact))


def refer(artifact: Artifact, kind: str, layer: Descriptor, *, annotations: Mapping[str, str] | None = None) -> str:
    """Store a manifest of that artifact type with one layer that refers to the artifact's; its digest."""
    store = artifact.store
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": kind,
        "config": store.put_blob(b"{}", EMPTY_TYPE).to_json(),
        "layers": [layer.to_json()],
        "subject": Descriptor(MANIFEST_TYPE, artifact.digest, len(store.read_blob(artifact.digest))).to_json(),
    }
    return store.add_manifest({**manifest, "annotations": dict(annotations)} if annotations else manifest).digest


def referrers(artifact: Artifact, kind: str) -> Iterator[dict[str, Any]]:
    """Manifests of that artifact type that refer to the artifact's; damaged ones are left out."""
    for data in artifact.store.referrers().get(artifact.digest, {}).values():
        manifest = json.loads(data)
        if manifest.get("artifactType") == kind:
            yield manifest


def _signers(artifact: Artifact, keys: Sequence[PublicKey]) -> list[PublicKey]:
    found: dict[str, PublicKey] = {}
    for payload, signature in _signatures(artifact):
        found |= {key.id: key for key in keys if key.id not in found and key.verify(payload, signature)}
    return list(found.values())


def _signatures(artifact: Artifact) -> Iterator[tuple[bytes, bytes]]:
    """Payload and signature of each, where the payload is of this artifact and whole."""
    for layer in _layers(artifact, SIGNATURE_ARTIFACT):
        try:
            payload = artifact.store.read_blob(layer.digest, title="signature")
            critical = json.loads(payload)["critical"]
            signature = base64.b64decode(layer.annotations.get(ANNOTATION, ""), validate=True)
            sound = (critical["type"], critical["image"]["docker-manifest-digest"]) == (_KIND, artifact.digest)
        except (IntegrityError, ValueError, KeyError, TypeError):
            continue
        if sound:
            yield payload, signature


def _attestations(artifact: Artifact, key: PublicKey) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What a key attests to of the artifact, by type, and why what it should is not among it."""
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, None]] = {}
    for layer in _layers(artifact, PAYLOAD_TYPE):
        try:
            document = open_envelope(artifact.store.read_blob(layer.digest, title="an attestation"), key.verify)
            if artifact.digest not in subjects_of(document):
                raise IntegrityError("it is of another artifact", hint="Sign the artifact again.")
            found[str(document.get("predicateType"))] = document
        except IntegrityError as error:
            # By what its manifest says it is, which nothing vouches for: only the message depends on it.
            failed.setdefault(str(layer.annotations.get(PREDICATE)), {})[error.message] = None
    faults = []
    for kind, what in ATTESTED.items():
        if kind not in found:
            faults.append(f"its {what} {'is missing' if kind not in failed else 'fails: ' + ', '.join(failed[kind])}")
    return found, faults


def _layers(artifact: Artifact, kind: str) -> Iterator[Descriptor]:
    """The layers of what refers to the artifact; anybody may hang anything on it, and what is malformed is left out."""
    for manifest in referrers(artifact, kind):
        layers = manifest.get("layers")
        for layer in layers if isinstance(layers, list) else ():
            with contextlib.suppress(IntegrityError):
                yield Descriptor.from_json(layer)
