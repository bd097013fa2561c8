"""Peak memory of a training, known before it: no weight is read, yet a real batch goes through the model.

The model is made of tensors without data (torch's fake tensors), in the shapes and types that training uses, and the loss
of the longest batch is computed and differentiated by the code that trains. Every block that this would take is counted
from when it is made to when it is freed, so what comes out holds for any architecture, with or without checkpointing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ModelError, require
from workbench.finetune.blocks import counter, without_data
from workbench.finetune.build import with_adapter
from workbench.finetune.inputs import labels, sequences
from workbench.finetune.loss import completion_loss
from workbench.finetune.quiet import quiet
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.adapters import AdapterFolder
from workbench.models.engine import Quantization
from workbench.models.store import ModelFolder, find_model

MB = 1 << 20

# What the libraries take when they are first used, measured with the starter model.
_FIRST_USE_MB = 45
# NF4 with double quantization: 4 bits; a byte of scale every 64 weights; 4 bytes every 256 of those.
_NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)

# From here on glibc gives a freed block back at once; it is where it begins, but by default it moves.
_BLOCK = 128 << 10
_M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory at its peak by part, in MB (2^20 bytes).

    Attributes:
        weights: of the base in the type it is trained on, its buffers included.
        adapter, gradients, optimizer: of LoRA, and the two moments of AdamW.
        activations: what a micro-batch adds at most, the logits and what lives for a moment included.
        framework: of this process with the libraries loaded; 0 on CUDA, where only torch's own blocks are counted.
        loading: the most while the weights are read, which is a peak of its own.
    """

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    framework: float
    loading: float

    @property
    def steps(self) -> float:
        """What the steps add to the process at their peak, once the weights are loaded."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations

    @property
    def training(self) -> float:
        """What training adds to the process at its peak, loading included."""
        return max(self.steps, self.loading)

    @property
    def peak(self) -> float:
        return self.framework + self.training

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 1) for name, value in {**asdict(self), "peak": self.peak}.items()}


def estimate_memory(
    recipe: FinetuneRecipe,
    rows: Sequence[Mapping[str, Any]],
    device: str = "cpu",
    start: AdapterFolder | None = None,
) -> MemoryEstimate:
    """Peak memory of training with the recipe.

    Args:
        rows: the micro-batch that takes most, as in `Examples.train`.
        start: the adapter that training starts from.

    Raises:
        ModelError: no such model here, or its configuration cannot be read.
        UsageError: `target_modules` names nothing that the model has.
    """
    chosen = quantization(recipe, device)
    folder = find_model(recipe.model)
    with quiet():
        # What training imports belongs to the process before it.
        require("trl", extra="finetune")
        base = base_on_meta(folder, device)
        weights, largest = _weights(base, chosen)
        if chosen != "none":
            _in_fp32(base)
        with require("torch", extra="finetune").device("meta"):
            model = with_adapter(base, recipe, start)
        adapter = _adapter(model, chosen, device)
        if start is not None and recipe.kind == "dpo":
            # What is departed from is kept beside what departs from it.
            weights += adapter
        peak = _activations(model, recipe, rows, device)
    # The weight that is being multiplied, back in the type of the activations.
    peak += largest
    loading = weights
    if device == "cpu":
        # The files are mapped, and count until the last weight is converted.
        loading += sum((folder.path / name).stat().st_size for name in folder.files if name.endswith(".safetensors"))
    return MemoryEstimate(
        weights=weights / MB,
        adapter=adapter / MB,
        gradients=adapter / MB,
        optimizer=2 * adapter / MB,
        activations=max(0.0, peak - adapter) / MB,
        framework=_resident() / MB + _FIRST_USE_MB if device == "cpu" else 0.0,
        loading=loading / MB,
    )


def quantization(recipe: FinetuneRecipe, device: str) -> Quantization:
    """The quantization that the recipe comes to on a device."""
    asked = recipe.settings.quantization
    if asked == "auto":
        return "nf4" if device == "cuda" else "int8"
    return asked


def base_on_meta(folder: ModelFolder, device: str) -> Any:
    """The model without data, in the type that it is trained in.

    Raises:
        ModelError: its configuration cannot be read.
    """
    torch = require("torch", extra="finetune")
    transformers = require("transformers", extra="finetune")
    try:
        config = transformers.AutoConfig.from_pretrained(folder.path, local_files_only=True)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16 if device == "cuda" else torch.float32
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the configuration of {folder.name} cannot be read: {reason}", hint="Fetch the model again."
        ) from error
    with contextlib.suppress(OSError):
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder.path, local_files_only=True)
    return model


def available_mb(device: str, root: Path = Path("/")) -> float:
    """Memory that is free for this process, in MB, within the limits of a container. `root` is for tests."""
    if device == "cuda":
        torch = require("torch", extra="finetune")
        return float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()) / MB
    psutil = require("psutil", extra="finetune")
    free = float(psutil.virtual_memory().available)
    for limit, usage in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int((root / limit).read_text("ascii")) - int((root / usage).read_text("ascii")))
    return max(0.0, free) / MB


@functools.cache
def give_back_at_once() -> bool:
    """Have blocks of more than 128 KB returned to the system when they are freed; True where that can be set (glibc).

    glibc raises that bound as large blocks come and go, and torch asks for aligned blocks, into which a freed one of the
    same size does not fit: a training then holds up to five times what it uses, and how much differs from run to run.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _BLOCK))
    except (OSError, AttributeError):
        return False


def _linear(model: Any) -> list[Any]:
    """Modules that a quantization changes: every linear one but the output layer."""
    torch = require("torch", extra="finetune")
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


def _weights(model: Any, chosen: Quantization) -> tuple[float, float]:
    """Bytes of all weights and buffers, and of the largest quantized one when it is used."""
    quantized = {id(module.weight): module.weight for module in _linear(model)} if chosen != "none" else {}
    total = float(sum(buffer.nbytes for buffer in model.buffers()))
    for parameter in model.parameters():
        if id(parameter) not in quantized:
            total += parameter.numel() * 4 if chosen != "none" else parameter.nbytes
        elif chosen == "nf4":
            total += parameter.numel() * _NF4_BYTES
        else:
            total += parameter.numel() + 4 * len(parameter)
    return total, max((float(weight.nbytes) for weight in quantized.values()), default=0.0)


def _in_fp32(model: Any) -> None:
    """What peft does to a quantized base: all that is not quantized becomes fp32."""
    quantized = {id(module.weight) for module in _linear(model)}
    for parameter in model.parameters():
        if id(parameter) not in quantized:
            parameter.data = parameter.data.float()


def _adapter(model: Any, chosen: Quantization, device: str) -> float:
    """Bytes of what is trained; trl has it in bf16 on a quantized base, which on a CPU is undone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if chosen != "none" and device == "cuda":
        for parameter in trained:
            parameter.data = parameter.data.bfloat16()
    return float(sum(parameter.nbytes for parameter in trained))


def _activations(model: Any, recipe: FinetuneRecipe, rows: Sequence[Mapping[str, Any]], device: str) -> float:
    """The most bytes that a micro-batch adds, forwards and backwards, the gradients that it leaves included."""
    import torch

    settings = recipe.settings
    inputs = _batch(rows, settings.packing)
    without_data(model, device if device == "cuda" else "cpu")
    model.train()
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    blocks = counter()
    for tensor in (*model.parameters(), *model.buffers()):
        blocks.know(tensor)
    share = not (settings.dropout or settings.gradient_checkpointing or settings.packing)
    halved = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else contextlib.nullcontext()
    micro = settings.micro_batch or settings.batch_size
    extra = 0.0
    with blocks:
        for _ in range(2 if micro < settings.batch_size else 1):
            with halved:
                found = completion_loss(model, inputs, share=share)
                if found is None:
                    loss, extra = _body(model, inputs)
                else:
                    loss = found[0].sum()
                del found
            loss.backward()
            del loss
    return float(blocks.peak) + extra


def _body(model: Any, inputs: dict[str, Any]) -> tuple[Any, float]:
    """A loss without the output layer, for batches that trl's own loss is for: it never holds more logits than one tile."""
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    base = model.get_base_model()
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    hidden = base.base_model(**rest, use_cache=False).last_hidden_state
    tokens = min(hidden.shape[0] * hidden.shape[1], TOKEN_CHUNK_SIZE)
    width = min(base.config.get_text_config().vocab_size, _CHUNKED_LOGPROB_CHUNK_SIZE)
    # On a CPU the tile, its exponentials and their product are there at once.
    return hidden.float().sum(), float(3 * tokens * width * hidden.element_size())


def _batch(rows: Sequence[Mapping[str, Any]], packing: bool) -> dict[str, Any]:
    """Rows as the collator makes them: padded on the right, or one after another where they are packed."""
    import torch

    if packing:
        lengths = [length for row in rows for length in row.get("seq_lengths") or [len(row["input_ids"])]]
        return {
            "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
            "labels": torch.tensor([[label for row in rows for label in row["labels"]]]),
            "position_ids": torch.tensor([[place for length in lengths for place in range(length)]]),
        }
    pairs = [pair for row in rows for pair in zip(sequences(row), labels(row), strict=True)]
    width = max(len(tokens) for tokens, _ in pairs)
    filled = [(list(tokens), list(learned), width - len(tokens)) for tokens, learned in pairs]
    return {
        "input_ids": torch.tensor([tokens + [0] * rest for tokens, _, rest in filled]),
        "attention_mask": torch.tensor([[1] * len(tokens) + [0] * rest for tokens, _, rest in filled]),
        "labels": torch.tensor([learned + [-100] * rest for _, learned, rest in filled]),
    }


def _resident() -> float:
    """Bytes of this process in memory."""
    return float(require("psutil", extra="finetune").Process().memory_info().rss)
