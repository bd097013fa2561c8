"""Keys for signing: ECDSA on P-256 or Ed25519, in PEM files as openssl and cosign read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from workbench.errors import IntegrityError, NotFoundError, UsageError, require
from workbench.files import digest_bytes

# The environment variable that holds the password of a private key.
PASSWORD = "WORKBENCH_KEY_PASSWORD"


class PublicKey:
    """A key that tells whether a signature is of some bytes. `id` is the sha256 of its DER form."""

    def __init__(self, key: Any) -> None:
        self._key = key
        serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
        self._serialization = serialization
        self.id = digest_bytes(
            key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @staticmethod
    def read(path: Path) -> PublicKey:
        """Read a public key, or the public part of a private one.

        Raises:
            NotFoundError: no such file.
            UsageError: not a key of a kind that is supported.
        """
        data = _read(path)
        if b"PRIVATE KEY" in data:
            return PrivateKey.read(path).public
        serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
        try:
            key = serialization.load_pem_public_key(data)
        except ValueError:
            raise UsageError(f"{path} is not a public key in PEM", hint=_MAKE) from None
        _check_kind(key, path)
        return PublicKey(key)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is of the data, by this key."""
        exceptions = require("cryptography.exceptions", extra="sign")
        try:
            self._key.verify(signature, data, *_scheme(self._key))
        except exceptions.InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """The key as PEM."""
        serialization = self._serialization
        found: bytes = self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return found


class PrivateKey:
    """A key that signs. What it is encrypted with is in `WORKBENCH_KEY_PASSWORD`, never in an argument or a file."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @staticmethod
    def new(path: Path) -> PrivateKey:
        """Make a key on P-256 and write it to `path` (its owner alone may read it) and its public part to `path`.pub.

        Raises:
            UsageError: one of the files is there already.
        """
        ec = require("cryptography.hazmat.primitives.asymmetric.ec", extra="sign")
        serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
        public = path.with_name(path.name + ".pub")
        for file in (path, public):
            if file.exists():
                raise UsageError(f"{file} is there already", hint="Name another file.")
        key = ec.generate_private_key(ec.SECP256R1())
        password = os.environ.get(PASSWORD)
        locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        made = PrivateKey(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(pem)
        public.write_bytes(made.public.pem())
        return made

    @staticmethod
    def read(path: Path) -> PrivateKey:
        """Read a private key.

        Raises:
            NotFoundError: no such file.
            UsageError: not a key of a kind that is supported, or its password is missing or wrong.
        """
        data = _read(path)
        serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
        password = os.environ.get(PASSWORD)
        try:
            key = serialization.load_pem_private_key(data, password.encode() if password else None)
        except TypeError:
            how = "is not encrypted" if password else "is encrypted"
            raise UsageError(f"{path} {how}", hint=f"{'Unset' if password else 'Set'} {PASSWORD}.") from None
        except ValueError:
            hint = f"Check {PASSWORD}." if password else _MAKE
            raise UsageError(f"{path} is not a private key in PEM, or its password is wrong", hint=hint) from None
        _check_kind(key.public_key(), path)
        return PrivateKey(key)

    def sign(self, data: bytes) -> bytes:
        """A signature of the data."""
        found: bytes = self._key.sign(data, *_scheme(self.public._key))
        return found


_MAKE = "Make one with: workbench artifact keygen FILE"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no key {path}", hint=_MAKE) from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}", hint="Mend its rights.") from None


def _scheme(key: Any) -> tuple[Any, ...]:
    ec = require("cryptography.hazmat.primitives.asymmetric.ec", extra="sign")
    hashes = require("cryptography.hazmat.primitives.hashes", extra="sign")
    return (ec.ECDSA(hashes.SHA256()),) if isinstance(key, ec.EllipticCurvePublicKey) else ()


def _check_kind(key: Any, path: Path) -> None:
    ec = require("cryptography.hazmat.primitives.asymmetric.ec", extra="sign")
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", extra="sign")
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not curve and not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} is neither an ECDSA key on P-256 nor an Ed25519 key", hint=_MAKE)
