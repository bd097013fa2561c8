"""`workbench artifact keygen` and `sign`: signatures by a key, or in a person's or CI system's own name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, Staging, TrustConfig, artifact_app
from workbench.errors import UsageError
from workbench.files import short
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.registry.artifact import Artifact
    from workbench.registry.keyless import SignedKeyless


@artifact_app.command("keygen")
def keygen(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; its public part to FILE.pub.")],
) -> None:
    """Make a key for signing, encrypted where WORKBENCH_KEY_PASSWORD is set."""
    from workbench.registry.keys import PrivateKey

    made = PrivateKey.new(file)
    typer.echo(f"{file} and {file}.pub, key {short(made.public.id)}")


@artifact_app.command("sign")
def sign(
    artifact: Reference,
    key: Annotated[Path | None, typer.Option(help="The private key.")] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign in your own name by Sigstore, whose public log then has it.")
    ] = False,
    identity_token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Who signs; else $SIGSTORE_ID_TOKEN, the CI system's identity, or the browser tells."
        ),
    ] = None,
    trust_config: TrustConfig = None,
    staging: Staging = False,
    as_json: Json = False,
) -> None:
    """Sign a version, and attest to where it comes from and what it consists of."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.keys import PrivateKey
    from workbench.registry.sign import sign_artifact

    if (key is None) != keyless or (key and (identity_token or trust_config or staging)):
        raise UsageError("sign with a key or without one", hint="Give --key FILE alone, or --keyless with its options.")
    layout = Layout.find()
    found = Artifact.open(layout, artifact)
    if key is not None:
        signed = sign_artifact(found, PrivateKey.read(key))
        told, by = asdict(signed), f"key {short(signed.key_id)}"
    else:
        in_name = _sign_keyless(layout, found, identity_token, trust_config, staging)
        told, by = asdict(in_name), f"{in_name.identity} ({in_name.issuer})"
    if as_json:
        print_json({"name": found.name, "version": found.version, "digest": found.digest, **told})
    else:
        typer.echo(f"{found.name}@{found.version} is signed by {by}")


def _sign_keyless(
    layout: Layout, artifact: Artifact, token: Path | None, trust_config: Path | None, staging: bool
) -> SignedKeyless:
    from workbench.registry.keyless import sign_keyless
    from workbench.registry.keyless_trust import identity_token, signing_trust

    trust = signing_trust(layout, file=trust_config, staging=staging)
    # What is damaged is said before anybody is asked to sign in.
    artifact.verify()
    return sign_keyless(artifact, trust, identity_token(trust, token))
