"""Signatures without keys, through a Sigstore of our own: who signed is who the provider says, and nothing else counts."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun
from workbench.cli.main import app
from workbench.errors import (
    DataError,
    GateRefused,
    IntegrityError,
    MissingExtraError,
    NotFoundError,
    UsageError,
    WorkbenchError,
    WorkspaceError,
)
from workbench.files import digest_bytes
from workbench.registry import remote
from workbench.registry.aliases import move_alias
from workbench.registry.artifact import Artifact
from workbench.registry.attest import CYCLONEDX, SLSA
from workbench.registry.keyless import (
    BUNDLE_TYPE,
    COSIGN_SIGN,
    SignedKeyless,
    examine,
    identities_by,
    sign_keyless,
    signatures_on,
    verify_keyless,
)
from workbench.registry.keyless_trust import TOKEN, identity_token, signing_trust, trusted_root
from workbench.registry.keys import PrivateKey
from workbench.registry.oci import Descriptor
from workbench.registry.policy import Identity, SignaturePolicy
from workbench.registry.promote import promote
from workbench.registry.sign import refer, referrers, sign_artifact
from workbench.workspace import Layout, Settings

pytest.importorskip("sigstore")
pytest.importorskip("joserfc")

from tests.registry.registries import registry
from tests.registry.sigstore_server import Sigstore, sigstore

WORKFLOW = "https://github.com/acme/llm/.github/workflows/promote.yml@refs/heads/main"


@pytest.fixture(scope="module")
def servers() -> Iterator[Sigstore]:
    with sigstore() as running:
        yield running


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No identity of the machine that runs the tests, no trust root of its user, and no way to the network."""
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: None)
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def layout(layout: Layout, servers: Sigstore) -> Layout:
    """A workspace that trusts our Sigstore."""
    servers.trust_config(layout.root / "keys" / "sigstore.json")
    (layout.root / "workbench.toml").write_text('name = "test"\n[sigstore]\ntrust_config = "keys/sigstore.json"\n')
    return Layout.find(layout.root)


@pytest.fixture
def artifact(layout: Layout, make_run: MakeRun) -> Artifact:
    return promote(layout, make_run(), "greet", "few")


@pytest.fixture
def ada(servers: Sigstore) -> Identity:
    return Identity(identity="ada@example.org", issuer=servers.url)


Sign = Callable[..., SignedKeyless]


@pytest.fixture
def sign(layout: Layout, servers: Sigstore, tmp_path: Path) -> Sign:
    """Sign an artifact in somebody's name."""

    def act(artifact: Artifact, subject: str = "ada@example.org") -> SignedKeyless:
        (tmp_path / "token").write_text(servers.token(subject) + "\n")
        trust = signing_trust(layout)
        return sign_keyless(artifact, trust, identity_token(trust, tmp_path / "token"))

    return act


def bundle(artifact: Artifact, predicate: str = COSIGN_SIGN) -> dict[str, Any]:
    """The one bundle with that predicate."""
    [manifest] = [m for m in referrers(artifact, BUNDLE_TYPE) if predicate in m["annotations"].values()]
    found: dict[str, Any] = json.loads(artifact.store.read_blob(manifest["layers"][0]["digest"]))
    return found


def public(layout: Layout) -> Layout:
    """The same workspace, trusting the public Sigstore."""
    return Layout(layout.root, Settings())


def strip(artifact: Artifact) -> None:
    """Take every bundle off an artifact."""
    store = artifact.store
    store.forget_manifests(entry.digest for entry in store.manifests() if entry.artifact_type == BUNDLE_TYPE)


def hang(artifact: Artifact, data: bytes) -> None:
    """Put a bundle on an artifact in the place of those that are there, as whoever may write to a registry can."""
    strip(artifact)
    store = artifact.store
    annotations = {"dev.sigstore.bundle.predicateType": COSIGN_SIGN}
    refer(artifact, BUNDLE_TYPE, store.put_blob(data, BUNDLE_TYPE), annotations=annotations)


def test_a_person_signs_and_is_asked_for(artifact: Artifact, layout: Layout, sign: Sign, ada: Identity) -> None:
    with pytest.raises(IntegrityError, match="greet@1 is not signed keyless"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))
    signed = sign(artifact)
    verify_keyless(artifact, ada, lambda: trusted_root(layout))
    assert (signed.identity, signed.issuer) == (ada.identity, ada.issuer)
    bob = Identity(identity="bob@example.org", issuer=ada.issuer)
    sign(artifact, "bob@example.org")
    carol = Identity(identity="carol@example.org", issuer=ada.issuer)
    assert identities_by(artifact, [bob, carol, ada, bob], lambda: trusted_root(layout)) == [bob, ada]
    assert signatures_on(artifact).to_json()["identities"] in ([dict(ada), dict(bob)], [dict(bob), dict(ada)])


def test_a_bundle_is_stored_as_cosign_has_it(artifact: Artifact, sign: Sign) -> None:
    signed = sign(artifact)
    manifest = json.loads(artifact.store.read_blob(signed.signature))
    [layer] = manifest["layers"]
    data = artifact.store.read_blob(layer["digest"])
    assert manifest["artifactType"] == layer["mediaType"] == json.loads(data)["mediaType"] == BUNDLE_TYPE
    assert manifest["subject"]["digest"] == artifact.digest
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert manifest["annotations"] == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": COSIGN_SIGN,
    }
    assert layer["annotations"]["org.opencontainers.image.title"] == f"sha256-{digest_bytes(data)[7:]}.sigstore.json"


def test_a_ci_system_signs_and_attests(artifact: Artifact, layout: Layout, sign: Sign, servers: Sigstore) -> None:
    before = len(servers.entries)
    signed = sign(artifact, WORKFLOW)
    assert (signed.identity, len(signed.attestations)) == (WORKFLOW, 2)
    assert len(servers.entries) == before + 3
    found, faults = examine(artifact, trusted_root(layout))
    assert faults == []
    statements = {sealed.statement["predicateType"]: sealed for sealed in found}
    assert statements.keys() == {COSIGN_SIGN, SLSA, CYCLONEDX}
    workflow = Identity(identity=WORKFLOW, issuer=servers.url)
    for sealed in found:
        assert sealed.statement["subject"] == [{"name": "greet", "digest": {"sha256": artifact.digest[7:]}}]
        assert sealed.is_by(workflow)
    assert statements[SLSA].statement["predicate"]["runDetails"]["metadata"]["invocationId"] == "run-1"


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [("ada@example.com", None), ("Ada@example.org", None), ("ada@example.org", "https://elsewhere.example")],
)
def test_another_person_or_provider_is_refused(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity, identity: str, issuer: str | None
) -> None:
    sign(artifact)
    wanted = Identity(identity=identity, issuer=issuer or ada.issuer)
    with pytest.raises(IntegrityError, match=r"is not signed by .*: it is signed by ada@example\.org \(http://127"):
        verify_keyless(artifact, wanted, lambda: trusted_root(layout))
    assert identities_by(artifact, [wanted], lambda: trusted_root(layout)) == []


def test_a_bundle_of_another_artifact_counts_nothing(
    artifact: Artifact, layout: Layout, make_run: MakeRun, sign: Sign, ada: Identity
) -> None:
    second = promote(layout, make_run(run_id="run-2"), "greet", "few")
    sign(artifact)
    hang(second, json.dumps(bundle(artifact)).encode())
    with pytest.raises(IntegrityError, match=r"greet@2 is not signed by .*: a bundle is of another artifact"):
        verify_keyless(second, ada, lambda: trusted_root(layout))
    assert identities_by(second, [ada], lambda: trusted_root(layout)) == []


def test_an_attestation_is_no_signature(artifact: Artifact, layout: Layout, sign: Sign, ada: Identity) -> None:
    artifact.store.forget_manifests([sign(artifact).signature])
    with pytest.raises(IntegrityError, match="it is only attested to"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))
    # Nor does it become one by what its manifest says of it.
    hang(artifact, json.dumps(bundle(artifact, SLSA)).encode())
    assert identities_by(artifact, [ada], lambda: trusted_root(layout)) == []


def test_a_signature_counts_with_both_attestations(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity
) -> None:
    """By the same identity, each of this artifact and whole."""
    _, contents = sign(artifact).attestations
    [layer] = json.loads(artifact.store.read_blob(contents))["layers"]
    path = artifact.store.blob_path(layer["digest"])
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    with pytest.raises(
        IntegrityError,
        match=r"is signed by ada.*, but not its bill of materials: a bundle .* does not match its digest",
    ):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))
    assert identities_by(artifact, [ada], lambda: trusted_root(layout)) == []
    path.write_bytes(whole)
    verify_keyless(artifact, ada, lambda: trusted_root(layout))
    artifact.store.forget_manifests([contents])
    sign(artifact, "bob@example.org")
    with pytest.raises(IntegrityError, match=r"is signed by ada.*, but not its bill of materials\. Sign it"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))


def test_a_bundle_that_is_damaged_on_disk_is_named(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity
) -> None:
    [layer] = json.loads(artifact.store.read_blob(sign(artifact).signature))["layers"]
    path = artifact.store.blob_path(layer["digest"])
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"a bundle \(sha256:.*does not match its digest"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))
    assert str(signatures_on(artifact)) == "1 that cannot be read; not verified"


def test_a_flipped_bit_in_a_bundle_says_nothing_else(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity
) -> None:
    """Refused, or the same said by the same: spaces and the unused bits of base64 mean nothing."""
    sign(artifact)
    data = json.dumps(bundle(artifact)).encode()
    root = trusted_root(layout)
    hang(artifact, data)
    [whole], _ = examine(artifact, root)

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, len(data) - 1), st.integers(0, 7))
    def flip(place: int, bit: int) -> None:
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        hang(artifact, bytes(changed))
        found, faults = examine(artifact, root)
        assert len(found) + len(faults) == 1
        assert all((s.statement, s.certificate) == (whole.statement, whole.certificate) for s in found)

    flip()


def test_each_part_of_a_bundle_is_verified(artifact: Artifact, layout: Layout, sign: Sign, ada: Identity) -> None:
    """With the parts of bob's bundle in ada's, or a proof that proves something else, nobody has signed."""
    sign(artifact, "bob@example.org")
    other = bundle(artifact)
    strip(artifact)
    sign(artifact)
    mine = bundle(artifact)

    def entry(found: dict[str, Any]) -> dict[str, Any]:
        return dict(found["verificationMaterial"]["tlogEntries"][0])

    def material(**changes: Any) -> dict[str, Any]:
        return {**mine, "verificationMaterial": {**mine["verificationMaterial"], **changes}}

    mixed = {
        "envelope": {**mine, "dsseEnvelope": other["dsseEnvelope"]},
        "certificate": material(certificate=other["verificationMaterial"]["certificate"]),
        "entry": material(tlogEntries=[entry(other)]),
        "proof": material(tlogEntries=[entry(mine) | {"inclusionProof": entry(other)["inclusionProof"]}]),
        "promise": material(tlogEntries=[entry(mine) | {"inclusionPromise": entry(other)["inclusionPromise"]}]),
        "time": material(tlogEntries=[entry(mine) | {"integratedTime": "1600000000"}]),
        "no promise": material(tlogEntries=[{k: v for k, v in entry(mine).items() if k != "inclusionPromise"}]),
        "no entry": material(tlogEntries=[]),
    }
    for what, data in mixed.items():
        hang(artifact, json.dumps(data).encode())
        assert examine(artifact, trusted_root(layout))[0] == [], what
    hang(artifact, json.dumps(mine).encode())
    [sealed], _ = examine(artifact, trusted_root(layout))
    assert sealed.is_by(ada)
    hang(artifact, b"not JSON")
    with pytest.raises(IntegrityError, match="a bundle is malformed"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))


def test_another_sigstore_vouches_for_nobody(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity, tmp_path: Path
) -> None:
    sign(artifact)
    other = Sigstore(url=ada.issuer).trust_config(tmp_path / "other.json")
    with pytest.raises(IntegrityError, match="a bundle does not verify: failed to build"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout, file=other))
    # The public one, as it came with the library, knows nothing of ours either.
    with pytest.raises(IntegrityError, match="a bundle does not verify"):
        verify_keyless(artifact, ada, lambda: trusted_root(public(layout), offline=True))


def test_what_is_damaged_is_not_signed_and_does_not_verify(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity
) -> None:
    sign(artifact)
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes().replace(b"brief", b"rude!"))
    for act in (lambda: sign(artifact), lambda: verify_keyless(artifact, ada, lambda: trusted_root(layout))):
        with pytest.raises(IntegrityError, match=r"prompt\.json"):
            act()


def policy(layout: Layout, text: str) -> None:
    layout.policies.mkdir(exist_ok=True)
    (layout.policies / "prod.toml").write_text(f'[signature]\n{text}\n[decision]\nminimum = "none"\n')


def test_an_alias_asks_for_identities_beside_keys(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity
) -> None:
    key = PrivateKey.new(layout.root / "keys" / "team.pem")
    who = f'identities = [{{ identity = "{ada.identity}", issuer = "{ada.issuer}" }}]'
    policy(layout, f'keys = ["keys/team.pem.pub"]\n{who}\ncount = 2')
    sign_artifact(artifact, key)
    with pytest.raises(GateRefused, match="signed by 1 of 1 keys and 1 identities, at least 2 asked for"):
        move_alias(layout, "greet@1", "prod")
    sign(artifact, "bob@example.org")
    with pytest.raises(GateRefused, match="signed by 1 of 1 keys and 1 identities"):
        move_alias(layout, "greet@1", "prod")
    sign(artifact)
    assert move_alias(layout, "greet@1", "prod").aliases == ("prod",)
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(GateRefused, match=r"signature: could not be evaluated: .*prompt\.json"):
        move_alias(layout, "greet@1", "prod")


def test_an_identity_that_cannot_be_verified_is_refused_with_the_reason(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = f'identities = [{{ identity = "{ada.identity}", issuer = "{ada.issuer}" }}]'
    policy(layout, who)
    with pytest.raises(GateRefused, match=r"signed by 0 of 1 identities, at least 1 asked for; with: .* --keyless"):
        move_alias(layout, "greet@1", "prod")
    sign(artifact)
    with pytest.raises(GateRefused, match="signature: could not be evaluated: Sigstore's trust root cannot be fetched"):
        move_alias(public(layout), "greet@1", "prod")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "sigstore", None)
        with pytest.raises(GateRefused, match="signature: could not be evaluated: sigstore is not installed"):
            move_alias(layout, "greet@1", "prod")
    # Where a key suffices, nobody is asked.
    sign_artifact(artifact, PrivateKey.new(layout.root / "keys" / "team.pem"))
    policy(layout, f'keys = ["keys/team.pem.pub"]\n{who}')
    assert move_alias(public(layout), "greet@1", "prod").aliases == ("prod",)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "give keys, identities or both"),
        ({"identities": [{"identity": "ada"}]}, "issuer"),
        ({"identities": [{"identity": "", "issuer": "https://i"}]}, "identity"),
        ({"keys": ["a", "a"], "count": 2}, "count = 2 is more than there are keys"),
        ({"keys": ["a"], "identities": [{"identity": "i", "issuer": "i"}] * 2, "count": 3}, "keys and identities"),
    ],
)
def test_a_policy_that_cannot_be_met_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        SignaturePolicy.model_validate(settings)


def test_push_and_pull_take_it_along(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    repository = registry().new_repository()
    signed = sign(artifact)
    pushed = remote.push(layout, "greet@1", f"{repository}:v1")
    assert set(pushed.referrers) == {signed.signature, *signed.attestations}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "workbench.toml").write_text('name = "elsewhere"\n')
    pulled = remote.pull(Layout.find(tmp_path / "elsewhere"), f"{repository}:v1", name="hello")
    verify_keyless(pulled.artifact, ada, lambda: trusted_root(layout))


def test_where_there_is_no_network(artifact: Artifact, layout: Layout, ada: Identity, tmp_path: Path) -> None:
    with sigstore() as gone:
        trust = signing_trust(layout, file=gone.trust_config(tmp_path / "gone.json"))
        (tmp_path / "token").write_text(gone.token())
        token = identity_token(trust, tmp_path / "token")
    with pytest.raises(WorkbenchError, match=r"http://127.*signingCert cannot be reached.*--key FILE"):
        sign_keyless(artifact, trust, token)
    assert list(referrers(artifact, BUNDLE_TYPE)) == []
    for staging in (False, True):
        with pytest.raises(WorkbenchError, match=r"trust root cannot be fetched.*--trust-config.*--offline.*--key"):
            trusted_root(public(layout), staging=staging)


def test_a_token_that_sigstore_refuses_signs_nothing(artifact: Artifact, layout: Layout, tmp_path: Path) -> None:
    trust = signing_trust(layout)
    (tmp_path / "token").write_text(Sigstore(url="http://127.0.0.1").token())
    with pytest.raises(WorkbenchError, match="Sigstore did not sign: 401"):
        sign_keyless(artifact, trust, identity_token(trust, tmp_path / "token"))
    assert list(referrers(artifact, BUNDLE_TYPE)) == []


def test_who_signs(layout: Layout, servers: Sigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before the variable, the variable before the CI system's identity."""
    trust = signing_trust(layout)
    with pytest.raises(UsageError, match=f"no identity to sign with. Set {TOKEN}"):
        identity_token(trust)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: servers.token(WORKFLOW))
    assert identity_token(trust).identity == WORKFLOW
    monkeypatch.setenv(TOKEN, servers.token("bob@example.org"))
    assert identity_token(trust).identity == "bob@example.org"
    (tmp_path / "token").write_text(servers.token())
    assert identity_token(trust, tmp_path / "token").identity == "ada@example.org"
    # An empty file is nobody, not whoever else might be meant.
    (tmp_path / "token").write_text("")
    with pytest.raises(UsageError, match="no identity for Sigstore"):
        identity_token(trust, tmp_path / "token")


@pytest.mark.parametrize("claims", [{"aud": "somebody"}, {"exp": 1}, {"iss": None}, None])
def test_a_token_for_something_else_is_refused(
    layout: Layout, servers: Sigstore, tmp_path: Path, claims: dict[str, Any] | None
) -> None:
    (tmp_path / "token").write_text("no token" if claims is None else servers.token(**claims))
    with pytest.raises(UsageError, match=r"no identity for Sigstore: Identity token is.*audience sigstore") as told:
        identity_token(signing_trust(layout), tmp_path / "token")
    assert (tmp_path / "token").read_text() not in str(told.value)


# The library leaves its own little server to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_person_signs_in_at_the_browser(
    layout: Layout, servers: Sigstore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def browse(url: str) -> bool:
        threading.Thread(target=lambda: urllib.request.urlopen(url).close()).start()
        return True

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(webbrowser, "open", browse)
    assert identity_token(signing_trust(layout)).identity == servers.signs_in
    assert capsys.readouterr().out == ""
    with sigstore() as gone:
        trust = signing_trust(layout, file=gone.trust_config(layout.root / "gone.json"))
    with pytest.raises(WorkbenchError, match=r"signing in failed: .*Try again"):
        identity_token(trust)


def test_files_that_are_no_trust_config(layout: Layout, tmp_path: Path, servers: Sigstore) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        trusted_root(layout, file=tmp_path / "nowhere.json")
    file = tmp_path / "trust.json"
    for text in ("no JSON", "[]", "{}", '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'):
        file.write_text(text)
        with pytest.raises(DataError, match=r"trust\.json: neither a client trust config"):
            trusted_root(layout, file=file)
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read"):
        trusted_root(layout, file=file)
    # A trusted root alone verifies, and does not sign.
    root = json.loads(servers.trust_config(file).read_text())["trustedRoot"]
    file.write_text(json.dumps(root))
    assert trusted_root(layout, file=file).get_fulcio_certs() == [servers.root]
    with pytest.raises(DataError, match="holds a trusted root only"):
        signing_trust(layout, file=file)
    with pytest.raises(UsageError, match=r"which Sigstore\?"):
        trusted_root(layout, file=file, staging=True)


def test_a_trust_root_without_authorities_verifies_nothing(
    artifact: Artifact, layout: Layout, sign: Sign, ada: Identity, tmp_path: Path, servers: Sigstore
) -> None:
    sign(artifact)
    root = json.loads(servers.trust_config(tmp_path / "trust.json").read_text())["trustedRoot"]
    (tmp_path / "trust.json").write_text(json.dumps({**root, "certificateAuthorities": []}))
    with pytest.raises(WorkbenchError, match="the trust root cannot be used: Fulcio certificates not found"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout, file=tmp_path / "trust.json"))


def test_without_the_library(layout: Layout, artifact: Artifact, sign: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(artifact)
    for name in ("sigstore", "sigstore.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"sigstore is not installed.*llmops-workbench\[keyless\]"):
        trusted_root(layout)
    assert signatures_on(artifact).to_json() == {"by_keys": 0, "identities": [], "unread": 1}


def test_a_setting_that_is_not_known_is_refused(layout: Layout) -> None:
    (layout.root / "workbench.toml").write_text("[sigstore]\ntrust = 1\n")
    with pytest.raises(WorkspaceError, match=r"sigstore\.trust"):
        Layout.find(layout.root)


def test_the_commands(artifact: Artifact, layout: Layout, servers: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["artifact", *arguments])

    def asks(who: str) -> tuple[str, ...]:
        return ("verify", "greet", "--identity", who, "--issuer", servers.url)

    told = json.loads(call(*asks("ada@example.org"), "--json").stdout)
    assert (told["ok"], told["signed"], told["reason"]) == (False, False, "greet@1 is not signed keyless")
    (layout.root / "token").write_text(servers.token())
    signed = json.loads(call("sign", "greet", "--keyless", "--identity-token", "token", "--json").stdout)
    assert (signed["digest"], signed["identity"], len(signed["attestations"])) == (
        artifact.digest,
        "ada@example.org",
        2,
    )
    assert f"greet@1 is signed by ada@example.org ({servers.url})" in call(*asks("ada@example.org")).stdout
    told = json.loads(call(*asks("ada@example.org"), "--trust-config", "keys/sigstore.json", "--json").stdout)
    who = [{"identity": "ada@example.org", "issuer": servers.url}]
    assert (told["ok"], told["signed"], told["signatures"]["identities"]) == (True, True, who)
    refused = call(*asks("bob@example.org"), "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["signed"]) == (1, False)
    assert isinstance(call(*asks("bob@example.org")).exception, IntegrityError)
    assert json.loads(call("show", "greet", "--json").stdout)["signatures"]["identities"] == who
    assert "ada@example.org" in call("show", "greet").stdout
    monkeypatch.setenv(TOKEN, servers.token("bob@example.org"))
    assert "is signed by bob@example.org" in call("sign", "greet", "--keyless").stdout
    for wrong in (
        ("sign", "greet"),
        ("sign", "greet", "--keyless", "--key", "k.pem"),
        ("sign", "greet", "--key", "k.pem", "--staging"),
        ("verify", "greet", "--identity", "ada@example.org"),
        ("verify", "greet", "--issuer", servers.url),
        ("verify", "greet", "--offline"),
    ):
        assert isinstance(call(*wrong).exception, UsageError), wrong


def test_one_key_under_two_names_is_one_signature(artifact: Artifact, layout: Layout) -> None:
    key = PrivateKey.new(layout.root / "keys" / "team.pem")
    (layout.root / "keys" / "copy.pub").write_bytes(key.public.pem())
    sign_artifact(artifact, key)
    policy(layout, 'keys = ["keys/team.pem.pub", "keys/copy.pub"]\ncount = 2')
    with pytest.raises(GateRefused, match="signed by 1 of 2 keys"):
        move_alias(layout, "greet@1", "prod")


def test_a_manifest_without_a_layer_counts_nothing(artifact: Artifact, layout: Layout, ada: Identity) -> None:
    """Anybody may hang anything on an artifact."""
    refer(artifact, BUNDLE_TYPE, Descriptor(BUNDLE_TYPE, digest_bytes(b"not there"), 9))
    [manifest] = referrers(artifact, BUNDLE_TYPE)
    artifact.store.add_manifest({**manifest, "layers": [], "annotations": []})
    with pytest.raises(IntegrityError, match=r"is not signed by .*is missing|is malformed"):
        verify_keyless(artifact, ada, lambda: trusted_root(layout))
    assert str(signatures_on(artifact)) == "none"
