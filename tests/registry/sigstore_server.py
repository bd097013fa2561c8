"""A Sigstore of our own on 127.0.0.1: provider, certificate authority, certificate log and signature log, with real signatures.

What is served is as in fulcio's `/api/v2/signingCert`, rekor's `/api/v1/log/entries` (kind dsse, version 0.0.1) and
OpenID Connect Discovery; certificate timestamps and Merkle trees are those of RFC 6962.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc import jwt
from joserfc.jwk import ECKey

from workbench.files import canonical_json

_DER, _SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
_SCTS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_LONG_AGO = "2020-01-01T00:00:00Z"


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(_DER, _SPKI)


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Sigstore:
    """The servers at `url`, and their keys.

    Attributes:
        entries: bodies of the entries in the log, in order.
        signs_in: who the provider says is at the browser.
    """

    url: str = ""
    oidc: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    authority: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    entries: list[bytes] = field(default_factory=list)
    signs_in: str = "ada@example.org"

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sigstore of the tests")])
        now = datetime.datetime.now(datetime.UTC)
        key = self.authority.public_key()
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False
        )
        usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
        self._usage = usage | {"key_cert_sign": False, "crl_sign": False}
        self.root = (
            x509.CertificateBuilder(name, name, key, x509.random_serial_number(), now, now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**self._usage | {"key_cert_sign": True, "crl_sign": True}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    def token(self, subject: str = "ada@example.org", **claims: Any) -> str:
        """An identity token of the provider."""
        now = int(time.time())
        told = {"iss": self.url, "aud": "sigstore", "sub": subject, "iat": now, "exp": now + 60, **claims}
        return jwt.encode({"alg": "ES256"}, told, self.oidc)

    def trust_config(self, path: Path) -> Path:
        """Write the client trust config to a file."""
        always = {"start": _LONG_AGO}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": _text(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": always}
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": _text(_id(key))},
            }

        service = {"url": self.url, "majorApiVersion": 1, "validFor": always, "operator": "tests"}
        chain = {"certificates": [{"rawBytes": _text(self.root.public_bytes(_DER))}]}
        authority = {
            "subject": {"organization": "tests", "commonName": "sigstore of the tests"},
            "uri": self.url,
            "certChain": chain,
            "validFor": always,
        }
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log)],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self.certificate_log)],
            "timestampAuthorities": [],
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [service],
            "rekorTlogUrls": [service],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [],
        }
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"mediaType": kind, "trustedRoot": root, "signingConfig": config}))
        return path

    def certify(self, request: dict[str, Any], token: str) -> list[str]:
        """A certificate for the key of a request in the name that a token tells, and the authority's, in PEM."""
        claims = jwt.decode(token, self.oidc, algorithms=["ES256"]).claims
        key = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"])).public_key()
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        subject = claims["sub"]
        name = x509.UniformResourceIdentifier(subject) if "://" in subject else x509.RFC822Name(subject)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(minutes=10))
            .add_extension(x509.KeyUsage(**self._usage | {"digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, claims["iss"].encode()), critical=False)
        )
        stamp = self._timestamp(builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes)
        signed = builder.add_extension(x509.UnrecognizedExtension(_SCTS, stamp), critical=False)
        chain = (signed.sign(self.authority, hashes.SHA256()), self.root)
        return [certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in chain]

    def _timestamp(self, certificate: bytes) -> bytes:
        """The list of one signed certificate timestamp of what becomes the certificate, in DER."""
        now = int(time.time() * 1000)
        entry = _id(self.authority) + len(certificate).to_bytes(3, "big") + certificate
        signature = _sign(self.certificate_log, struct.pack("!BBQH", 0, 0, now, 1) + entry + b"\0\0")
        sct = struct.pack("!B32sQHBBH", 0, _id(self.certificate_log), now, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        assert len(listed) < 128
        return bytes((0x04, len(listed))) + listed

    def enter(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Put an envelope into the log; the entry with its proofs."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        [verifier], [signature] = content["verifiers"], envelope["signatures"]
        digests = [
            hashlib.sha256(data).hexdigest() for data in (content["envelope"].encode(), _bytes(envelope["payload"]))
        ]
        hashed = [{"algorithm": "sha256", "value": digest} for digest in digests]
        spec = {
            "envelopeHash": hashed[0],
            "payloadHash": hashed[1],
            "signatures": [{"signature": signature["sig"], "verifier": verifier}],
        }
        self.entries.append(canonical_json({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}))
        leaves = [hashlib.sha256(b"\0" + entry).digest() for entry in self.entries]
        index, root = len(leaves) - 1, _tree(leaves)
        note = f"log of the tests - 1\n{len(leaves)}\n{_text(root)}\n"
        seal = _text(_id(self.log)[:4] + _sign(self.log, note.encode()))
        entry = {
            "body": _text(self.entries[-1]),
            "integratedTime": int(time.time()),
            "logID": _id(self.log).hex(),
            "logIndex": index,
        }
        proof = {
            "logIndex": index,
            "treeSize": len(leaves),
            "rootHash": root.hex(),
            "hashes": [digest.hex() for digest in _path(leaves, index)],
            "checkpoint": f"{note}\n— log {seal}\n",
        }
        promise = _text(_sign(self.log, canonical_json(entry)))
        return {str(index): {**entry, "verification": {"inclusionProof": proof, "signedEntryTimestamp": promise}}}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _tree(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    half = _split(len(leaves))
    return hashlib.sha256(b"\1" + _tree(leaves[:half]) + _tree(leaves[half:])).digest()


def _path(leaves: list[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    half = _split(len(leaves))
    if index < half:
        return [*_path(leaves[:half], index), _tree(leaves[half:])]
    return [*_path(leaves[half:], index - half), _tree(leaves[:half])]


@contextmanager
def sigstore() -> Iterator[Sigstore]:
    """The servers, until the block ends."""
    told = Sigstore()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = urlsplit(self.path)
            if there.path == "/authorize":
                asked = {name: values[0] for name, values in parse_qs(there.query).items()}
                back = urlencode({"code": "a code", "state": asked["state"]})
                self.say(302, {}, Location=f"{asked['redirect_uri']}?{back}")
            else:
                ends = {f"{name}_endpoint": f"{told.url}/{path}" for name, path in _ENDPOINTS.items()}
                self.say(200, {"issuer": told.url, **ends})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path == "/token":
                self.say(200, {"access_token": told.token(told.signs_in)})
            elif self.path == "/api/v2/signingCert":
                try:
                    chain = told.certify(json.loads(body), self.headers["Authorization"].removeprefix("Bearer "))
                    self.say(201, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})
                except Exception as error:
                    self.say(401, {"code": 16, "message": str(error)})
            else:
                self.say(201, told.enter(json.loads(body)))

        def say(self, status: int, value: Any, **headers: str) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


_ENDPOINTS = {"authorization": "authorize", "token": "token"}
