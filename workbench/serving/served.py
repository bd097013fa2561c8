"""What a server answers with: a verified artifact, its pipeline and the engine of its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import IntegrityError, NotFoundError
from workbench.models.engine import Engine, Quantization
from workbench.models.engines import register_engine
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.retrieval import VARIABLE
from workbench.registry.artifact import Artifact
from workbench.registry.names import NamedVersion
from workbench.registry.oci import OciLayout
from workbench.validation import first_fault
from workbench.workspace import BlobsSettings, Layout, cache_folder, read_settings, use

ABOUT = "bundle.json"
ARTIFACT = "artifact"
MODELS = "models"
SETTINGS = "workbench.toml"
SMOKE = "smoke.jsonl"


class BundleAbout(BaseModel):
    """`bundle.json`: which artifact a bundle holds. The artifact's own digest covers the rest of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = 1
    name: str
    version: int
    digest: str
    created_at: str
    model: str


@dataclass(frozen=True)
class Served:
    """An artifact that is ready to answer.

    Attributes:
        label: `NAME@VERSION`.
        variables: the inputs that a question must have, sorted.
    """

    artifact: Artifact
    pipeline: Pipeline
    engine: Engine

    @property
    def label(self) -> str:
        return f"{self.artifact.name}@{self.artifact.version}"

    @property
    def variables(self) -> tuple[str, ...]:
        needed = set(self.pipeline.prompt.variables)
        if self.pipeline.retrieval is not None:
            needed = needed - {VARIABLE} | {self.pipeline.retrieval.query}
        return tuple(sorted(needed))

    @property
    def in_process(self) -> bool:
        """Whether the model runs in this process, which answers one batch at a time."""
        return self.engine.info.provider == "transformers"

    def missing(self, inputs: Mapping[str, Any]) -> str | None:
        """What is wrong with the inputs of a question, in words; None where nothing is."""
        if absent := [name for name in self.variables if name not in inputs]:
            return f"the inputs lack {', '.join(absent)}"
        if unknown := sorted(set(inputs) - set(self.variables)):
            return f"the prompt has no variable {', '.join(unknown)}; it has {', '.join(self.variables)}"
        return None


def serve_artifact(artifact: Artifact, layout: Layout) -> Served:
    """Verify an artifact, put its index and adapter in place, and load its model.

    Raises:
        IntegrityError: a byte of it has changed.
        PipelineError: another model is here than it was evaluated with, or another workbench wrote it.
        ModelError: its model is not here; the hint says how to fetch it.
    """
    pipeline = artifact.pipeline()
    engine = pipeline.engine(layout.settings)
    pipeline.check_engine(engine)
    return Served(artifact, pipeline, engine)


def asked_alias(reference: str) -> str | None:
    """The alias in `NAME@ALIAS`; None where a version or the newest one is meant."""
    selector = reference.partition("@")[2]
    return None if selector.startswith("sha256:") or selector.isdecimal() else selector or None


def is_bundle(path: Path) -> bool:
    """Whether a folder is one that `workbench artifact bundle` made."""
    return (path / ABOUT).is_file()


def open_bundle(folder: Path, work: Path | None = None) -> tuple[Artifact, Layout]:
    """The artifact of a bundle. No state store is opened and nothing is written into the folder.

    Args:
        work: where an index and an adapter are unpacked; by default a folder in the cache.

    Raises:
        NotFoundError: the folder is no bundle.
        IntegrityError: `bundle.json` is malformed; the artifact itself is verified when it is used.
    """
    path = folder / ABOUT
    try:
        about = BundleAbout.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(
            f"{folder} is no bundle", hint="Make one with: workbench artifact bundle NAME@ALIAS --out DIR"
        ) from None
    except ValidationError as error:
        raise IntegrityError(
            f"{path} is malformed: {first_fault(error, 'the file')}", hint="Make the bundle again."
        ) from None
    settings = read_settings(folder / SETTINGS).model_copy(
        update={"blobs": BlobsSettings(path=str((folder / ARTIFACT).resolve()))}
    )
    root = work or cache_folder() / "bundles" / about.digest.removeprefix("sha256:")[:16]
    layout = Layout(root.resolve(), settings)
    use(layout)
    for model in sorted((folder / MODELS).glob("*")):
        register_engine(about.model, partial(_of_folder, model.resolve()))
    found = NamedVersion(about.name, about.version, about.digest, (), about.created_at, "", "", None)
    return Artifact(OciLayout(layout.blobs), found, layout), layout


def _of_folder(model: Path, name: str, quantization: Quantization) -> Engine:
    """The engine of a model that came with its bundle."""
    from workbench.models.transformers_engine import TransformersEngine

    return TransformersEngine.load(str(model), quantization=quantization)


def recorded_rows(artifact: Artifact, count: int) -> list[dict[str, Any]]:
    """Calls of the promoted variant that were answered, as `{row_id, seed_key, inputs, value}`; at most `count`.

    They are spread over the rows by the digests of their ids, the same ones every time.

    Raises:
        IntegrityError: the evidence is damaged.
    """
    import polars as pl

    from workbench.files import digest_json

    variant = artifact.provenance["variant"]
    calls = artifact.evidence().calls.filter(
        (pl.col("variant") == variant) & (pl.col("repeat") == 0) & pl.col("error_kind").is_null()
    )
    rows = calls.select("row_id", "input", "result").rows()
    chosen = sorted(rows, key=lambda row: digest_json(row[0]))[:count]
    return [
        {
            "row_id": row_id,
            "seed_key": f"{row_id}:0",
            "inputs": json.loads(inputs),
            "value": json.loads(result),
        }
        for row_id, inputs, result in sorted(chosen)
    ]
