"""Bundle: an artifact as a folder that answers over HTTP without the workspace it comes from.

Nothing in it depends on the moment or the place: the same artifact, bundled twice by the same workbench, gives the same
bytes.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from workbench.errors import IntegrityError, ModelError, UsageError
from workbench.files import digest_file, digest_json, publish_folder, toml_value
from workbench.models.store import STARTER, ModelFolder, find_model
from workbench.pipeline.pipeline import Pipeline
from workbench.registry.artifact import Artifact
from workbench.registry.build import ENVIRONMENT, INDEX
from workbench.registry.oci import OciLayout, blobs_of
from workbench.retrieval.recipe import IndexRecipe
from workbench.serving.own_wheel import own_wheel
from workbench.serving.requirements import extras_of, is_remote, pins
from workbench.serving.served import ABOUT, ARTIFACT, MODELS, SETTINGS, SMOKE, BundleAbout, recorded_rows
from workbench.serving.server import KEY
from workbench.workspace import Settings

_ROWS = 10
_FILES = Path(__file__).parent / "files"
# Memory of a process with torch and no model, and of a model's answers beside its weights.
_BASE_GIB, _ANSWERS = 2, 1.3


@dataclass(frozen=True)
class Bundle:
    """A folder that was made.

    Attributes:
        digest: over the names and bytes of its files; equal bundles have equal ones.
        packages: how many packages `requirements.lock` names.
        rows: recorded rows in the smoke test.
    """

    folder: Path
    digest: str
    files: int
    size: int
    packages: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "digest": self.digest,
            "files": self.files,
            "bytes": self.size,
            "packages": self.packages,
            "rows": self.rows,
        }


def make_bundle(artifact: Artifact, settings: Settings, out: Path, *, with_model: bool = False) -> Bundle:
    """Write an artifact as a bundle into the new folder `out`.

    Args:
        settings: of the workspace; of these the servers that the pipeline asks and `[serve] content` travel along, never
            a key.
        with_model: put the model's weights into it, too.

    Raises:
        UsageError: `out` is there already, or the model can travel only with `with_model`.
        IntegrityError: the artifact is damaged.
        ModelError: the model that is to travel is not here, or is another than the artifact's.
        MissingExtraError: what the pipeline needs is not installed here.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", hint="Name a folder that is not, or remove it.")
    pipeline = artifact.pipeline()
    recipe = IndexRecipe.model_validate(json.loads(artifact.read(INDEX))["recipe"]) if pipeline.retrieval else None
    models = [pipeline.model, *([recipe.embedder] if recipe else [])]
    model = _model_here(pipeline, needed=with_model)
    if not with_model and not is_remote(pipeline.model) and _pull(pipeline.model) is None:
        raise UsageError(
            f"{pipeline.model} is a folder of this machine, which the other one cannot fetch",
            hint="Say --with-model to put it into the bundle.",
        )
    wheel, wheel_bytes = own_wheel()
    packages = pins(extras_of(pipeline, recipe), artifact.environment)
    rows = recorded_rows(artifact, _ROWS)
    about = BundleAbout(
        name=artifact.name,
        version=artifact.version,
        digest=artifact.digest,
        created_at=artifact.created_at,
        model=pipeline.model,
    )
    values = _values(artifact, pipeline, model, settings, with_model, rows)
    written: dict[str, bytes] = {
        ABOUT: (json.dumps(about.model_dump(), indent=2) + "\n").encode(),
        SETTINGS: _settings(settings, artifact.name, models).encode(),
        SMOKE: "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode(),
        "smoke.py": (_FILES / "smoke.py").read_bytes(),
        f"wheels/{wheel}": wheel_bytes,
        "requirements.lock": _lock(wheel, packages).encode(),
        **{name: text.encode() for name, text in _rendered(values).items()},
    }

    def fill(folder: Path) -> None:
        for name, data in written.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _copy_artifact(artifact, OciLayout(folder / ARTIFACT))
        if with_model and model is not None:
            shutil.copytree(model.path, folder / MODELS / model.path.name)

    if out.is_dir():
        out.rmdir()
    publish_folder(out, fill)
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    return Bundle(
        out,
        digest_json({name: digest_file(path) for name, path in files.items()}),
        len(files),
        sum(path.stat().st_size for path in files.values()),
        len(packages),
        len(rows),
    )


def _model_here(pipeline: Pipeline, *, needed: bool) -> ModelFolder | None:
    """The model's folder; None where it is a server's, or is not on this machine and need not be."""
    if is_remote(pipeline.model):
        return None
    try:
        found = find_model(pipeline.model)
    except ModelError:
        if needed:
            raise
        return None
    if found.digest != pipeline.model_digest:
        if not needed:
            return None
        raise ModelError(
            f"{pipeline.model} is {found.digest} here, and the artifact was evaluated with {pipeline.model_digest}",
            hint="Fetch the model that it was evaluated with.",
        )
    return found


def _pull(model: str) -> str | None:
    """What `workbench model pull` is told to fetch a model; None for one that only this machine has.

    Raises:
        ModelError: it is the hub's, and neither its name nor this machine says which revision.
    """
    if model == STARTER:
        return model
    if "/" not in model or model.startswith((".", "/", "~")):
        return None
    name, _, revision = model.partition("@")
    return f"{name} --revision {find_model(model).revision or revision}"


def _settings(settings: Settings, name: str, models: list[str]) -> str:
    """`workbench.toml` of the bundle: the servers that its models are on, and what may not be recorded."""
    lines = ["format_version = 1", f"name = {toml_value(name)}"]
    if not settings.serve.content:
        lines += ["", "[serve]", "content = false"]
    for prefix in sorted({model.partition(":")[0] for model in models if is_remote(model)}):
        if (server := settings.server(prefix)) is not None:
            lines += ["", f"[servers.{prefix}]"]
            lines += [f"{key} = {toml_value(value)}" for key, value in server.model_dump(exclude_none=True).items()]
    return "\n".join(lines) + "\n"


def _lock(wheel: str, packages: Mapping[str, str]) -> str:
    lines = [f"./wheels/{wheel}", *(f"{name}=={version}" for name, version in packages.items())]
    return "# Install from within this folder: pip install -r requirements.lock\n" + "\n".join(lines) + "\n"


def _values(
    artifact: Artifact,
    pipeline: Pipeline,
    model: ModelFolder | None,
    settings: Settings,
    with_model: bool,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the templates print."""
    source, decision = artifact.provenance, artifact.decision
    slug = re.sub(r"[^a-z0-9]+", "-", artifact.name).strip("-")[:50]
    server = settings.server(pipeline.model.partition(":")[0]) if is_remote(pipeline.model) else None
    keys = [server.key_env] if server is not None and server.key_env else []
    parts = [name for name, there in (("index", pipeline.retrieval), ("adapter", pipeline.adapter)) if there]
    weights = 0.0 if model is None else 2 * model.size / 2**30
    return {
        "label": f"{artifact.name}@{artifact.version}",
        "slug": slug,
        "version": artifact.version,
        "image": f"{slug}:{artifact.version}",
        "digest": artifact.digest,
        "decision": decision["sentence"] if decision else "Promoted without a comparison.",
        "run_id": source["run_id"],
        "dataset": source["dataset"]["name"],
        "also": "".join(f", its {part}" for part in parts) + (", its model" if with_model else ""),
        "python": _python(artifact),
        "pull": None if with_model or is_remote(pipeline.model) else _pull(pipeline.model),
        "keys": ", ".join(keys),
        "secrets": [KEY, *keys],
        "memory_gib": _BASE_GIB + math.ceil(weights * _ANSWERS),
        "memory_known": model is not None or is_remote(pipeline.model),
        "rows": len(rows),
        "example": json.dumps({"inputs": rows[0]["inputs"] if rows else {}}, ensure_ascii=False).replace("'", "’"),
    }


def _python(artifact: Artifact) -> str:
    """The release of Python that the evidence was made with, as `3.11`."""
    lines = artifact.read(ENVIRONMENT).decode().splitlines()
    version = next((line.removeprefix("# python ") for line in lines if line.startswith("# python ")), "3.11")
    return ".".join(version.split(".")[:2])


def _rendered(values: Mapping[str, Any]) -> dict[str, str]:
    """The files made from templates, by their names in the bundle."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FILES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    names = {"dockerignore": ".dockerignore", "service": f"systemd/{values['slug']}.service"}
    return {
        names.get(name.removesuffix(".j2"), name.removesuffix(".j2")): templates.get_template(name).render(values)
        for name in templates.list_templates(extensions=["j2"])
    }


def _copy_artifact(artifact: Artifact, target: OciLayout) -> None:
    """The artifact and what refers to it, such as signatures, as an OCI image layout of their own."""
    manifests = artifact.store.with_referrers(artifact.digest)
    for blob in blobs_of(json.loads(data) for data in manifests.values()).values():
        if target.put_blob(artifact.store.blob_path(blob.digest), blob.media_type).digest != blob.digest:
            raise IntegrityError(f"{blob.title or blob.digest} does not match its digest", hint="Verify the artifact.")
    for data in manifests.values():
        target.add_manifest_bytes(data)
    target.forget_lock()
