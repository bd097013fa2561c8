"""The loss of a batch, without the work that does not change it.

Of a small model that learns short answers to long questions, most time goes into two things that can be had for less. The
output layer only matters where a token is learned. And where the rows of a batch begin alike (a system text, few-shot
examples), that beginning goes through the model once, its gradient included: its keys and values are shared by all rows.
"""

from __future__ import annotations

import inspect
from typing import Any

# Shorter beginnings are not worth a pass of their own.
_WORTHWHILE = 16
# Logits of one batch: 512 MB of fp32. Above it, trl's loss, which never holds all of them, is the better one.
_MOST_LOGITS = 1 << 27


def completion_loss(model: Any, inputs: dict[str, Any], *, share: bool) -> tuple[Any, Any] | None:
    """Negative log-likelihood of the learned tokens of each row, in nats, and how many there are, both of shape (rows,).

    Args:
        inputs: `input_ids`, `attention_mask` (padding on the right) and `labels`, each of shape (rows, tokens).
        share: let the beginning that all rows have in common go through the model once.

    Returns: None where the model or the batch does not suit this way.
    """
    import torch
    from transformers import DynamicCache

    targets = inputs["labels"][:, 1:]
    learned = targets != -100
    kept = learned.any(dim=0).nonzero().squeeze(-1)
    if not len(kept) or not _keeps_logits(model) or len(targets) * len(kept) * _vocabulary(model) > _MOST_LOGITS:
        return None
    shared = _shared(inputs["input_ids"], inputs.get("attention_mask"), int(kept[0])) if share else 0
    if shared:
        cache = DynamicCache(config=model.config)
        model(input_ids=inputs["input_ids"][:1, :shared], cache=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(targets))
        logits = model(
            input_ids=inputs["input_ids"][:, shared:],
            attention_mask=inputs["attention_mask"],
            cache=cache,
            use_cache=True,
            logits_to_keep=kept - shared,
        ).logits
    else:
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**{**rest, "use_cache": False}, logits_to_keep=kept).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets[:, kept].flatten(), ignore_index=-100, reduction="none"
    )
    return losses.view(len(targets), -1).sum(dim=1), learned.sum(dim=1)


def _shared(tokens: Any, mask: Any, most: int) -> int:
    """Tokens that all rows begin with, at most `most`; 0 where they are not worth it."""
    if mask is None or len(tokens) < 2:
        return 0
    alike = (tokens == tokens[:1]).all(dim=0) & mask.bool().all(dim=0)
    shared = min(int(alike.long().cumprod(dim=0).sum()), most)
    return shared if shared >= _WORTHWHILE else 0


def _keeps_logits(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)
