"""Statements about an artifact that others can check: in-toto statements in DSSE envelopes.

Formats: in-toto Attestation Framework, Statement v1; SLSA provenance v1; DSSE v1.0.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import IntegrityError
from workbench.files import canonical_json
from workbench.registry.artifact import Artifact

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA = "https://slsa.dev/provenance/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
# What whoever signs an artifact attests to, by the type of the statement.
ATTESTED = {SLSA: "provenance", CYCLONEDX: "bill of materials"}
BUILD_TYPE = "https://llmops-workbench.dev/promotion/v1"
BUILDER = "https://llmops-workbench.dev/workbench"


def statement(artifact: Artifact, predicate_type: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto statement whose subject is the artifact's manifest."""
    subject = {"name": artifact.name, "digest": {"sha256": artifact.digest.removeprefix("sha256:")}}
    return {"_type": STATEMENT, "subject": [subject], "predicateType": predicate_type, "predicate": dict(predicate)}


def provenance_statement(artifact: Artifact) -> dict[str, Any]:
    """How the artifact came about, as SLSA provenance: the run and its settings, and by digest what went into it.

    Raises:
        IntegrityError: a layer that is read is damaged.
    """
    source = artifact.provenance
    data, model = source["dataset"], source["model"]
    materials = [("dataset", data["name"], data["digest"]), ("model", model["name"], model["digest"])]
    if source["notebook"] and source["notebook_digest"]:
        materials.append(("notebook", source["notebook"], source["notebook_digest"]))
    dependencies: list[dict[str, Any]] = [
        {"uri": f"workbench:{kind}/{name}", "digest": {"sha256": digest.removeprefix("sha256:")}}
        for kind, name, digest in materials
    ]
    if source["git_commit"]:
        dependencies.append({"uri": "git", "digest": {"gitCommit": source["git_commit"]}})
    return statement(
        artifact,
        SLSA,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "experiment": source["experiment"],
                    "variant": source["variant"],
                    "baseline": source["baseline"],
                    "split": data["split"],
                    "command": source["command"],
                },
                "internalParameters": {
                    "experiment_digest": source["experiment_digest"],
                    "pipeline_digest": source["pipeline_digest"],
                    "policy_digest": artifact.gate["policy_digest"],
                    "git_dirty": source["git_dirty"],
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {
                    "invocationId": source["run_id"],
                    "startedOn": source["started_at"],
                    "finishedOn": source["finished_at"],
                },
            },
        },
    )


def to_envelope(document: Mapping[str, Any], sign: Callable[[bytes], bytes], key_id: str) -> dict[str, Any]:
    """A DSSE envelope around a statement."""
    payload = canonical_json(document)
    signature = base64.b64encode(sign(pre_authentication(payload))).decode()
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id, "sig": signature}],
    }


def open_envelope(data: bytes, verify: Callable[[bytes, bytes], bool]) -> dict[str, Any]:
    """The statement in an envelope.

    Args:
        verify: whether a signature (the second) is of some bytes (the first).

    Raises:
        IntegrityError: not an envelope of a statement, or no signature in it verifies.
    """
    try:
        envelope = json.loads(data)
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
        sealed = envelope["payloadType"] == PAYLOAD_TYPE and any(
            verify(pre_authentication(payload), signature) for signature in signatures
        )
        found: dict[str, Any] = json.loads(payload)
        known = found["_type"] == STATEMENT
    except (ValueError, KeyError, TypeError):
        raise IntegrityError("an attestation is malformed", hint="Sign the artifact again.") from None
    if not sealed or not known:
        raise IntegrityError("no signature of an attestation is of this key", hint="Sign the artifact again.")
    return found


def subjects_of(document: Mapping[str, Any]) -> set[str]:
    """The digests, as `sha256:…`, of what a statement is about; none where it is malformed."""
    try:
        return {f"sha256:{subject['digest']['sha256']}" for subject in document["subject"]}
    except (KeyError, TypeError):
        return set()


def pre_authentication(payload: bytes) -> bytes:
    """The bytes that a DSSE signature is of."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
