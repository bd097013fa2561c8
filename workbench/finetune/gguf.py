"""GGUF: llama.cpp's file of a model, written by its own converter and read back by transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from workbench.errors import ModelError, RunError, require
from workbench.files import digest_file
from workbench.finetune.formats import GgufType
from workbench.finetune.quiet import quiet
from workbench.finetune.staging import says_full
from workbench.models.engine import ModelInfo
from workbench.models.store import ModelFolder
from workbench.models.transformers_engine import TransformersEngine

# Bytes of a weight: blocks of 32 with a scale of two bytes, in the quantized type.
BYTES: dict[str, float] = {"f16": 2, "bf16": 2, "q8_0": 34 / 32}
SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "LLAMA_CPP"
_COMMANDS = (SCRIPT, "convert-hf-to-gguf", "llama-convert-hf-to-gguf")
_MODULE = "convert_hf_to_gguf"
_GET = (
    "Get it: git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install sentencepiece; "
    f"then set {VARIABLE} to that folder."
)


def find_converter() -> list[str]:
    """How to call llama.cpp's converter: that of the folder in `LLAMA_CPP`, else on the path, else a Python module.

    Raises:
        ModelError: there is none; says how to get it.
    """
    given = os.environ.get(VARIABLE)
    if given:
        path = Path(given).expanduser()
        script = path / SCRIPT if path.is_dir() else path
        if not script.is_file():
            raise ModelError(f"{VARIABLE} is {given}, where there is no {SCRIPT}", hint="Set it to llama.cpp's folder.")
        return [sys.executable, str(script)]
    for command in _COMMANDS:
        if found := shutil.which(command):
            # A script needs torch and transformers, which this Python has.
            return [sys.executable, found] if found.endswith(".py") else [found]
    if importlib.util.find_spec(_MODULE) is not None:
        return [sys.executable, "-m", _MODULE]
    raise ModelError(f"llama.cpp's converter ({SCRIPT}) is not on this machine", hint=_GET)


def convert(converter: list[str], model: ModelFolder, file: Path, kind: GgufType) -> None:
    """Let the converter write `model` to `file`.

    Raises:
        ModelError: it failed; with the last line that it printed.
        RunError: the disk is full.
    """
    command = [*converter, str(model.path), "--outfile", str(file), "--outtype", kind]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    said = f"{result.stdout}\n{result.stderr}"
    if result.returncode and says_full(said):
        raise RunError(f"the disk of {file.parent} is full", hint="Make room, or name another folder.")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if result.returncode or not _is_gguf(file):
        reason = lines[-1][:300] if lines else f"it ended with code {result.returncode}"
        raise ModelError(
            f"llama.cpp's converter wrote no GGUF file of {model.name}: {reason}",
            hint=f"Update llama.cpp, or try by hand: {' '.join(command[: len(converter)])} {model.path}",
        )


def load_gguf(file: Path, like: ModelInfo, source: ModelFolder) -> TransformersEngine:
    """The model in a GGUF file, its own tokenizer and chat template included, with its weights unpacked.

    Args:
        like: device and type are those of this engine.
        source: what it was made of. Which tokens end an answer comes from there: llama.cpp knows them by their names.

    Raises:
        ModelError: transformers cannot read it.
    """
    torch = require("torch", extra="finetune")
    transformers = require("transformers", extra="finetune")
    require("gguf", extra="local")
    options = {"gguf_file": file.name, "local_files_only": True}
    try:
        # The reader's bar asks nobody whether it is wanted.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                file.parent,
                dtype=torch.float32,
                quantization_config=transformers.GgufConfig(dequantize=True),
                **options,
            )
            ends = transformers.GenerationConfig.from_pretrained(source.path, local_files_only=True)
    except Exception as error:  # what readers raise for a file that is not as they expect is of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the GGUF file cannot be read back, so its answers are not known: {reason}",
            hint="Export safetensors, or a model of a kind that transformers reads from GGUF.",
        ) from error
    model = model.to(like.device, getattr(torch, like.dtype)).eval()
    model.generation_config = ends
    info = ModelInfo(file.name, digest_file(file), "transformers", like.device, like.dtype, "none")
    return TransformersEngine(model, tokenizer, info)


def _is_gguf(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(4) == b"GGUF"
