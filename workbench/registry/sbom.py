"""What an artifact consists of, as a CycloneDX bill of materials: distributions, model, data, adapter and index."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from workbench.errors import require
from workbench.registry import build
from workbench.registry.artifact import Artifact


def bill_of_materials(artifact: Artifact) -> dict[str, Any]:
    """CycloneDX 1.6 as JSON. The same artifact gives the same document, serial number and time included.

    Raises:
        IntegrityError: a layer that is read is damaged.
        MissingExtraError: cyclonedx-python-lib is not installed.
    """
    bom = require("cyclonedx.model.bom", extra="sign")
    model = require("cyclonedx.model", extra="sign")
    component = require("cyclonedx.model.component", extra="sign")
    output = require("cyclonedx.output.json", extra="sign")
    purl = require("packageurl", extra="sign")
    kind = component.ComponentType

    def part(type: Any, name: str, digest: str, **more: Any) -> Any:
        hashed = model.HashType(alg=model.HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))
        return component.Component(type=type, name=name, bom_ref=f"{type.value}:{name}", hashes=[hashed], **more)

    source = artifact.provenance
    data = source["dataset"]
    parts = [
        part(kind.MACHINE_LEARNING_MODEL, source["model"]["name"], source["model"]["digest"]),
        part(
            kind.DATA, data["name"], data["digest"], description=f"split {data['split'] or 'all'}, {data['rows']} rows"
        ),
    ]
    for title, what in ((build.ADAPTER_MANIFEST, "adapter"), (build.INDEX, "index")):
        if title in artifact.layers:
            named = json.loads(artifact.read(title))["name"]
            parts.append(part(kind.DATA, f"{what} {named}", artifact.layers[title].digest))
    for name, version in sorted(artifact.environment.items()):
        url = purl.PackageURL("pypi", name=name.lower().replace("_", "-"), version=version)
        library = component.Component(
            type=kind.LIBRARY, name=name, version=version, purl=url, bom_ref=f"pypi:{name}@{version}"
        )
        parts.append(library)
    whole = part(kind.APPLICATION, artifact.name, artifact.digest, version=artifact.digest)
    found = bom.Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, artifact.digest),
        metadata=bom.BomMetaData(component=whole, timestamp=datetime.fromisoformat(source["finished_at"])),
        components=parts,
    )
    found.register_dependency(whole, parts)
    document: dict[str, Any] = json.loads(output.JsonV1Dot6(found).output_as_string())
    return document
