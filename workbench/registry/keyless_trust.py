"""Whom keyless signatures are trusted from, and who is signing: Sigstore's trust root, and an OpenID Connect token."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import DataError, NotFoundError, UsageError, WorkbenchError, require
from workbench.workspace import Layout

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot
    from sigstore.oidc import IdentityToken

# The environment variable that holds an identity token; GitLab and cosign call it so.
TOKEN = "SIGSTORE_ID_TOKEN"

_OFFLINE = (
    "Without a network: name a trust root in [sigstore] of workbench.toml or with --trust-config FILE, take the one kept "
    "here with --offline, or go by a key: --key FILE."
)
_LENGTH = 200


def signing_trust(layout: Layout, *, file: Path | None = None, staging: bool = False) -> ClientTrustConfig:
    """The Sigstore to sign with: of the file, else the staging one, else the workspace's, else the public one.

    Raises:
        MissingExtraError: sigstore is not installed.
        NotFoundError: no such file.
        DataError: the file is no client trust config.
        UsageError: a file and the staging one.
        WorkbenchError: the trust root cannot be fetched.
    """
    found = _trust(layout, file, staging, offline=False)
    from sigstore.models import TrustedRoot

    if isinstance(found, TrustedRoot):
        raise DataError(
            "the file holds a trusted root only", hint="Signing takes a client trust config, with the servers."
        )
    return found


def trusted_root(
    layout: Layout, *, file: Path | None = None, staging: bool = False, offline: bool = False
) -> TrustedRoot:
    """What signatures are verified against: as in `signing_trust`, and a file may be a trusted root too.

    Args:
        offline: take the root that is kept on this machine, or came with sigstore, and fetch nothing.

    Raises:
        MissingExtraError: sigstore is not installed.
        NotFoundError: no such file.
        DataError: the file is neither a client trust config nor a trusted root.
        UsageError: a file and the staging one.
        WorkbenchError: the trust root cannot be fetched.
    """
    found = _trust(layout, file, staging, offline)
    from sigstore.models import TrustedRoot

    return found if isinstance(found, TrustedRoot) else found.trusted_root


def identity_token(trust: ClientTrustConfig, file: Path | None = None) -> IdentityToken:
    """Who is signing: the token in the file, else in `SIGSTORE_ID_TOKEN`, else the CI system's, else the browser's sign-in.

    Raises:
        NotFoundError: no such file.
        UsageError: there is no token and no terminal to sign in at, or it is not one for Sigstore.
        WorkbenchError: the provider cannot be reached, or refuses.
    """
    from sigstore.oidc import IdentityError, IdentityToken, Issuer, detect_credential

    try:
        raw = _given(file)
        if raw is None:
            raw = detect_credential()
        if raw is not None:
            return IdentityToken(raw)
    except IdentityError as error:
        hint = "It takes a fresh token with the audience sigstore; on GitHub: permissions: id-token: write."
        raise UsageError(f"no identity for Sigstore: {reason(error)}", hint=hint) from None
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no identity to sign with",
            hint=f"Set {TOKEN}, give --identity-token FILE, or sign with --key FILE.",
        )
    try:
        return Issuer(trust.signing_config.get_oidc_url()).identity_token()
    except Exception as error:  # from requests, the browser's answer or the token: no identity either way
        raise WorkbenchError(f"signing in failed: {reason(error)}", hint=f"Try again, or set {TOKEN}.") from None


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    told: BaseException | None = error
    while told is not None:
        if text := " ".join(str(told).split()):
            # What urllib3 appends is the same once more, with addresses of Python objects.
            return text.split(" (Caused by ")[0][:_LENGTH]
        told = told.__cause__ or told.__context__
    return type(error).__name__


def _given(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    return _read(file).strip()


def _trust(layout: Layout, file: Path | None, staging: bool, offline: bool) -> ClientTrustConfig | TrustedRoot:
    require("sigstore", extra="keyless")
    from sigstore.models import ClientTrustConfig

    if file is not None and staging:
        raise UsageError("which Sigstore?", hint="Give --trust-config or --staging.")
    kept = layout.settings.sigstore.trust_config
    if file is None and kept and not staging:
        file = layout.root / kept
    if file is not None:
        return _from_file(file)
    try:
        return ClientTrustConfig.staging(offline) if staging else ClientTrustConfig.production(offline)
    except Exception as error:  # of TUF, the network or the disk: there is nothing to trust
        why = reason(error.__cause__ or error)
        raise WorkbenchError(f"Sigstore's trust root cannot be fetched: {why}", hint=_OFFLINE) from None


def _from_file(path: Path) -> ClientTrustConfig | TrustedRoot:
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig, TrustedRoot

    raw = _read(path)
    try:
        data = json.loads(raw)
        if isinstance(data, dict) and "trustedroot" in str(data.get("mediaType")):
            return TrustedRoot.from_file(str(path))
        return ClientTrustConfig.from_json(raw)
    except (ValueError, Error):
        hint = "Ask for the file who runs that Sigstore."
        raise DataError(
            "neither a client trust config of Sigstore nor a trusted root", path=str(path), hint=hint
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="Name one that is there.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {reason(error)}", path=str(path), hint="Name another file.") from None
