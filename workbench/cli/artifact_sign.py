"""`workbench artifact keygen`, `sign` and `verify`: signatures by a key, or in a person's or CI system's own name.

And what is attested to with a signature, by itself: `provenance` and `sbom`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, artifact_app
from workbench.cli.tables import print_table
from workbench.errors import IntegrityError, UsageError
from workbench.files import short
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.registry.artifact import Artifact, BlobCheck
    from workbench.registry.keyless import SignedKeyless

TrustConfig = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A Sigstore of your own; that of workbench.toml by default.")
]
Staging = Annotated[bool, typer.Option("--staging", help="Sigstore's public instance for trying things out.")]
JsonAnyway = Annotated[bool, typer.Option("--json", help="What it prints is JSON, with or without this.")]


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


@artifact_app.command("verify")
def verify(
    artifact: Reference,
    key: Annotated[Path | None, typer.Option(help="A public key that must have signed it.")] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who must have signed it keyless: an address or a workflow's URI.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(metavar="URL", help="The provider that says who WHO is.")] = None,
    trust_config: TrustConfig = None,
    staging: Staging = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="With Sigstore's trust root as it is kept here; nothing is fetched.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hash the manifest and every layer again, and look for signatures. Exits with 1 and names what is wrong."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.keyless import signatures_on

    if (identity is None) != (issuer is None):
        raise UsageError("--identity and --issuer go together", hint="Who signed means little without who says so.")
    if identity is None and (trust_config or staging or offline):
        raise UsageError("whose signature?", hint="Give --identity WHO --issuer URL too.")
    layout = Layout.find()
    found = Artifact.open(layout, artifact)
    checks = found.check()
    asked = _signatures_asked(layout, found, checks, key, identity, issuer, (trust_config, staging, offline))
    if as_json:
        layers = [{"title": c.title, "digest": c.digest, "size": c.size, "ok": c.ok, "error": c.error} for c in checks]
        sound, signed, reason = all(check.ok for check in checks), None, None
        if asked:
            try:
                for look, _ in asked:
                    look()
                signed = True
            except IntegrityError as error:
                sound = signed = False
                reason = error.message
        about = {"name": found.name, "version": found.version, "digest": found.digest}
        there = signatures_on(found).to_json()
        print_json({**about, "ok": sound, "signed": signed, "reason": reason, "signatures": there, "layers": layers})
        if not sound:
            raise typer.Exit(1)
        return
    print_table(("layer", "digest", ""), [(c.title, short(c.digest), "ok" if c.ok else "DAMAGED") for c in checks])
    found.verify(checks)
    for look, by in asked:
        look()
        typer.echo(f"{found.name}@{found.version} is signed by {by}")
    typer.echo(f"{found.name}@{found.version} is whole: {found.digest}")


def _signatures_asked(
    layout: Layout,
    artifact: Artifact,
    checks: tuple[BlobCheck, ...],
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    trust: tuple[Path | None, bool, bool],
) -> list[tuple[Callable[[], None], str]]:
    """What makes sure of each signature that was asked for, and whose it is."""
    from workbench.registry.keyless import verify_keyless
    from workbench.registry.keyless_trust import trusted_root
    from workbench.registry.keys import PublicKey
    from workbench.registry.policy import Identity
    from workbench.registry.sign import verify_signature

    file, staging, offline = trust
    asked: list[tuple[Callable[[], None], str]] = []
    if key is not None:
        asked.append((partial(verify_signature, artifact, PublicKey.read(key), checks), str(key)))
    if identity and issuer:
        who = Identity(identity=identity, issuer=issuer)
        root = partial(trusted_root, layout, file=file, staging=staging, offline=offline)
        asked.append((partial(verify_keyless, artifact, who, root, checks), str(who)))
    return asked


@artifact_app.command("sbom")
def sbom(artifact: Reference, as_json: JsonAnyway = False) -> None:
    """Print what an artifact consists of, as CycloneDX JSON."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.sbom import bill_of_materials

    print_json(bill_of_materials(Artifact.open(Layout.find(), artifact)))


@artifact_app.command("provenance")
def provenance(artifact: Reference, as_json: JsonAnyway = False) -> None:
    """Print where an artifact comes from, as an in-toto statement with SLSA provenance."""
    from workbench.registry.artifact import Artifact
    from workbench.registry.attest import provenance_statement

    print_json(provenance_statement(Artifact.open(Layout.find(), artifact)))
