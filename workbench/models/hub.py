"""Models from the Hugging Face hub, each at a pinned revision: weights, tokenizers and settings, never code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from workbench.errors import ModelError, UsageError, require
from workbench.models.starter import Progress
from workbench.models.store import (
    Kind,
    ModelFolder,
    find_model,
    folder_name,
    is_complete,
    model_lock,
    models_folder,
    publish,
)

# Neither pickled weights (.bin, .pt) nor Python files (remote code).
PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"]


def fetch_from_hub(identifier: str, revision: str | None, cache: Path, progress: Progress = print) -> ModelFolder:
    """Fetch `ORG/NAME` at the commit `revision` into `cache`, or return it where it lies there already.

    Raises:
        UsageError: the id is not `ORG/NAME`, or the revision is not a full commit.
        ModelError: the hub cannot be reached, has no such model or revision, or the model has no safetensors.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", identifier):
        raise UsageError(f"{identifier!r} is not a hub id", hint="It reads ORG/NAME.")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise UsageError(
            "a model from the hub needs a pinned revision",
            hint=f"Give the commit (40 digits): workbench model pull {identifier} --revision COMMIT",
        )
    require("huggingface_hub", extra="local")
    target = models_folder(cache) / folder_name(identifier, revision)
    with model_lock(target):
        if not is_complete(target):
            # Kept when interrupted: the hub's client takes up a download where it stopped.
            partial = target.parent / f".{target.name}.partial"
            partial.mkdir(parents=True, exist_ok=True)
            progress(f"Fetching {identifier} at {str(revision)[:12]} from the hub")
            _download(identifier, str(revision), partial)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            if not any(partial.glob("*.safetensors")):
                shutil.rmtree(partial)
                raise ModelError(
                    f"{identifier} has no safetensors at that revision",
                    hint="Pickled weights are never loaded; use a model that has safetensors.",
                )
            kind: Kind = "embed" if (partial / "modules.json").is_file() else "generate"
            publish(
                partial,
                target,
                name=identifier,
                source=f"hub:{identifier}",
                revision=revision,
                kind=kind,
                licence=_licence(partial / "README.md"),
            )
    return find_model(f"{identifier}@{revision}", cache)


def _download(identifier: str, revision: str, folder: Path) -> None:
    """In a process of its own: the hub's client reads the offline switch once, and in this one it may be on."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONSTARTUP")}
    command = [sys.executable, "-m", "workbench.models.hub", identifier, revision, str(folder)]
    result = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise ModelError(
            f"{identifier} could not be fetched: {lines[-1] if lines else f'code {result.returncode}'}",
            hint="Check the id, the revision and the network; a gated model needs HF_TOKEN.",
        )


def _licence(card: Path) -> str | None:
    """The licence that a model card's head names."""
    if not card.is_file():
        return None
    found = re.search(r"^license:\s*(\S+)\s*$", card.read_text("utf-8", errors="replace")[:4096], re.MULTILINE)
    return found[1] if found else None


def _main(identifier: str, revision: str, folder: str) -> int:
    import huggingface_hub

    try:
        huggingface_hub.snapshot_download(
            identifier, revision=revision, local_dir=folder, allow_patterns=PATTERNS, token=os.environ.get("HF_TOKEN")
        )
    except Exception as error:  # the parent process turns whatever it was into one sentence
        lines = str(error).strip().splitlines()
        print(f"{type(error).__name__}: {lines[0] if lines else ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:4]))
