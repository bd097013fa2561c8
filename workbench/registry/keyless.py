"""Signatures without keys to keep, by Sigstore: who signed is told by a sign-in, and a public log says when.

Format: in-toto statements in DSSE envelopes in Sigstore bundles (v0.3), each in an OCI referrer as BUNDLE_SPEC.md of
sigstore/cosign has it. The statement that signs has cosign's type; beside it lie the attestations that keys sign too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import IntegrityError, WorkbenchError
from workbench.files import canonical_json, digest_bytes
from workbench.registry.artifact import Artifact, BlobCheck
from workbench.registry.attest import ATTESTED, PAYLOAD_TYPE, STATEMENT, statement, subjects_of
from workbench.registry.keyless_trust import reason
from workbench.registry.oci import TITLE, Descriptor
from workbench.registry.policy import Identity
from workbench.registry.sign import attested, count_signatures, refer, referrers

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle, ClientTrustConfig, TrustedRoot
    from sigstore.oidc import IdentityToken
    from sigstore.verify import Verifier

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
_CONTENT = {"dev.sigstore.bundle.content": "dsse-envelope"}
_PREDICATE = "dev.sigstore.bundle.predicateType"
# Where Fulcio writes the provider into a certificate (oid-info.md of sigstore/fulcio).
_ISSUER = "1.3.6.1.4.1.57264.1.1"


@dataclass(frozen=True)
class SignedKeyless:
    """What `sign_keyless` stored, by digest, and in whose name."""

    identity: str
    issuer: str
    signature: str
    attestations: tuple[str, ...]


@dataclass(frozen=True)
class Sealed:
    """A statement about an artifact in a bundle that was verified, with the certificate of who signed it."""

    statement: Mapping[str, Any]
    certificate: Certificate

    @property
    def by(self) -> str:
        """Who signed and who says so, in words."""
        return str(identity_of(self.certificate))

    def is_by(self, wanted: Identity) -> bool:
        """Whether this identity signed, of this issuer."""
        from sigstore.verify import policy

        try:
            policy.Identity(identity=wanted.identity, issuer=wanted.issuer).verify(self.certificate)
        except Exception:  # another one, or a certificate that names nobody
            return False
        return True


@dataclass(frozen=True)
class Signatures:
    """Signatures that lie beside an artifact.

    Attributes:
        by_keys: how many are by keys; such a signature does not tell the key.
        identities: who signed keyless, by their own account.
        unread: keyless ones that cannot be read, damaged or for want of sigstore.
    """

    by_keys: int
    identities: tuple[Identity, ...]
    unread: int

    def to_json(self) -> dict[str, Any]:
        who = [identity.model_dump() for identity in self.identities]
        return {"by_keys": self.by_keys, "identities": who, "unread": self.unread}

    def __str__(self) -> str:
        parts = [f"{self.by_keys} by keys"] if self.by_keys else []
        parts += [str(identity) for identity in self.identities]
        parts += [f"{self.unread} that cannot be read"] if self.unread else []
        return f"{', '.join(parts)}; not verified" if parts else "none"


class _Anyone:
    """Lets every certificate pass: who signed is held against who is wanted by `Sealed.is_by`, and told where it differs."""

    def verify(self, cert: Certificate) -> None:
        return None


def sign_keyless(artifact: Artifact, trust: ClientTrustConfig, token: IdentityToken) -> SignedKeyless:
    """Sign an artifact's manifest, after verifying every byte of it, and attest to its origin and contents.

    One certificate, and one line of the log for each of the three. Nothing is stored unless all of it verifies.

    Raises:
        IntegrityError: the artifact is damaged, or what Sigstore returned does not verify.
        WorkbenchError: Sigstore cannot be reached, or refuses.
    """
    import requests
    from sigstore.dsse import Statement
    from sigstore.sign import SigningContext

    artifact.verify()
    documents = (statement(artifact, COSIGN_SIGN, {}), *attested(artifact))
    try:
        with SigningContext.from_trust_config(trust).signer(token) as signer:
            bundles = [signer.sign_dsse(Statement(canonical_json(document))) for document in documents]
    except requests.ConnectionError as error:
        server = str(error.request.url) if error.request else "Sigstore"
        hint = "Where there is no network, sign with a key: --key FILE."
        raise WorkbenchError(f"{server} cannot be reached", hint=hint) from None
    except Exception as error:  # of a server, or what it answers: each has errors of its own
        hint = "Try again with a fresh token, or sign with a key: --key FILE."
        raise WorkbenchError(f"Sigstore did not sign: {reason(error)}", hint=hint) from None
    verifier = _verifier(trust.trusted_root)
    for bundle in bundles:
        _open(artifact, bundle, verifier)
    signature, *attestations = (
        _store(artifact, bundle, document["predicateType"]) for bundle, document in zip(bundles, documents, strict=True)
    )
    who = identity_of(bundles[0].signing_certificate)
    return SignedKeyless(who.identity, who.issuer, signature, tuple(attestations))


def examine(artifact: Artifact, root: TrustedRoot) -> tuple[list[Sealed], list[str]]:
    """What is said of the artifact in bundles that verify, attestations too, and why the others do not."""
    verifier = _verifier(root)
    found, faults = [], []
    for manifest in referrers(artifact, BUNDLE_TYPE):
        try:
            found.append(_open(artifact, _read(artifact, manifest), verifier))
        except IntegrityError as error:
            faults.append(error.message)
    return found, faults


def identities_by(artifact: Artifact, wanted: Sequence[Identity], root: Callable[[], TrustedRoot]) -> list[Identity]:
    """Those of the identities that have signed the artifact and attested to where it comes from and what it consists of.

    What does not verify counts nothing.

    Args:
        root: asked for only where there is a bundle to verify.

    Raises:
        WorkbenchError: whatever `root` raises.
    """
    if not wanted or not any(referrers(artifact, BUNDLE_TYPE)):
        return []
    found, _ = examine(artifact, root())
    return [who for who in dict.fromkeys(wanted) if _said_by(found, who) >= {COSIGN_SIGN, *ATTESTED}]


def verify_keyless(
    artifact: Artifact,
    wanted: Identity,
    root: Callable[[], TrustedRoot],
    checks: tuple[BlobCheck, ...] | None = None,
) -> None:
    """Make sure that an identity has signed the artifact, whose bytes are verified too, and has attested to it.

    Args:
        checks: what `Artifact.check` has just found, so as not to hash it all again.

    Raises:
        IntegrityError: it is damaged, not signed without a key, or by others only, or its signatures do not verify; or the
            identity's provenance or bill of materials is missing or does not verify.
        WorkbenchError: whatever `root` raises.
    """
    artifact.verify(checks)
    label = f"{artifact.name}@{artifact.version}"
    hint = f"Sign it with: workbench artifact sign {label} --keyless"
    if not any(referrers(artifact, BUNDLE_TYPE)):
        raise IntegrityError(f"{label} is not signed keyless", hint=hint)
    found, faults = examine(artifact, root())
    said = _said_by(found, wanted)
    if COSIGN_SIGN in said:
        if missing := [what for kind, what in ATTESTED.items() if kind not in said]:
            told = "; ".join(dict.fromkeys(faults))
            raise IntegrityError(
                f"{label} is signed by {wanted}, but not its {' and its '.join(missing)}{f': {told}' if told else ''}",
                hint=hint,
            )
        return
    others = ", ".join(dict.fromkeys(sealed.by for sealed in found if _signs(sealed)))
    by = [f"it is signed by {others}"] if others else []
    told = "; ".join([*by, *dict.fromkeys(faults)]) or "it is only attested to"
    raise IntegrityError(f"{label} is not signed by {wanted}: {told}", hint=hint)


def signatures_on(artifact: Artifact) -> Signatures:
    """Whose signatures lie beside the artifact, as they say themselves: nothing is verified."""
    named: list[Identity] = []
    unread = 0
    for manifest in referrers(artifact, BUNDLE_TYPE):
        annotations = manifest.get("annotations")
        if not isinstance(annotations, dict) or annotations.get(_PREDICATE) != COSIGN_SIGN:
            continue
        try:
            named.append(identity_of(_read(artifact, manifest).signing_certificate))
        except (IntegrityError, ImportError):
            unread += 1
    return Signatures(count_signatures(artifact), tuple(dict.fromkeys(named)), unread)


def identity_of(certificate: Certificate) -> Identity:
    """Who a certificate names, and who says so: for people to read; `Sealed.is_by` decides.

    Raises:
        IntegrityError: it names nobody.
    """
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(_ISSUER)).value
        [name] = names
        value = name.value.decode() if isinstance(name, x509.OtherName) else str(name.value)
        return Identity(identity=value, issuer=issuer.public_bytes().decode())
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise IntegrityError("the certificate names nobody", hint="Sign the artifact again.") from None


def _said_by(found: Sequence[Sealed], who: Identity) -> set[str]:
    """The types of the statements that an identity makes, that it signs among them."""
    return {str(sealed.statement.get("predicateType")) for sealed in found if sealed.is_by(who)}


def _signs(sealed: Sealed) -> bool:
    return sealed.statement.get("predicateType") == COSIGN_SIGN


def _store(artifact: Artifact, bundle: Bundle, predicate: str) -> str:
    data = bundle.to_json().encode()
    title = {TITLE: f"{digest_bytes(data).replace(':', '-')}.sigstore.json"}
    layer = artifact.store.put_blob(data, BUNDLE_TYPE, annotations=title)
    return refer(artifact, BUNDLE_TYPE, layer, annotations={**_CONTENT, _PREDICATE: predicate})


def _verifier(root: TrustedRoot) -> Verifier:
    from sigstore.verify import Verifier

    try:
        return Verifier(trusted_root=root)
    except Exception as error:  # keys or certificates that are missing or malformed: there is nothing to trust
        hint = "Ask for the file who runs that Sigstore."
        raise WorkbenchError(f"the trust root cannot be used: {reason(error)}", hint=hint) from None


def _read(artifact: Artifact, manifest: Mapping[str, Any]) -> Bundle:
    """The bundle of a manifest.

    Raises:
        IntegrityError: it is missing, damaged or malformed.
    """
    from sigstore.models import Bundle

    try:
        [layer] = manifest["layers"]
        return Bundle.from_json(artifact.store.read_blob(Descriptor.from_json(layer).digest, title="a bundle"))
    except IntegrityError:
        raise
    except Exception as error:  # JSON, base64, DER: what cannot be read proves nothing
        raise IntegrityError(f"a bundle is malformed: {reason(error)}", hint="Sign the artifact again.") from None


def _open(artifact: Artifact, bundle: Bundle, verifier: Verifier) -> Sealed:
    """The statement in a bundle, if its signature, certificate and entry in the log verify and it is of this artifact."""
    hint = "Sign the artifact again."
    try:
        kind, payload = verifier.verify_dsse(bundle, _Anyone())
        found = json.loads(payload)
        known = kind == PAYLOAD_TYPE and found["_type"] == STATEMENT
    except Exception as error:  # whatever it is, the bundle proves nothing
        raise IntegrityError(f"a bundle does not verify: {reason(error)}", hint=hint) from None
    if not known:
        raise IntegrityError("a bundle holds no in-toto statement", hint=hint)
    if artifact.digest not in subjects_of(found):
        raise IntegrityError("a bundle is of another artifact", hint=hint)
    return Sealed(found, bundle.signing_certificate)
