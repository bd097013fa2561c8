"""Engine `transformers`: a local model, in this process.

Three things make it fast enough for a laptop. The tokens that all questions of a call share (system text, few-shot
examples) go through the model once and their key-value cache is reused. Questions of like length share a batch. Where a
schema forces the next tokens (braces, field names, quotes), they are fed together with the sampled one instead of being
generated one by one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from workbench.errors import ModelError, OutOfMemoryError, require
from workbench.files import canonical_json
from workbench.models.budget import Budget
from workbench.models.decoding import Batch, Constraint
from workbench.models.engine import Completion, Generation, Message, ModelInfo, Quantization, Request
from workbench.models.store import find_model, share_cores, stay_offline

# Prefixes shorter than this cost more to copy than to compute again.
MIN_PREFIX = 16


class TransformersEngine:
    """A causal language model of Hugging Face `transformers`.

    Args:
        token_budget: most tokens (padded, cache included) in one batch; bounds memory.
        max_batch: most rows in one batch.
    """

    def __init__(
        self, model: Any, tokenizer: Any, info: ModelInfo, *, token_budget: int = 16_384, max_batch: int = 32
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._info = info
        self.token_budget = token_budget
        self.max_batch = max_batch
        self._busy = threading.Lock()
        self._grammars: dict[bytes, Constraint] = {}

    @classmethod
    def load(cls, name: str, *, quantization: Quantization = "none", device: str | None = None) -> TransformersEngine:
        """Load a model that is on this machine; the network is never asked.

        Device: CUDA where there is one, else Apple's MPS, else the CPU. Type: bf16 on CUDA, fp16 on MPS, fp32 on a CPU
        (where bf16 is slower).

        Raises:
            ModelError: no such model here, or its files cannot be loaded.
            MissingExtraError: torch or transformers is not installed.
        """
        folder = find_model(name)
        stay_offline()
        share_cores()
        torch = require("torch", extra="local")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        transformers = require("transformers", extra="local")
        device = device or _best_device(torch)
        chosen = _quantization(quantization, device)
        dtype = {"cuda": torch.bfloat16, "mps": torch.float16}.get(device, torch.float32)
        options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
        if chosen != "none":
            require("bitsandbytes", extra="local")
            options["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_8bit=chosen == "int8",
                load_in_4bit=chosen == "nf4",
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
            options["device_map"] = {"": device}
        try:
            with _quiet(transformers):
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
                model = transformers.AutoModelForCausalLM.from_pretrained(folder.path, **options)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"the model {name} cannot be loaded: {reason}", hint=f"Run: workbench model pull {name}"
            ) from error
        if chosen == "none":
            model = model.to(device)
        model.eval()
        info = ModelInfo(folder.name, folder.digest, "transformers", device, str(dtype).removeprefix("torch."), chosen)
        return cls(model, tokenizer, info)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encode(messages))

    def close(self) -> None:
        self.model = None
        self._grammars.clear()

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield answers batch by batch. Greedy answers are those of unbatched decoding up to floating-point ties.

        Raises:
            OutOfMemoryError: not even one row fits.
            ModelError: the engine was closed.
        """
        if self.model is None:
            raise ModelError("the engine was closed", hint="Ask for a new one.")
        started = time.perf_counter()
        groups: dict[bytes, list[int]] = {}
        for index, request in enumerate(requests):
            key = canonical_json([request.generation.model_dump(mode="json"), request.response_schema])
            groups.setdefault(key, []).append(index)
        with self._busy:
            for indices in groups.values():
                yield from self._generate_group(requests, indices, started)

    def _generate_group(
        self, requests: Sequence[Request], indices: list[int], started: float
    ) -> Iterator[tuple[int, Completion]]:
        first = requests[indices[0]]
        tokens = {index: self._encode(requests[index].messages) for index in indices}
        limit = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        for index in indices:
            if len(tokens[index]) + first.generation.max_new_tokens > limit:
                count = len(tokens.pop(index))
                yield (
                    index,
                    Completion(
                        text=None,
                        tokens_in=count,
                        error_kind="too_long",
                        error=f"{count} prompt tokens and {first.generation.max_new_tokens} new ones do not fit {limit}",
                    ),
                )
        waiting = sorted(tokens, key=lambda index: (len(tokens[index]), index))
        prefix = _common_prefix([tokens[index] for index in waiting])
        if len(waiting) < 2 or prefix < MIN_PREFIX:
            prefix = 0
        cache = self._prefix_cache(tokens[waiting[0]][:prefix]) if prefix else None
        constraint = self._constraint(first)
        max_batch = self.max_batch
        while waiting:
            size = self._batch_size(waiting, tokens, first.generation.max_new_tokens, max_batch)
            chosen = waiting[:size]
            begun = time.perf_counter()
            batch = Batch(self.model, self.tokenizer, first.generation, constraint, cache, prefix)
            try:
                completions = batch.run(
                    [tokens[index][prefix:] for index in chosen], [requests[index].seed_key for index in chosen]
                )
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                if size == 1:
                    raise OutOfMemoryError(
                        f"not enough memory for one row of {len(tokens[chosen[0]])} tokens",
                        hint="Close other programs, shorten the prompt or use a smaller or quantized model.",
                    ) from error
                max_batch = size // 2
                continue
            waiting = waiting[size:]
            for index, completion in zip(chosen, completions, strict=True):
                yield index, replace(completion, tokens_in=len(tokens[index]), queue_s=begun - started)

    def _batch_size(self, waiting: list[int], tokens: dict[int, list[int]], new: int, most: int) -> int:
        size = 1
        while size < min(most, len(waiting)) and (size + 1) * (len(tokens[waiting[size]]) + new) <= self.token_budget:
            size += 1
        return size

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        dumped = [{"role": message.role, "content": message.content} for message in messages]
        if self.tokenizer.chat_template is None:
            text = "\n".join(f"{message['role']}: {message['content']}" for message in dumped) + "\nassistant:"
            return list(self.tokenizer.encode(text))
        # Rendered to text first: what tokenizing directly returns differs between versions of transformers.
        text = self.tokenizer.apply_chat_template(dumped, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _prefix_cache(self, tokens: list[int]) -> Any:
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        with torch.inference_mode():
            self.model(
                input_ids=torch.tensor([tokens], device=self.model.device),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return cache

    def _constraint(self, request: Request) -> Constraint | None:
        if request.response_schema is None or not request.generation.constrain:
            return None
        key = canonical_json(request.response_schema)
        if key not in self._grammars:
            self._grammars[key] = Constraint(self.tokenizer, self.model.config.vocab_size, request.response_schema)
        return self._grammars[key]


def _common_prefix(rows: list[list[int]]) -> int:
    """Length of the longest prefix that all rows share, leaving each row at least one token."""
    if not rows:
        return 0
    low, high = min(rows), max(rows)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(length, min(len(row) for row in rows) - 1)


def _best_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _quantization(asked: Quantization, device: str) -> Literal["none", "int8", "nf4"]:
    if asked == "auto":
        return "nf4" if device == "cuda" else "int8"
    return asked


def _out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Loading a small model needs no bars and notices of its own; errors still rise."""
    log = transformers.utils.logging
    level = log.get_verbosity()
    bars = log.is_progress_bar_enabled() if hasattr(log, "is_progress_bar_enabled") else True
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


__all__ = ["Generation", "TransformersEngine"]
