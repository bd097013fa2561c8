"""Merging: an adapter becomes part of a 16-bit copy of its base, which is kept if it answers as the adapter does."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from workbench.errors import ModelError, UsageError, require
from workbench.files import short
from workbench.finetune.formats import Dtype
from workbench.finetune.memory import base_on_meta
from workbench.finetune.quiet import quiet
from workbench.finetune.same_answers import Agreement, ask_adapter, find_questions
from workbench.finetune.staging import check_free, put, staging
from workbench.models.adapters import AdapterFolder, find_adapter, verify_adapter
from workbench.models.store import ModelFolder, find_model, folder_name, list_models, models_folder, publish
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.prompt import Prompt
from workbench.workspace import Layout

TYPES: dict[str, str] = {"bf16": "bfloat16", "fp16": "float16"}
BYTES = 2
_BY_DEFAULT: tuple[Dtype, ...] = ("bf16", "fp16")

# What of the base's folder goes with its weights: tokenizer, chat template, settings and licence.
_KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "LICENCE*")
_OWN = ("config.json", "*.index.json")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class MergeResult:
    """A merged model, complete and published.

    Attributes:
        model: where it lies; `Pipeline(model=…)` takes its path, or its name where it was given one.
        dtype: of its weights.
        agreement: its answers held against the unmerged adapter's.
    """

    model: ModelFolder
    adapter: AdapterFolder
    dtype: Dtype
    agreement: Agreement

    def __str__(self) -> str:
        return f"{self.adapter} merged into {self.model.path} ({self.dtype}): {self.agreement}"


def merge(
    layout: Layout,
    adapter: AdapterFolder | str,
    *,
    out: Path | None = None,
    name: str | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    prompt: Prompt | None = None,
    show_progress: bool = True,
) -> MergeResult:
    """Merge an adapter into its base, unquantized, and keep the result if it gives the same answers.

    Both answer every dev row of the recipe, greedily; at least 99% of the answers must be the same, letter for letter.
    The sum is computed in fp32 and rounded once. Nothing is left behind where something fails.

    Args:
        adapter: or its name or digest.
        out: the folder to make. name: instead, what `find_model` shall know the merged model by.
        dtype: of the merged weights; None is bf16 if that gives the same answers, else fp16, which rounds finer.
        base: where the base lies, if not where the adapter says.
        dataset, split, prompt: what to ask instead of the recipe's; all are needed where its training is not here.

    Raises:
        UsageError: the target exists already, or what to ask is not known.
        NotFoundError, IntegrityError: no such adapter, data set or split; or the adapter is damaged.
        ModelError: another base, a quantized one, or too many answers differ.
        RunError: the disk is full.
        MissingExtraError: torch, transformers or peft is not installed.
    """
    adapter = found_adapter(layout, adapter)
    target, called = _target(out, name)
    check_free(target)
    folder = find_base(adapter, base)
    questions = find_questions(layout, adapter, dataset=dataset, split=split, prompt=prompt)
    with staging(target, needed=BYTES * parameters(folder)) as place:
        expected, _ = ask_adapter(layout, folder, adapter, questions, show_progress=show_progress)
        finer = "Try dtype fp16, which rounds finer, or use" if dtype == "bf16" else "Use"
        refused: ModelError | None = None
        for kind in (dtype,) if dtype else _BY_DEFAULT:
            try:
                staged = make_merged(folder, adapter, place, kind, called)
            except ModelError as error:
                raise refused or error from None
            engine = TransformersEngine.load(str(staged.path))
            try:
                title = f"{adapter.manifest.name}, merged in {kind}"
                agreement = questions.compare(expected, questions.ask(engine, title, show_progress=show_progress))
            finally:
                engine.close()
            if agreement.enough:
                put(staged.path, target)
                return MergeResult(find_model(target), adapter, kind, agreement)
            refused = agreement.refusal(f"the merged model ({kind})", f"{finer} the adapter as it is.")
            shutil.rmtree(staged.path)
    assert refused is not None
    raise refused


def found_adapter(layout: Layout, adapter: AdapterFolder | str) -> AdapterFolder:
    """The adapter, its bytes verified.

    Raises:
        NotFoundError, IntegrityError: there is none, or it is damaged.
    """
    found = find_adapter(layout, adapter) if isinstance(adapter, str) else adapter
    verify_adapter(found)
    return found


def find_base(adapter: AdapterFolder, name: str | None = None) -> ModelFolder:
    """The model that the adapter was trained on.

    Args:
        name: where it lies, if not where the adapter says.

    Raises:
        ModelError: it is not here, is another one, or its files are quantized.
    """
    manifest = adapter.manifest
    folder = find_model(name or manifest.base)
    if folder.digest != manifest.base_digest:
        raise ModelError(
            f"{adapter} was trained on {manifest.base} ({short(manifest.base_digest)}), "
            f"and {folder.path} is {folder.name} ({short(folder.digest)})",
            hint="Name the folder of the model that it was trained on: --base FOLDER",
        )
    if "quantization_config" in json.loads((folder.path / "config.json").read_bytes()):
        raise ModelError(
            f"the files of {folder.name} are quantized, and nothing is merged into a quantized model",
            hint="Train on the model with 16-bit weights; the setting quantization makes it as small while it is trained on.",
        )
    return folder


def parameters(base: ModelFolder) -> int:
    """How many weights a model has."""
    return int(base_on_meta(base, "cpu").num_parameters())


def make_merged(base: ModelFolder, adapter: AdapterFolder, place: Path, dtype: Dtype, name: str) -> ModelFolder:
    """Write the merged model, with its manifest, to the folder `model` of `place`.

    Raises:
        ModelError: a merged weight is not finite in this type.
    """
    partial = place / "partial"
    partial.mkdir()
    with quiet():
        model = _merged(base, adapter, dtype)
        model.save_pretrained(partial)
    _complete(base, partial)
    return publish(
        partial,
        place / "model",
        name=name,
        source=f"merge:{base.name}+{adapter.manifest.name}@{short(adapter.digest)}",
        licence=base.licence,
    )


def _merged(base: ModelFolder, adapter: AdapterFolder, dtype: Dtype) -> Any:
    """The model in fp32 with the adapter added to its weights, rounded to `dtype`."""
    torch = require("torch", extra="finetune")
    peft = require("peft", extra="finetune")
    model = TransformersEngine.load(str(base.path), device="cpu").model
    # peft draws weights before it loads the stored ones: nobody's random numbers change by it.
    with torch.random.fork_rng(devices=[]):
        adapted = peft.PeftModel.from_pretrained(model, str(adapter.path))
    try:
        merged = adapted.merge_and_unload(safe_merge=True).to(getattr(torch, TYPES[dtype]))
    except ValueError as error:
        raise ModelError(f"{adapter} cannot be merged: {error}", hint="Train it again.") from error
    for name, weights in merged.named_parameters():
        if not torch.isfinite(weights).all():
            raise ModelError(f"{name} does not fit {dtype} once it is merged", hint="Use bf16, whose range is wider.")
    return merged


def _complete(base: ModelFolder, partial: Path) -> None:
    """Put what belongs to a model beside its weights: byte for byte from the base where it has it."""
    for name in base.files:
        if "/" not in name and _matches(name, _KEPT) and not _matches(name, _OWN):
            (partial / name).write_bytes((base.path / name).read_bytes())
    # The version of the library that wrote it is no property of the model: without it, digests agree across machines.
    made = ["config.json"] if "generation_config.json" in base.files else ["config.json", "generation_config.json"]
    for path in (partial / name for name in made):
        if path.is_file():
            settings = json.loads(path.read_bytes())
            settings.pop("transformers_version", None)
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    # Weights are written for their owner alone, who may not be the one that serves them.
    for path in partial.glob("*.safetensors"):
        path.chmod((partial / "config.json").stat().st_mode)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _target(out: Path | None, name: str | None) -> tuple[Path, str]:
    """The folder to make, and what the model is called."""
    if (out is None) == (name is None):
        raise UsageError("a merged model needs a place", hint="Give a folder (--out) or a name (--name), not both.")
    if out is not None:
        target = out.expanduser().resolve()
        return target, target.name
    assert name is not None
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a name for a model", hint="Use letters, digits, dots and dashes.")
    if any(model.name == name for model in list_models()):
        raise UsageError(f"a model is called {name} already", hint="Choose another name; see: workbench model ls")
    return models_folder() / folder_name(name), name
