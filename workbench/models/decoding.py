"""Decoding one batch: feed tokens, pick the next ones, stop each row when it is done."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, require
from workbench.models.engine import Completion, FinishReason, Generation
from workbench.models.prefix_cache import Prefix, model_cache

if TYPE_CHECKING:
    import torch


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens with which the model ends an answer."""
    ends = getattr(model.generation_config, "eos_token_id", None) or tokenizer.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


class Constraint:
    """Keeps answers to a JSON Schema, by llguidance. Written with `, ` and `: ` as separators."""

    def __init__(self, tokenizer: Any, vocabulary: int, schema: dict[str, Any]) -> None:
        llguidance = require("llguidance", extra="local")
        import llguidance.hf as hf

        self._matcher = llguidance.LLMatcher
        self._tokenizer = hf.from_tokenizer(tokenizer, n_vocab=vocabulary)
        self._grammar = self._matcher.grammar_from_json_schema(
            schema, overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        )
        if fault := self.start().get_error():
            raise ModelError(
                f"the answer schema cannot be enforced while generating: {fault.splitlines()[0]}",
                hint="Simplify the schema, or set constrain=False in Generation.",
            )

    def start(self) -> Any:
        """A matcher at the beginning of an answer."""
        return self._matcher(self._tokenizer, self._grammar)


@dataclass
class _Line:
    """One row while it is decoded. `pending` are tokens the model has not seen yet."""

    place: int
    pending: list[int]
    position: int
    matcher: Any
    generator: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    ttft_s: float = 0.0


class Batch:
    """Decodes rows that begin with the same prefix (or none), all at once."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        generation: Generation,
        constraint: Constraint | None,
        prefix: Prefix | None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.generation = generation
        self.constraint = constraint
        self.prefix = prefix
        self.prefix_length = len(prefix) if prefix else 0
        self.ends = end_tokens(model, tokenizer)

    def run(self, suffixes: Sequence[Sequence[int]], seed_keys: Sequence[str]) -> list[Completion]:
        """Decode; `suffixes` are the prompt tokens after the shared prefix, at least one a row."""
        import torch

        with torch.inference_mode():
            return self._run(suffixes, seed_keys)

    def _run(self, suffixes: Sequence[Sequence[int]], seed_keys: Sequence[str]) -> list[Completion]:
        import torch

        started = time.perf_counter()
        device = self.model.device
        lines = [
            _Line(
                place,
                list(suffix),
                self.prefix_length,
                self.constraint.start() if self.constraint else None,
                self._generator(key),
            )
            for place, (suffix, key) in enumerate(zip(suffixes, seed_keys, strict=True))
        ]
        if self.constraint:
            for line in lines:
                # What the schema forces at the very start needs no decision by the model.
                self._force(line)
        done: dict[int, Completion] = {}
        room = max(len(line.pending) for line in lines) + self.generation.max_new_tokens
        cache = model_cache(self.prefix, len(lines), room=room)
        mask = torch.ones((len(lines), self.prefix_length), dtype=torch.long, device=device)
        while lines:
            width = max(len(line.pending) for line in lines)
            ids = torch.zeros((len(lines), width), dtype=torch.long)
            fresh = torch.zeros((len(lines), width), dtype=torch.long)
            positions = torch.zeros((len(lines), width), dtype=torch.long)
            for row, line in enumerate(lines):
                count = len(line.pending)
                ids[row, width - count :] = torch.tensor(line.pending)
                fresh[row, width - count :] = 1
                positions[row, width - count :] = torch.arange(line.position, line.position + count)
                line.position += count
            mask = torch.cat([mask, fresh.to(device)], dim=1)
            logits = self.model(
                input_ids=ids.to(device),
                attention_mask=mask,
                position_ids=positions.to(device),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits.float()
            alive: list[int] = []
            for row, line in enumerate(lines):
                reason = self._advance(line, logits[row, -1], started)
                if reason is None:
                    alive.append(row)
                else:
                    done[line.place] = self._completion(line, reason, started)
            lines = [lines[row] for row in alive]
            if lines and len(alive) < len(mask):
                chosen = torch.tensor(alive, device=device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
        return [done[place] for place in range(len(suffixes))]

    def _advance(self, line: _Line, logits: torch.Tensor, started: float) -> FinishReason | None:
        """Choose the next token of a row and line up what must be fed next; a reason where the row is done."""
        import torch

        if line.matcher is not None and line.matcher.is_stopped():
            return "stop"
        allowed = logits
        if line.matcher is not None:
            allowed = logits + self._bias(line.matcher, len(logits), logits.device)
        token = self._pick(allowed, line.generator)
        if not line.ttft_s:
            line.ttft_s = time.perf_counter() - started
        line.logprob += float(torch.log_softmax(logits, dim=-1)[token])
        if token in self.ends:
            return "stop"
        line.tokens.append(token)
        line.pending = [token]
        if line.matcher is not None:
            if not line.matcher.consume_token(token):
                raise ModelError(f"the answer schema refused a token: {line.matcher.get_error()}", hint="Report this.")
            self._force(line)
            if line.matcher.is_stopped() or (line.matcher.is_accepting() and not self._may_go_on(line.matcher)):
                return "stop"
        if self.generation.stop and self._stopped(line):
            return "stop"
        return "length" if len(line.tokens) >= self.generation.max_new_tokens else None

    def _force(self, line: _Line) -> None:
        # One token of room stays where the model has not chosen any yet: that one is always taken.
        room = self.generation.max_new_tokens - len(line.tokens) - (not line.tokens)
        tokens = [token for token in line.matcher.compute_ff_tokens() if token not in self.ends][: max(room, 0)]
        if tokens:
            line.matcher.consume_tokens(tokens)
            line.tokens.extend(tokens)
            line.pending.extend(tokens)

    def _may_go_on(self, matcher: Any) -> bool:
        """Whether anything but the end of the answer is allowed."""
        bitmask = matcher.compute_bitmask()
        ends = sum(1 for end in self.ends if bitmask[end // 8] >> (end % 8) & 1)
        return sum(int(byte).bit_count() for byte in bitmask) > ends

    def _bias(self, matcher: Any, size: int, device: Any) -> torch.Tensor:
        """0 for an allowed token, minus infinity for any other."""
        import numpy as np
        import torch

        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        bits = np.pad(bits, (0, max(0, size - len(bits))))[:size]
        return torch.from_numpy(np.where(bits, 0.0, -math.inf).astype(np.float32)).to(device)

    def _pick(self, logits: torch.Tensor, generator: torch.Generator | None) -> int:
        import torch

        if generator is None:
            return int(logits.argmax())
        scaled = logits.cpu() / self.generation.temperature
        values, order = torch.sort(scaled, descending=True, stable=True)
        probabilities = torch.softmax(values, dim=-1)
        if self.generation.top_k:
            probabilities[self.generation.top_k :] = 0
        # A token stays while the mass before it is under top_p, so the most likely one always does.
        before = probabilities.cumsum(0) - probabilities
        probabilities[before >= self.generation.top_p] = 0
        return int(order[torch.multinomial(probabilities, 1, generator=generator)])

    def _generator(self, key: str) -> torch.Generator | None:
        if self.generation.temperature == 0:
            return None
        import torch

        seed = int.from_bytes(hashlib.sha256(f"{self.generation.seed}:{key}".encode()).digest()[:8], "big") >> 1
        return torch.Generator().manual_seed(seed)

    def _stopped(self, line: _Line) -> bool:
        text = self.tokenizer.decode(line.tokens, skip_special_tokens=True)
        return any(stop in text for stop in self.generation.stop)

    def _completion(self, line: _Line, reason: FinishReason, started: float) -> Completion:
        text = self.tokenizer.decode(line.tokens, skip_special_tokens=True)
        places = [text.find(stop) for stop in self.generation.stop if stop in text]
        if places:
            text = text[: min(places)]
        return Completion(
            text=text,
            finish_reason=reason,
            logprob=line.logprob,
            tokens_out=len(line.tokens),
            ttft_s=line.ttft_s,
            latency_s=time.perf_counter() - started,
        )
