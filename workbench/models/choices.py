"""Choices: the log-probability of every answer of a closed set, in one pass over the question."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError
from workbench.models.engine import Completion
from workbench.models.prefix_cache import Prefix, model_cache

if TYPE_CHECKING:
    import numpy as np
    import torch

# Attention implementations that take a mask of which token sees which.
MASKED_ATTENTION = frozenset({"sdpa", "eager"})
ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})


class ChoiceScorer:
    """Scores a closed set of answers.

    The tokens of all answers stand side by side after the question. An attention mask lets each answer see the question
    and itself only, and the position numbers of each start again right after the question, so that the model computes
    for each answer what it would compute for it alone (tree attention: Miao et al., SpecInfer, 2024). Models whose layers
    cannot be masked like that get one pass for each answer.

    Args:
        ends: tokens that end an answer.
        texts: the answers.
        choices: the tokens of each answer, at least one each.
    """

    def __init__(self, model: Any, ends: Iterable[int], texts: Sequence[str], choices: Sequence[Sequence[int]]) -> None:
        if not all(choices):
            raise ModelError("a choice has no tokens in this model", hint="Choose other words for it.")
        self.model = model
        self.ends = sorted(ends)
        self.texts = list(texts)
        self.choices = [list(choice) for choice in choices]

    @property
    def width(self) -> int:
        """Tokens that the choices add to each row."""
        return sum(len(choice) for choice in self.choices)

    def complete(self, prefix: Prefix | None, suffixes: Sequence[Sequence[int]]) -> list[Completion]:
        """The most probable choice for each row, the first of equal ones."""
        started = time.perf_counter()
        scores = self.score(prefix, suffixes)
        seconds = time.perf_counter() - started
        return [
            Completion(
                text=self.texts[best],
                finish_reason="stop",
                logprob=float(row[best]),
                tokens_out=len(self.choices[best]),
                ttft_s=seconds,
                latency_s=seconds,
            )
            for row, best in zip(scores, scores.argmax(axis=1).tolist(), strict=True)
        ]

    def score(self, prefix: Prefix | None, suffixes: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Natural log-probabilities of each choice and the end after it, of shape (rows, choices).

        Args:
            suffixes: the prompt tokens of each row after `prefix`, at least one.
        """
        import numpy as np
        import torch

        longest = (len(prefix) if prefix else 0) + max(len(suffix) for suffix in suffixes) + self.width
        groups = [self.choices] if self._maskable(longest) else [[choice] for choice in self.choices]
        with torch.inference_mode():
            return np.concatenate([self._score(prefix, suffixes, group) for group in groups], axis=1)

    def _score(
        self, prefix: Prefix | None, suffixes: Sequence[Sequence[int]], choices: list[list[int]]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        import torch

        device = self.model.device
        rows, known, width = len(suffixes), len(prefix) if prefix else 0, max(len(suffix) for suffix in suffixes)
        answer = torch.tensor([token for choice in choices for token in choice])
        owner = torch.tensor([number for number, choice in enumerate(choices) for _ in choice])
        place = torch.tensor([place for choice in choices for place in range(len(choice))])

        # Questions end at the same column, so that the logits that matter are the last ones of every row.
        ids = torch.zeros((rows, width + len(answer)), dtype=torch.long)
        positions = torch.zeros_like(ids)
        real = torch.zeros((rows, width), dtype=torch.bool)
        for row, suffix in enumerate(suffixes):
            count, end = len(suffix), known + len(suffix)
            ids[row, width - count : width] = torch.tensor(suffix)
            positions[row, width - count : width] = torch.arange(known, end)
            real[row, width - count :] = True
            positions[row, width:] = end + place
        ids[:, width:] = answer
        mask = self._tree(known, real, owner) if len(choices) > 1 else _causal(known, real, len(answer))
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            cache=model_cache(prefix, rows),
            use_cache=True,
            logits_to_keep=len(answer) + 1,
        ).logits
        # Logits 0 follow the question, logits i + 1 follow token i of the choices.
        before = torch.where(place == 0, 0, torch.arange(len(answer))).to(device)
        after = torch.tensor([len(choice) for choice in choices], device=device).cumsum(0)
        answer, ends = answer.to(device), torch.tensor(self.ends, device=device)
        scores = torch.zeros((rows, len(choices)), dtype=torch.float64)
        for row in range(rows):
            # Row by row, since the softmax over a large vocabulary takes as much memory again as the logits.
            logprobs = torch.log_softmax(logits[row].float(), dim=-1)
            scores[row] = logprobs[after][:, ends].logsumexp(-1).cpu()
            scores[row].index_add_(0, owner, logprobs[before, answer].cpu().double())
        return scores.numpy()

    def _tree(self, known: int, real: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """What is added to attention scores: 0 where a token is seen; of shape (rows, 1, new tokens, all tokens)."""
        import torch

        rows, width = real.shape
        size = width + len(owner)
        earlier = torch.ones((size, size), dtype=torch.bool).tril()
        seen = earlier.expand(rows, -1, -1).clone()
        seen[:, :, :width] &= real[:, None, :]
        seen[:, width:, width:] &= owner[:, None] == owner[None, :]
        # Padding sees itself: a token that sees nothing has no softmax.
        seen |= torch.eye(size, dtype=torch.bool)
        seen = torch.cat([torch.ones((rows, size, known), dtype=torch.bool), seen], dim=-1)
        dtype = self.model.get_input_embeddings().weight.dtype
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]

    def _maskable(self, length: int) -> bool:
        """Whether every layer attends to all `length` tokens unless a mask says otherwise."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        return (
            self.model.config._attn_implementation in MASKED_ATTENTION
            and set(getattr(config, "layer_types", None) or ()) <= ATTENTION_LAYERS
            and (not window or length <= window)
        )


def _causal(known: int, real: torch.Tensor, answer: int) -> torch.Tensor:
    """The ordinary mask of one choice: 1 for a token that is no padding, of shape (rows, all tokens)."""
    import torch

    rows = len(real)
    return torch.cat([torch.ones((rows, known)), real, torch.ones((rows, answer))], dim=1).long()
