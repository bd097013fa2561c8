"""Adapters on disk: LoRA weights in folders that are named by their content, each with what it was trained on and by."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.errors import IntegrityError, ModelError, NotFoundError
from workbench.files import atomic_file, digest_bytes, digest_file, digest_json, publish_folder, short, write_atomic
from workbench.models.engine import Quantization
from workbench.models.peft_files import CONFIG, SAVED_BY_PEFT, WEIGHTS, count_modules, read_config, target_names
from workbench.validation import first_fault
from workbench.workspace import Layout

MANIFEST = "manifest.json"
DIGEST = re.compile("sha256:[0-9a-f]{64}")


class AdapterManifest(BaseModel):
    """What an adapter is. There is no clock and no path in it: the same training gives the same digest.

    Attributes:
        base, base_digest: the model it was trained on, and the only one it works with.
        recipe_digest: of the recipe that was trained.
        quantization: of the base while it was trained on.
        rank, alpha: of LoRA; the update is scaled by alpha / rank.
        target_modules: names of the modules that are adapted, sorted.
        modules: how many modules of the base have an update.
        metrics: what training measured, by name.
        files: digest of each file, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))
    format_version: Literal[1] = 1
    name: str = Field(min_length=1)
    base: str
    base_digest: str
    recipe_digest: str
    quantization: Quantization
    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    target_modules: tuple[str, ...]
    modules: int = Field(ge=1)
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, str]) -> dict[str, str]:
        if set(files) != {CONFIG, WEIGHTS}:
            raise ValueError(f"an adapter has {CONFIG} and {WEIGHTS}")
        return files

    @cached_property
    def digest(self) -> str:
        """What the adapter is known by."""
        return digest_json(self.model_dump(mode="json"))


@dataclass(frozen=True)
class AdapterFolder:
    """A published adapter."""

    path: Path
    manifest: AdapterManifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum((self.path / name).stat().st_size for name in self.manifest.files)

    def files(self) -> dict[str, bytes]:
        """Its files by name, the manifest included, from which `unpack_adapter` makes it elsewhere.

        Raises:
            IntegrityError: one is missing or changed; names it.
        """
        files = {MANIFEST: (self.path / MANIFEST).read_bytes()}
        if _parse_manifest(files[MANIFEST], str(self.path / MANIFEST)) != self.manifest:
            raise _changed(self.path / MANIFEST)
        for name, digest in self.manifest.files.items():
            files[name] = (self.path / name).read_bytes() if (self.path / name).is_file() else b""
            if digest_bytes(files[name]) != digest:
                raise _changed(self.path / name)
        return files

    def __str__(self) -> str:
        return f"adapter {self.manifest.name} {short(self.digest)}"


def publish_adapter(
    layout: Layout,
    source: Path,
    *,
    name: str,
    base: str,
    base_digest: str,
    recipe_digest: str,
    quantization: Quantization,
    metrics: Mapping[str, float],
) -> AdapterFolder:
    """Put a trained adapter in its place, complete or not at all; the same one twice is one, then the newest of its name.

    Rank, alpha, modules and digests are read off the files, so that they cannot disagree with them.

    Args:
        source: a folder with `adapter_config.json` and `adapter_model.safetensors`, as peft saves them.
        name: what people call it; several adapters may share it.
        metrics: finite numbers.

    Raises:
        ModelError: a file is missing or malformed, or the adapter is of a kind that cannot be switched off again.
        IntegrityError: this adapter is here already, and damaged.
    """
    config = read_config(source / CONFIG, base)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    try:
        manifest = AdapterManifest(
            name=name,
            base=base,
            base_digest=base_digest,
            recipe_digest=recipe_digest,
            quantization=quantization,
            rank=config.get("r"),
            alpha=config.get("lora_alpha"),
            target_modules=target_names(config.get("target_modules")),
            modules=count_modules(source / WEIGHTS),
            metrics=dict(metrics),
            files={CONFIG: digest_bytes(text.encode()), WEIGHTS: digest_file(source / WEIGHTS)},
        )
    except ValidationError as error:
        raise ModelError(f"{source} is no adapter: {first_fault(error)}", hint=SAVED_BY_PEFT) from None

    def fill(folder: Path) -> None:
        write_atomic(folder / CONFIG, text)
        with (source / WEIGHTS).open("rb") as weights, atomic_file(folder / WEIGHTS) as copy:
            shutil.copyfileobj(weights, copy, 1 << 20)
        write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    return _place(layout, manifest, fill)


def unpack_adapter(layout: Layout, files: Mapping[str, bytes]) -> AdapterFolder:
    """Publish an adapter that comes from elsewhere, such as an artifact: the inverse of `AdapterFolder.files`.

    Raises:
        IntegrityError: the bytes are not those that its manifest names.
    """
    manifest = _parse_manifest(files[MANIFEST], MANIFEST)

    def fill(folder: Path) -> None:
        for name in (*manifest.files, MANIFEST):
            write_atomic(folder / name, files[name])

    for name, digest in manifest.files.items():
        if name not in files or digest_bytes(files[name]) != digest:
            raise IntegrityError(f"{name} is not the one that the adapter names", hint="Verify the artifact.")
    return _place(layout, manifest, fill)


def find_adapter(layout: Layout, name: str) -> AdapterFolder:
    """An adapter by its name (the newest), its digest, or a unique beginning of it of at least 6 digits; not verified.

    Raises:
        NotFoundError: none or several fit.
        IntegrityError: a manifest is damaged.
    """
    if DIGEST.fullmatch(name):
        folder = layout.adapters / name.removeprefix("sha256:")
        if (folder / MANIFEST).is_file():
            return _open(folder)
    adapters = list_adapters(layout)
    for adapter in adapters:
        if adapter.manifest.name == name:
            return adapter
    wanted = name.removeprefix("sha256:")
    found = [adapter for adapter in adapters if len(wanted) >= 6 and adapter.path.name.startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} adapters begin with {name!r}" if found else f"no adapter {name!r}"
        raise NotFoundError(what, hint="List them with: workbench finetune ls")
    return found[0]


def list_adapters(layout: Layout) -> list[AdapterFolder]:
    """Every adapter that is published, the newest first.

    Raises:
        IntegrityError: a manifest is damaged; names the file.
    """
    folders = layout.adapters.iterdir() if layout.adapters.is_dir() else []
    found = [folder for folder in folders if not folder.name.startswith(".") and (folder / MANIFEST).is_file()]
    found.sort(key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, folder.name), reverse=True)
    return [_open(folder) for folder in found]


def verify_adapter(adapter: AdapterFolder) -> None:
    """Hash every file again.

    Raises:
        IntegrityError: one is missing or changed; names it.
    """
    _open(adapter.path)
    for name, digest in adapter.manifest.files.items():
        path = adapter.path / name
        if not path.is_file() or digest_file(path) != digest:
            raise _changed(path)


def _place(layout: Layout, manifest: AdapterManifest, fill: Callable[[Path], None]) -> AdapterFolder:
    path = layout.adapters / manifest.digest.removeprefix("sha256:")
    if not path.exists():
        publish_folder(path, fill)
    adapter = AdapterFolder(path, manifest)
    verify_adapter(adapter)
    # What was published last is the newest of its name, though it may have been here before.
    os.utime(path / MANIFEST)
    return adapter


def _open(path: Path) -> AdapterFolder:
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError:
        raise _changed(path / MANIFEST) from None
    manifest = _parse_manifest(data, str(path / MANIFEST))
    if manifest.digest != f"sha256:{path.name}":
        raise _changed(path / MANIFEST)
    return AdapterFolder(path, manifest)


def _parse_manifest(data: bytes, where: str) -> AdapterManifest:
    try:
        return AdapterManifest.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{where}: {first_fault(error)}", hint="Train or unpack the adapter again.") from None


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} is {'not what was published' if path.is_file() else 'missing'}",
        hint=f"Delete the folder {path.parent}, and train the adapter again or load it from its artifact.",
    )
