"""Signatures, attestations and bills of materials: what is signed is whole, and nothing else passes."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun
from workbench.cli.main import app
from workbench.errors import GateRefused, IntegrityError, NotFoundError, UsageError
from workbench.registry.aliases import move_alias
from workbench.registry.artifact import Artifact
from workbench.registry.attest import CYCLONEDX, PAYLOAD_TYPE, SLSA, pre_authentication, statement, to_envelope
from workbench.registry.gc import GRACE_S, collect_garbage
from workbench.registry.keys import PASSWORD, PrivateKey, PublicKey
from workbench.registry.oci import Descriptor
from workbench.registry.promote import promote
from workbench.registry.sbom import bill_of_materials
from workbench.registry.sign import (
    SIGNATURE_ARTIFACT,
    Signed,
    attestation_faults,
    attestations_by,
    refer,
    sign_artifact,
    signatures_by,
    verify_signature,
)
from workbench.workspace import Layout

pytest.importorskip("cryptography")
pytest.importorskip("cyclonedx")


@pytest.fixture
def artifact(layout: Layout, make_run: MakeRun) -> Artifact:
    return promote(layout, make_run(), "greet", "few")


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    return PrivateKey.new(tmp_path / "keys" / "team.pem")


def manifests(artifact: Artifact, kind: str) -> list[dict[str, Any]]:
    entries = [entry for entry in artifact.store.manifests() if entry.artifact_type == kind]
    return [json.loads(artifact.store.read_blob(entry.digest)) for entry in entries]


def test_a_signature_is_of_the_manifest_and_of_one_key(artifact: Artifact, key: PrivateKey, tmp_path: Path) -> None:
    other = PrivateKey.new(tmp_path / "other.pem")
    with pytest.raises(IntegrityError, match="greet@1 is not signed"):
        verify_signature(artifact, key.public)
    signed = sign_artifact(artifact, key)
    verify_signature(artifact, key.public)
    verify_signature(artifact, PublicKey.read(tmp_path / "keys" / "team.pem.pub"))
    assert signatures_by(artifact, [other.public, key.public]) == [key.public]
    with pytest.raises(IntegrityError, match="has 1 signature, none of this key"):
        verify_signature(artifact, other.public)
    [manifest] = manifests(artifact, SIGNATURE_ARTIFACT)
    assert manifest["subject"]["digest"] == artifact.digest
    assert Descriptor.from_json(manifest["subject"]).size == len(artifact.store.read_blob(artifact.digest))
    assert signed.key_id == key.public.id


def test_a_signature_of_another_version_counts_nothing(
    artifact: Artifact, key: PrivateKey, layout: Layout, make_run: MakeRun
) -> None:
    second = promote(layout, make_run(run_id="run-2"), "greet", "few")
    sign_artifact(artifact, key)
    assert signatures_by(second, [key.public]) == []
    # Its payload, hung on the second version, is still of the first.
    [manifest] = manifests(artifact, SIGNATURE_ARTIFACT)
    size = len(second.store.read_blob(second.digest))
    subject = Descriptor(manifest["mediaType"], second.digest, size).to_json()
    second.store.add_manifest({**manifest, "subject": subject})
    assert signatures_by(second, [key.public]) == []


def test_a_damaged_signature_counts_nothing(artifact: Artifact, key: PrivateKey) -> None:
    sign_artifact(artifact, key)
    [manifest] = manifests(artifact, SIGNATURE_ARTIFACT)
    path = artifact.store.blob_path(manifest["layers"][0]["digest"])
    path.write_bytes(path.read_bytes() + b" ")
    assert signatures_by(artifact, [key.public]) == []


def test_what_is_damaged_is_not_signed_and_does_not_verify(artifact: Artifact, key: PrivateKey) -> None:
    sign_artifact(artifact, key)
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes().replace(b"brief", b"rude!"))
    for act in (lambda: sign_artifact(artifact, key), lambda: verify_signature(artifact, key.public)):
        with pytest.raises(IntegrityError, match=r"prompt\.json"):
            act()


def test_attestations_say_where_it_comes_from_and_what_it_is_made_of(
    artifact: Artifact, key: PrivateKey, tmp_path: Path
) -> None:
    sign_artifact(artifact, key)
    found = attestations_by(artifact, key.public)
    assert found.keys() == {SLSA, CYCLONEDX}
    for document in found.values():
        assert document["subject"] == [{"name": "greet", "digest": {"sha256": artifact.digest[7:]}}]
    provenance = found[SLSA]["predicate"]
    assert provenance["runDetails"]["metadata"]["invocationId"] == "run-1"
    assert {item["uri"] for item in provenance["buildDefinition"]["resolvedDependencies"]} == {
        "workbench:dataset/greetings",
        "workbench:model/tiny",
        "workbench:notebook/notebooks/greet.py",
        "git",
    }
    with pytest.raises(IntegrityError, match="no signature of an attestation"):
        attestations_by(artifact, PrivateKey.new(tmp_path / "other.pem").public)


def spoil(artifact: Artifact, signed: Signed, how: str, tmp_path: Path) -> str:
    """Do something to the bill of materials that lies beside a signature, and say how it is told."""
    store, digest = artifact.store, signed.attestations[1]
    manifest = json.loads(store.read_blob(digest))
    [layer] = manifest["layers"]
    if how == "damaged":
        path = store.blob_path(layer["digest"])
        path.write_bytes(path.read_bytes().replace(b"payload", b"PAYLOAD"))
        return r"its bill of materials fails: an attestation \(sha256:.*\) does not match its digest"
    store.forget_manifests([digest])
    if how == "missing":
        return "its bill of materials is missing"
    document = statement(artifact, CYCLONEDX, bill_of_materials(artifact))
    signer, told = PrivateKey.read(tmp_path / "keys" / "team.pem"), "it is of another artifact"
    if how == "of another artifact":
        document["subject"][0]["digest"]["sha256"] = "0" * 64
    if how == "without a subject":
        del document["subject"]
    if how == "by another key":
        signer, told = PrivateKey.new(tmp_path / "other.pem"), "no signature of an attestation is of this key"
    # Even where it claims the key's id.
    envelope = to_envelope(document, signer.sign, signed.key_id)
    if how == "rewritten":
        other = statement(artifact, CYCLONEDX, {"components": []})
        envelope["payload"] = to_envelope(other, signer.sign, signed.key_id)["payload"]
        told = "no signature of an attestation is of this key"
    data = b"no JSON" if how == "malformed" else json.dumps(envelope).encode()
    told = "an attestation is malformed" if how == "malformed" else told
    blob = store.put_blob(data, layer["mediaType"], annotations=layer["annotations"])
    refer(artifact, PAYLOAD_TYPE, blob)
    return f"its bill of materials fails: {told}"


@pytest.mark.parametrize(
    "how",
    [
        "damaged",
        "missing",
        "of another artifact",
        "without a subject",
        "by another key",
        "rewritten",
        "malformed",
    ],
)
def test_a_signature_counts_with_both_attestations(
    artifact: Artifact, key: PrivateKey, layout: Layout, tmp_path: Path, how: str
) -> None:
    signed = sign_artifact(artifact, key)
    assert attestation_faults(artifact, key.public) == []
    told = spoil(artifact, signed, how, tmp_path)
    with pytest.raises(IntegrityError, match=f"greet@1 is signed by this key, but {told}.*artifact sign greet@1"):
        verify_signature(artifact, key.public)
    assert signatures_by(artifact, [key.public]) == []
    with pytest.raises(GateRefused, match="signed by 0 of 1 keys"):
        move_alias(layout, "greet@1", "staging", policy=_only_signed(layout))
    # Signing again mends it.
    sign_artifact(artifact, key)
    verify_signature(artifact, key.public)


def test_what_others_hang_on_an_artifact_does_not_count_against_it(
    artifact: Artifact, key: PrivateKey, tmp_path: Path
) -> None:
    sign_artifact(artifact, key)
    sign_artifact(artifact, PrivateKey.new(tmp_path / "second.pem"))
    for kind in (PAYLOAD_TYPE, SIGNATURE_ARTIFACT):
        refer(artifact, kind, artifact.store.put_blob(b"[]", "text/plain"))
        refer(artifact, kind, Descriptor("text/plain", "sha256:" + "0" * 64, 2))
        manifest = manifests(artifact, kind)[0]
        artifact.store.add_manifest({**manifest, "layers": [{"digest": "none"}]})
        artifact.store.add_manifest({**manifest, "layers": None})
    verify_signature(artifact, key.public)
    assert attestations_by(artifact, key.public).keys() == {SLSA, CYCLONEDX}


def test_an_envelope_s_signature_is_of_its_type_too() -> None:
    # The example of the DSSE specification, with our type.
    assert pre_authentication(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"
    assert len(PAYLOAD_TYPE) == 28


def test_a_bill_of_materials_is_cyclonedx_and_always_the_same(artifact: Artifact) -> None:
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = bill_of_materials(artifact)
    assert document == bill_of_materials(artifact)
    # The validator wants libraries of its own.
    with contextlib.suppress(MissingOptionalDependencyException):
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    parts = {part["name"]: part for part in document["components"]}
    assert parts["polars"]["purl"] == "pkg:pypi/polars@2.1.0"
    assert parts["tiny"]["type"] == "machine-learning-model"
    assert parts["greetings"]["type"] == "data"
    assert document["metadata"]["component"]["hashes"][0]["content"] == artifact.digest[7:]


def test_signatures_are_kept_as_long_as_the_version(artifact: Artifact, key: PrivateKey, layout: Layout) -> None:
    import time

    sign_artifact(artifact, key)
    assert collect_garbage(layout, now=time.time() + 10 * GRACE_S).blobs == {}
    verify_signature(artifact, key.public)


def test_an_alias_that_asks_for_signatures_refuses_what_is_unsigned_or_tampered_with(
    artifact: Artifact, key: PrivateKey, layout: Layout, tmp_path: Path
) -> None:
    PrivateKey.new(tmp_path / "keys" / "second.pem")
    layout.policies.mkdir()
    text = '[signature]\nkeys = ["keys/team.pem.pub", "keys/second.pem.pub"]\ncount = 2\n'
    (layout.policies / "prod.toml").write_text(text)
    with pytest.raises(GateRefused, match="signed by 0 of 2 keys, at least 2 asked for; with: workbench artifact sign"):
        move_alias(layout, "greet@1", "prod")
    sign_artifact(artifact, key)
    sign_artifact(artifact, key)
    with pytest.raises(GateRefused, match="signed by 1 of 2 keys"):
        move_alias(layout, "greet@1", "prod")
    sign_artifact(artifact, PrivateKey.read(tmp_path / "keys" / "second.pem"))
    assert move_alias(layout, "greet@1", "prod").aliases == ("prod",)
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(GateRefused, match=r"signature: could not be evaluated: .*prompt\.json"):
        move_alias(layout, "greet@1", "staging", policy=_only_signed(layout))


def _only_signed(layout: Layout) -> Any:
    from workbench.registry.policy import Policy

    return Policy.model_validate({"signature": {"keys": ["keys/team.pem.pub"]}, "decision": {"minimum": "none"}})


def test_keys_are_kept_from_others_and_by_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "team.pem"
    monkeypatch.setenv(PASSWORD, "correct horse")
    made = PrivateKey.new(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PrivateKey.read(path).public.id == made.public.id
    assert b"ENCRYPTED" in path.read_bytes()
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(UsageError, match="its password is wrong"):
        PrivateKey.read(path)
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(UsageError, match=f"is encrypted. Set {PASSWORD}"):
        PrivateKey.read(path)
    with pytest.raises(UsageError, match="is there already"):
        PrivateKey.new(path)
    with pytest.raises(NotFoundError, match="keygen"):
        PublicKey.read(tmp_path / "nowhere.pub")
    (tmp_path / "text.pub").write_text("a key")
    with pytest.raises(UsageError, match="not a public key"):
        PublicKey.read(tmp_path / "text.pub")


def test_an_ed25519_key_signs_and_an_rsa_key_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    def write(key: Any, name: str) -> Path:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / name).write_bytes(key.private_bytes(*form))
        return tmp_path / name

    edwards = PrivateKey.read(write(ed25519.Ed25519PrivateKey.generate(), "ed.pem"))
    sign_artifact(artifact, edwards)
    verify_signature(artifact, edwards.public)
    with pytest.raises(UsageError, match="neither"):
        PrivateKey.read(write(rsa.generate_private_key(public_exponent=65537, key_size=2048), "rsa.pem"))


def test_the_commands(artifact: Artifact, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["artifact", *arguments], catch_exceptions=False)

    assert "k.pem and k.pem.pub" in call("keygen", "k.pem").stdout
    told = json.loads(call("verify", "greet", "--key", "k.pem.pub", "--json").stdout)
    assert (told["ok"], told["signed"]) == (False, False)
    assert "greet@1 is signed by key" in call("sign", "greet", "--key", "k.pem").stdout
    verified = call("verify", "greet", "--key", "k.pem.pub")
    assert verified.exit_code == 0
    assert "signed by k.pem.pub" in verified.stdout
    assert json.loads(call("verify", "greet", "--json").stdout)["signed"] is None
    assert json.loads(call("sbom", "greet").stdout)["bomFormat"] == "CycloneDX"
    assert json.loads(call("provenance", "greet").stdout)["predicateType"] == SLSA
