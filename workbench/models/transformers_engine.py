"""Engine `transformers`: a local model, in this process.

Four things make it fast enough for a laptop. The tokens that questions share (system text, few-shot examples) go through
the model once and their key-value cache is reused, by later calls too. Questions of like length share a batch. Where a
schema forces the next tokens (braces, field names, quotes), they are fed together with the sampled one instead of being
generated one by one. Answers of a closed set are scored in one pass instead of being generated.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from workbench.errors import ModelError, OutOfMemoryError, UsageError, require
from workbench.files import canonical_json
from workbench.models.adapter_switch import AdapterSwitch, check_base
from workbench.models.adapters import DIGEST, AdapterFolder, find_adapter
from workbench.models.budget import Budget
from workbench.models.chat import chat_tokens
from workbench.models.choices import ChoiceScorer
from workbench.models.decoding import Batch, Constraint, end_tokens
from workbench.models.engine import Completion, Generation, Message, ModelInfo, Quantization, Request
from workbench.models.prefix_cache import DEFAULT_LIMIT_MB, Prefix, PrefixCache, compute_prefix, limit_bytes
from workbench.models.store import find_model, share_cores, stay_offline
from workbench.workspace import current_layout

if TYPE_CHECKING:
    import numpy as np

# Logits of one batch of choices: 256 MB of fp32.
MAX_LOGITS = 1 << 26

# Tokens in one pass of choices on a CPU: more gain no speed there (measured from 64 to 2048), and rows of like length stay
# together, so that less is padding.
CPU_PASS = 512

Answers = TypeVar("Answers")


@dataclass(frozen=True)
class _Room:
    """What rows of one batch take.

    Attributes:
        new: tokens a row besides its prompt.
        rows: most rows in a batch.
        width: most tokens (padded, without the shared prefix) in the first pass; None sets no bound.
    """

    new: int
    rows: int
    width: int | None = None


class TransformersEngine:
    """A causal language model of Hugging Face `transformers`.

    Args:
        token_budget: most tokens (padded, cache included) in one batch; bounds memory.
        max_batch: most rows in one batch.
        prefix_bytes: most memory that prefixes kept between calls take.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        info: ModelInfo,
        *,
        token_budget: int = 16_384,
        max_batch: int = 32,
        prefix_bytes: int = int(DEFAULT_LIMIT_MB * 2**20),
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._info = info
        self.token_budget = token_budget
        self.max_batch = max_batch
        self.prefixes = PrefixCache(prefix_bytes)
        self.adapters = AdapterSwitch(model, info)
        self._busy = threading.Lock()
        self._grammars: dict[bytes, Constraint] = {}

    @classmethod
    def load(
        cls, name: str, *, quantization: Quantization = "none", device: str | None = None, sharded: bool = False
    ) -> TransformersEngine:
        """Load a model that is on this machine; the network is never asked.

        Device: CUDA where there is one, else Apple's MPS, else the CPU. Type: bf16 on CUDA, fp16 on MPS, fp32 on a CPU
        (where bf16 is slower). Prefixes that prompts share are kept between calls, in as many megabytes as the
        environment variable `WORKBENCH_PREFIX_CACHE_MB` says (512 unless set; 0 keeps none).

        Args:
            sharded: leave the weights where accelerate deals them out from, those of 4 bits stored in the type of the others.

        Raises:
            ModelError: no such model here, or its files cannot be loaded.
            UsageError: `WORKBENCH_PREFIX_CACHE_MB` is not a size.
            MissingExtraError: torch or transformers is not installed.
        """
        folder = find_model(name)
        prefix_bytes = limit_bytes()
        stay_offline()
        share_cores()
        torch = require("torch", extra="local")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        transformers = require("transformers", extra="local")
        device = device or best_device(torch)
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
                bnb_4bit_quant_storage=dtype if sharded else None,
            )
            if not sharded:
                options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else device}
        try:
            with _quiet(transformers):
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
                model = transformers.AutoModelForCausalLM.from_pretrained(folder.path, **options)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"the model {name} cannot be loaded: {reason}", hint=f"Run: workbench model pull {name}"
            ) from error
        if chosen == "none" and not sharded:
            model = model.to(device)
        model.eval()
        info = ModelInfo(folder.name, folder.digest, "transformers", device, str(dtype).removeprefix("torch."), chosen)
        return cls(model, tokenizer, info, prefix_bytes=prefix_bytes)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encode(messages))

    def check_adapter(self, adapter: str) -> None:
        """Refuse an adapter that is not here or belongs to another model; what it does shows when it is first used.

        Args:
            adapter: digest.

        Raises:
            UsageError: it is no digest.
            NotFoundError: there is none in the current workspace.
            ModelError: it was trained on another model.
        """
        check_base(_find(adapter), self._info)

    def close(self) -> None:
        self.model = None
        self.adapters = AdapterSwitch(None, self._info)
        self._grammars.clear()
        self.prefixes.clear()

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield answers batch by batch. Greedy answers are those of unbatched decoding up to floating-point ties.

        Requests with one adapter are answered together. Adapters are those of the current workspace, each loaded when it
        is first used.

        Raises:
            OutOfMemoryError: not even one row fits.
            UsageError: an adapter is named by something else than its digest.
            ModelError: the engine was closed, or an adapter is another model's or changes nothing.
            NotFoundError, IntegrityError: an adapter is not here, or not what was published.
        """
        self._check_open()
        started = time.perf_counter()
        groups: dict[bytes, list[int]] = {}
        for index, request in enumerate(requests):
            settings = [request.adapter, request.generation.model_dump(mode="json"), request.response_schema]
            groups.setdefault(canonical_json(settings), []).append(index)
        with self._busy:
            for indices in groups.values():
                with self._with(requests[indices[0]].adapter):
                    yield from self._generate_group(requests, indices, started)

    def loglikelihood(
        self, messages_list: Sequence[Sequence[Message]], choices: Sequence[str], *, adapter: str | None = None
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Natural log-probabilities of each choice as the whole answer to each question, of shape (rows, choices).

        That is the sum over the tokens of the choice and the end-of-turn token after it, so that `a` and `a b` compete as
        whole answers: without the end, `a` would contain `a b`. Where a model has several end tokens, any of them will
        do. A choice has the tokens that the model's tokenizer gives the text alone. Nothing is normalized over the
        choices, so what is missing in the sum of their probabilities is the model's wish to say something else.

        One pass over each question scores all choices.

        Args:
            adapter: digest of the adapter that scores with the model.

        Raises:
            UsageError: choices are not distinct, or one is empty; or the adapter is named by no digest.
            OutOfMemoryError: not even one row fits.
            ModelError: a question does not fit the model, the engine was closed, or as `generate` for the adapter.
        """
        import numpy as np

        self._check_open()
        if not choices or not all(choices) or len(set(choices)) < len(choices):
            raise UsageError("choices must be distinct texts, none of them empty", hint="Give each answer once.")
        scorer = self._scorer(choices)
        tokens = {index: self._encode(messages) for index, messages in enumerate(messages_list)}
        new = max(map(len, scorer.choices))
        for index, row in tokens.items():
            if len(row) + new > self._context:
                raise ModelError(
                    f"question {index}: {len(row)} prompt tokens and {new} of a choice do not fit {self._context}",
                    hint="Shorten the prompt.",
                )
        scores = np.zeros((len(tokens), len(choices)))

        def run(prefix: Prefix | None, chosen: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
            return scorer.score(prefix, [tokens[index][len(prefix or ()) :] for index in chosen])

        with self._busy, self._with(adapter):
            for _, chosen, found in self._batches(tokens, self._room(scorer), run, adapter):
                scores[chosen] = found
        return scores

    def _generate_group(
        self, requests: Sequence[Request], indices: list[int], started: float
    ) -> Iterator[tuple[int, Completion]]:
        first = requests[indices[0]]
        scorer = self._scorer(first.generation.choices) if first.generation.choices else None
        new = max(map(len, scorer.choices)) if scorer else first.generation.max_new_tokens
        tokens = {index: self._encode(requests[index].messages) for index in indices}
        for index in indices:
            if len(tokens[index]) + new > self._context:
                count = len(tokens.pop(index))
                yield (
                    index,
                    Completion(
                        text=None,
                        tokens_in=count,
                        error_kind="too_long",
                        error=f"{count} prompt tokens and {new} new ones do not fit {self._context}",
                    ),
                )
        constraint = None if scorer else self._constraint(first)

        def run(prefix: Prefix | None, chosen: list[int]) -> list[Completion]:
            suffixes = [tokens[index][len(prefix or ()) :] for index in chosen]
            if scorer:
                return scorer.complete(prefix, suffixes)
            batch = Batch(self.model, self.tokenizer, first.generation, constraint, prefix)
            return batch.run(suffixes, [requests[index].seed_key for index in chosen])

        room = self._room(scorer) if scorer else _Room(new, self.max_batch)
        for begun, chosen, completions in self._batches(tokens, room, run, first.adapter):
            for index, completion in zip(chosen, completions, strict=True):
                yield index, replace(completion, tokens_in=len(tokens[index]), queue_s=begun - started)

    def _batches(
        self,
        tokens: Mapping[int, list[int]],
        room: _Room,
        run: Callable[[Prefix | None, list[int]], Answers],
        adapter: str | None,
    ) -> Iterator[tuple[float, list[int], Answers]]:
        """Run rows in batches that fit: yields when each began, its rows and what `run` said of them.

        Args:
            run: asks the model, given the prefix that all rows begin with.
            adapter: the one that is switched on.
        """
        waiting = sorted(tokens, key=lambda index: (len(tokens[index]), index))
        shared = self.prefixes.worthwhile([tokens[index] for index in waiting], adapter)
        prefix: Prefix | None = None
        while waiting:
            size = self._batch_size([len(tokens[index]) for index in waiting], shared, room)
            chosen = waiting[:size]
            try:
                if shared and prefix is None:
                    prefix = compute_prefix(self.model, self.prefixes, tokens[chosen[0]][:shared], adapter)
                begun = time.perf_counter()
                answers = run(prefix, chosen)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if size > 1:
                    room = replace(room, rows=size // 2)
                elif shared or self.prefixes.stats.entries:
                    # Rather slow than not at all: what is kept makes room for this call.
                    self.prefixes.clear()
                    shared, prefix = 0, None
                else:
                    raise OutOfMemoryError(
                        f"not enough memory for one row of {len(tokens[chosen[0]])} tokens",
                        hint="Close other programs, shorten the prompt or use a smaller or quantized model.",
                    ) from error
                continue
            waiting = waiting[size:]
            yield begun, chosen, answers

    def _batch_size(self, lengths: list[int], shared: int, room: _Room) -> int:
        """How many of the next rows, shortest first, go together."""
        width = self.token_budget if room.width is None else room.width
        size = 1
        while (
            size < min(room.rows, len(lengths))
            and (size + 1) * (lengths[size] + room.new) <= self.token_budget
            and (size + 1) * (lengths[size] - shared + room.new) <= width
        ):
            size += 1
        return size

    def _with(self, adapter: str | None) -> contextlib.AbstractContextManager[None]:
        """The adapter, found in the current workspace, switched on; None leaves the model alone."""
        return contextlib.nullcontext() if adapter is None else self.adapters.using(_find(adapter))

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        return chat_tokens(self.tokenizer, messages)

    def _scorer(self, choices: Sequence[str]) -> ChoiceScorer:
        encoded = [list(self.tokenizer.encode(choice, add_special_tokens=False)) for choice in choices]
        return ChoiceScorer(self.model, end_tokens(self.model, self.tokenizer), choices, encoded)

    def _room(self, scorer: ChoiceScorer) -> _Room:
        most = MAX_LOGITS // ((scorer.width + 1) * self.model.config.vocab_size)
        width = CPU_PASS if self._info.device == "cpu" else None
        return _Room(scorer.width, max(1, min(most, self.max_batch)), width)

    def _check_open(self) -> None:
        if self.model is None:
            raise ModelError("the engine was closed", hint="Ask for a new one.")

    @property
    def _context(self) -> int:
        """The most tokens that the model takes, prompt and answer together."""
        return getattr(self.model.config, "max_position_embeddings", None) or 1 << 30

    def _constraint(self, request: Request) -> Constraint | None:
        if request.response_schema is None or not request.generation.constrain:
            return None
        key = canonical_json(request.response_schema)
        if key not in self._grammars:
            self._grammars[key] = Constraint(self.tokenizer, self.model.config.vocab_size, request.response_schema)
        return self._grammars[key]


def _find(adapter: str) -> AdapterFolder:
    """An adapter of the current workspace, by its digest: a name may mean another one tomorrow."""
    if not DIGEST.fullmatch(adapter):
        raise UsageError(f"{adapter!r} is not the digest of an adapter", hint="Find it with: workbench finetune ls")
    return find_adapter(current_layout(), adapter)


def best_device(torch: Any) -> str:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _quantization(asked: Quantization, device: str) -> Literal["none", "int8", "nf4"]:
    if asked == "auto":
        return "nf4" if device == "cuda" else "int8"
    return asked


def out_of_memory(error: Exception) -> bool:
    """Whether torch, or Python, said that memory does not suffice."""
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
