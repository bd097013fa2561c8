"""Export: an adapter for use elsewhere, merged as safetensors or GGUF, or alone as peft saves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UsageError
from workbench.files import digest_file, write_atomic
from workbench.finetune import gguf
from workbench.finetune.formats import Dtype, Format, GgufType
from workbench.finetune.merge import BYTES, find_base, found_adapter, make_merged, merge, parameters
from workbench.finetune.same_answers import Agreement, ask_adapter, find_questions
from workbench.finetune.staging import check_free, put, staging
from workbench.models.adapters import AdapterFolder
from workbench.pipeline.prompt import Prompt
from workbench.workspace import Layout


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        digest: of the model, the file or the adapter. size: in bytes.
        agreement: its answers held against the adapter's; None for the adapter alone, whose bytes are the same.
    """

    path: Path
    adapter: AdapterFolder
    format: str
    digest: str
    size: int
    agreement: Agreement | None = None

    def __str__(self) -> str:
        checked = f": {self.agreement}" if self.agreement else ""
        return f"{self.adapter} exported to {self.path} ({self.format}, {self.size / 2**20:,.0f} MB){checked}"


def export(
    layout: Layout,
    adapter: AdapterFolder | str,
    *,
    out: Path,
    format: Format = "safetensors",
    adapter_only: bool = False,
    dtype: Dtype | None = None,
    type: GgufType = "f16",
    base: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    prompt: Prompt | None = None,
    show_progress: bool = True,
) -> ExportResult:
    """Write an adapter to `out`, and keep what was written if it gives the adapter's answers.

    `safetensors` is the folder that `merge` makes. `gguf` is a file that llama.cpp's converter makes of a merged model;
    it is read back, weights, tokenizer and chat template, and asked every dev row like the adapter. At least 99% of the
    answers must be the same.

    Args:
        adapter_only: the adapter without its base, as peft loads it.
        dtype: of safetensors, as for `merge`. type: of GGUF; `q8_0` has 8 bits a weight.
        base, dataset, split, prompt: as for `merge`.

    Raises:
        UsageError: `out` exists already or does not fit the format, or what to ask is not known.
        ModelError: llama.cpp's converter is not here or failed, another base, or too many answers differ.
        NotFoundError, IntegrityError, RunError, MissingExtraError: as `merge`.
    """
    adapter = found_adapter(layout, adapter)
    out = out.expanduser().resolve()
    if adapter_only:
        if format != "safetensors":
            raise UsageError("an adapter alone is exported as safetensors", hint="Leave out the format, or merge it.")
        return _alone(adapter, out)
    if format == "safetensors":
        merged = merge(
            layout,
            adapter,
            out=out,
            dtype=dtype,
            base=base,
            dataset=dataset,
            split=split,
            prompt=prompt,
            show_progress=show_progress,
        )
        model = merged.model
        return ExportResult(
            model.path, adapter, f"safetensors {merged.dtype}", model.digest, model.size, merged.agreement
        )
    if out.suffix != ".gguf":
        raise UsageError(f"{out.name} is not the name of a GGUF file", hint="End it in .gguf")
    check_free(out)
    converter = gguf.find_converter()
    folder = find_base(adapter, base)
    questions = find_questions(layout, adapter, dataset=dataset, split=split, prompt=prompt)
    needed = parameters(folder) * (BYTES + gguf.BYTES[type])
    with staging(out, needed=int(needed)) as place:
        expected, info = ask_adapter(layout, folder, adapter, questions, show_progress=show_progress)
        # fp16 rounds eight times finer than bf16, and llama.cpp's converter takes either.
        staged = make_merged(folder, adapter, place, "bf16" if type == "bf16" else "fp16", out.stem)
        file = place / "model.gguf"
        gguf.convert(converter, staged, file, type)
        engine = gguf.load_gguf(file, info, staged)
        try:
            found = questions.ask(engine, f"{adapter.manifest.name}, as GGUF", show_progress=show_progress)
        finally:
            engine.close()
        agreement = questions.compare(expected, found)
        finer = "Export" if type == "f16" else "Try type f16, which rounds finer, or export"
        if not agreement.enough:
            raise agreement.refusal("the GGUF file", f"{finer} safetensors.")
        put(file, out)
    return ExportResult(out, adapter, f"gguf {type}", digest_file(out), out.stat().st_size, agreement)


def _alone(adapter: AdapterFolder, out: Path) -> ExportResult:
    with staging(out, needed=adapter.size) as place:
        folder = place / "adapter"
        folder.mkdir()
        for name, data in adapter.files().items():
            write_atomic(folder / name, data)
        put(folder, out)
    return ExportResult(out, adapter, "safetensors, adapter only", adapter.digest, adapter.size)
