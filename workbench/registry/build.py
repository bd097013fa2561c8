"""From a variant of a run to an artifact: what it consists of, what each layer is, and its manifest.

Nothing here reads a clock, a path or the present environment: the same run and the same verdict give the same digest.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import IntegrityError, NotFoundError
from workbench.experiments import notebook_source
from workbench.files import canonical_json
from workbench.models import adapters, peft_files
from workbench.pipeline.pipeline import Pipeline
from workbench.registry.oci import MANIFEST_TYPE, TITLE, Descriptor, OciLayout

if TYPE_CHECKING:
    from workbench.experiments.records import RunManifest
    from workbench.experiments.run import Run
    from workbench.workspace import Layout

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
VENDOR = "application/vnd.llmops-workbench"

PIPELINE = "pipeline.json"
PROMPT = "prompt.json"
POSTPROCESS = "postprocess/"
INDEX = "index/manifest.json"
CHUNKS = "index/chunks.parquet"
ADAPTER = "adapter/"
ADAPTER_MANIFEST = f"{ADAPTER}{adapters.MANIFEST}"
# What lies in folders of its own is put into the workspace when the pipeline is taken out.
PARTS = ("index/", ADAPTER)
RUN = "evidence/run.json"
CALLS = "evidence/calls.parquet"
SCORES = "evidence/scores.parquet"
COMPARISON = "evidence/comparison.json"
DECISION = "evidence/decision.json"
GATE = "evidence/gate.json"
ENVIRONMENT = "environment.lock"
PROVENANCE = "provenance.json"
NOTEBOOK = notebook_source.RECORD
NOTEBOOK_SOURCES = tuple(dict.fromkeys(notebook_source.SOURCES.values()))

_MEDIA_TYPES = {
    PIPELINE: f"{VENDOR}.pipeline.v1+json",
    PROMPT: f"{VENDOR}.prompt.v1+json",
    INDEX: f"{VENDOR}.index.v1+json",
    CHUNKS: f"{VENDOR}.chunks.v1+parquet",
    ADAPTER_MANIFEST: f"{VENDOR}.adapter.v1+json",
    f"{ADAPTER}{peft_files.CONFIG}": f"{VENDOR}.adapter-config.v1+json",
    f"{ADAPTER}{peft_files.WEIGHTS}": f"{VENDOR}.adapter-weights.v1+safetensors",
    RUN: f"{VENDOR}.run.v1+json",
    CALLS: f"{VENDOR}.calls.v1+parquet",
    SCORES: f"{VENDOR}.scores.v1+parquet",
    COMPARISON: f"{VENDOR}.comparison.v1+json",
    DECISION: f"{VENDOR}.decision.v1+json",
    GATE: f"{VENDOR}.gate.v1+json",
    ENVIRONMENT: "text/plain",
    PROVENANCE: f"{VENDOR}.provenance.v1+json",
    NOTEBOOK: f"{VENDOR}.notebook.v1+json",
    notebook_source.SOURCES["marimo"]: "text/x-python",
    notebook_source.SOURCES["jupyter"]: "application/x-ipynb+json",
    notebook_source.SOURCES["experiment"]: "application/yaml",
}
_ROW_ORDER = ("variant", "row_id", "repeat")


def build(
    store: OciLayout,
    run: Run,
    variant: str,
    *,
    baseline: str | None,
    comparison: dict[str, Any] | None,
    decision: dict[str, Any] | None,
    gate: dict[str, Any],
    parts: Mapping[str, bytes] | None = None,
) -> str:
    """Store `variant` of `run` with its evidence, and return the manifest's digest.

    `comparison` and `decision` are None where the run has a single variant; `parts` is what `part_files` gives.

    Raises:
        NotFoundError: the run has no such variant.
        IntegrityError: the run's manifest does not agree with itself, or the notebook kept with it is damaged.
    """
    manifest = run.manifest
    evaluated = evaluated_pipeline(manifest, variant)
    pipeline = evaluated.with_(model_digest=evaluated.model_digest or manifest.models[variant]["digest"])
    skeleton, texts = pipeline.split()
    files = {PIPELINE: canonical_json(skeleton), **texts, **(parts or {})}
    files[RUN] = canonical_json(manifest.model_dump(mode="json"))
    files[CALLS] = parquet(run.calls(), _ROW_ORDER)
    files[SCORES] = parquet(run.scores(), (*_ROW_ORDER, "scorer"))
    if comparison is not None:
        files[COMPARISON] = canonical_json(comparison)
    if decision is not None:
        files[DECISION] = canonical_json(decision)
    files[GATE] = canonical_json(gate)
    files[ENVIRONMENT] = environment_lock(manifest.environment)
    files[PROVENANCE] = canonical_json(provenance(manifest, variant, baseline, pipeline.digest))
    notebook = run.notebook()
    if notebook is not None:
        files |= notebook.files()

    layers = [
        store.put_blob(data, _media_type(title), annotations={TITLE: title}) for title, data in sorted(files.items())
    ]
    config = store.put_blob(canonical_json(_config(manifest, variant, layers)), CONFIG_TYPE)
    return store.add_manifest(_manifest(manifest, variant, config, layers)).digest


def part_files(layout: Layout, pipeline: Pipeline) -> dict[str, bytes]:
    """The layers of what a pipeline names by digest and the workspace holds: its index and its adapter, where it has them.

    Raises:
        NotFoundError, IntegrityError: one is not here, or is not what was made.
    """
    files: dict[str, bytes] = {}
    if pipeline.retrieval is not None:
        files |= zip((INDEX, CHUNKS), pipeline.retrieval.open(layout).files(), strict=True)
    if pipeline.adapter is not None:
        found = adapters.find_adapter(layout, pipeline.adapter).files()
        files |= {f"{ADAPTER}{name}": data for name, data in found.items()}
    return files


def publish_parts(layout: Layout, pipeline: Pipeline, files: Mapping[str, bytes]) -> None:
    """Put the parts of `part_files` where the pipeline looks for them; the inverse of it.

    What can be computed from an index is built on the first search.

    Raises:
        IntegrityError: a part is missing, damaged, or another than the pipeline names.
    """
    if pipeline.retrieval is not None:
        from workbench.retrieval.index import unpack

        index = unpack(layout, *(_part(files, title) for title in (INDEX, CHUNKS)))
        _check_part("index", index.digest, pipeline.retrieval.index)
    if pipeline.adapter is not None:
        names = (adapters.MANIFEST, peft_files.CONFIG, peft_files.WEIGHTS)
        adapter = adapters.unpack_adapter(layout, {name: _part(files, f"{ADAPTER}{name}") for name in names})
        _check_part("adapter", adapter.digest, pipeline.adapter)


def _part(files: Mapping[str, bytes], title: str) -> bytes:
    if title not in files:
        raise IntegrityError(f"the artifact has no {title}", hint="Promote the run again.")
    return files[title]


def _check_part(what: str, digest: str, wanted: str) -> None:
    if digest != wanted:
        raise IntegrityError(f"the artifact holds another {what} than its pipeline names", hint="Promote it again.")


def evaluated_pipeline(manifest: RunManifest, variant: str) -> Pipeline:
    """The pipeline that a run evaluated as `variant`.

    Raises:
        NotFoundError: the run has no such variant.
        IntegrityError: its digest is not the one the run recorded.
    """
    if variant not in manifest.variants:
        raise NotFoundError(
            f"run {manifest.run_id} has no variant {variant!r}", hint=f"It has: {', '.join(manifest.variants)}."
        )
    pipeline = Pipeline.model_validate(manifest.variants[variant])
    if pipeline.digest != manifest.pipeline_digests[variant]:
        raise IntegrityError(
            f"run {manifest.run_id}: the pipeline of {variant!r} does not match its digest",
            hint="Run the experiment again.",
        )
    return pipeline


def parquet(rows: pl.DataFrame, order: tuple[str, ...]) -> bytes:
    """Rows as Parquet, sorted and with fixed settings, so that equal rows give equal bytes."""
    buffer = io.BytesIO()
    rows.sort(order).write_parquet(
        buffer, compression="zstd", compression_level=3, statistics=True, row_group_size=65_536
    )
    return buffer.getvalue()


def environment_lock(environment: Mapping[str, str]) -> bytes:
    """The distributions a run was made with, a `name==version` a line, under comments that name Python and platform."""
    about = {name: environment[name] for name in ("python", "platform") if name in environment}
    pins = sorted(f"{name}=={version}" for name, version in environment.items() if name not in about)
    return "".join(f"{line}\n" for line in [*(f"# {key} {value}" for key, value in about.items()), *pins]).encode()


def provenance(manifest: RunManifest, variant: str, baseline: str | None, stored_digest: str) -> dict[str, Any]:
    """Where the artifact comes from.

    `pipeline_digest` is the pipeline as the run evaluated it; `stored_pipeline_digest` is the same pipeline held to the
    model's digest, as the artifact carries it.
    """
    return {
        "format_version": 1,
        "run_id": manifest.run_id,
        "experiment": manifest.experiment,
        "experiment_digest": manifest.experiment_digest,
        "variant": variant,
        "baseline": baseline,
        "pipeline_digest": manifest.pipeline_digests[variant],
        "stored_pipeline_digest": stored_digest,
        "model": dict(manifest.models[variant]),
        "dataset": {
            "name": manifest.dataset,
            "digest": manifest.dataset_digest,
            "split": manifest.split,
            "rows": manifest.rows,
            "repeats": manifest.repeats,
        },
        "scorers": list(manifest.scorers),
        "primary": manifest.primary,
        "notebook": manifest.notebook,
        "notebook_digest": manifest.notebook_digest,
        "git_commit": manifest.git_commit,
        "git_dirty": manifest.git_dirty,
        "command": list(manifest.command),
        "started_at": manifest.started_at,
        "finished_at": manifest.finished_at,
    }


def _media_type(title: str) -> str:
    return "text/x-python" if title.startswith(POSTPROCESS) else _MEDIA_TYPES[title]


def _config(manifest: RunManifest, variant: str, layers: list[Descriptor]) -> dict[str, Any]:
    """The model configuration of the ModelPack specification (modelpack/model-spec, docs/config.md)."""
    model = manifest.models[variant]
    descriptor = {
        "createdAt": manifest.started_at,
        "name": model["name"],
        "title": f"{manifest.experiment}: {variant}",
        "description": f"Variant {variant} of run {manifest.run_id}, evaluated on {manifest.dataset}.",
    }
    if manifest.git_commit:
        descriptor["revision"] = manifest.git_commit
    return {
        "descriptor": descriptor,
        "config": {
            "precision": model["dtype"],
            "quantization": model["quantization"],
            "capabilities": {"inputTypes": ["text"], "outputTypes": ["text"]},
        },
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }


def _manifest(manifest: RunManifest, variant: str, config: Descriptor, layers: list[Descriptor]) -> dict[str, Any]:
    annotations = {
        "org.opencontainers.image.created": manifest.started_at,
        "org.opencontainers.image.title": f"{manifest.experiment}: {variant}",
    }
    if manifest.git_commit:
        annotations["org.opencontainers.image.revision"] = manifest.git_commit
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
        "annotations": annotations,
    }
