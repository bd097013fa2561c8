"""Prefix cache: the key-value tensors of beginnings that prompts share, kept between calls within a limit of memory."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.errors import UsageError

if TYPE_CHECKING:
    import torch

LIMIT_VARIABLE = "WORKBENCH_PREFIX_CACHE_MB"
DEFAULT_LIMIT_MB = 512.0
# Prefixes shorter than this cost more to copy than to compute again.
MIN_PREFIX = 16

# An adapter, None for the model alone, and tokens.
_Key: TypeAlias = tuple[str | None, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a model has computed of some tokens. Nobody writes to these tensors: decoding works on copies.

    Attributes:
        tokens: the tokens, from the first of the prompt on.
        layers: keys and values of each layer, each of shape (1, heads, tokens, width).
        adapter: what computed them with the model; None is the model alone.
    """

    tokens: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    adapter: str | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bytes(self) -> int:
        """Memory that these tensors keep in use, which for a view is all of what it is a view of."""
        storages = [tensor.untyped_storage() for layer in self.layers for tensor in layer]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def cut(self, length: int) -> Prefix:
        """Its first `length` tokens, as views."""
        if length == len(self):
            return self
        layers = tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers)
        return replace(self, tokens=self.tokens[:length], layers=layers)

    def compact(self) -> Prefix:
        """The same with tensors that hold nothing else; those that do already are not copied."""
        return replace(self, layers=tuple((_compact(keys), _compact(values)) for keys, values in self.layers))


def model_cache(prefix: Prefix | None, rows: int, *, room: int = 0) -> Any:
    """A new cache for a batch of `rows`, each of which begins with `prefix`; it shares no memory with it.

    Args:
        room: how many tokens are going to be added. They are written in place where they fit, while a cache that grows is
            copied as a whole for every token.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    if room:
        from workbench.models.roomy_cache import RoomyLayer

        length = room + (len(prefix) if prefix is not None else 0)
        cache.layer_class_to_replicate = functools.partial(RoomyLayer, length)
    if prefix is not None:
        for number, (keys, values) in enumerate(prefix.layers):
            # `update` appends to what is there, which copies: the expanded views are only read.
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
    return cache


def compute_prefix(model: Any, cache: PrefixCache, tokens: Sequence[int], adapter: str | None = None) -> Prefix:
    """What the model computes of `tokens`, from the longest prefix in `cache` on; the result is kept there.

    Args:
        adapter: the one that is switched on in `model`.
    """
    import torch

    known = cache.find(tokens, adapter)
    start = len(known) if known else 0
    if known and start == len(tokens):
        return known
    computed = model_cache(known, 1)
    with torch.inference_mode():
        model(
            input_ids=torch.tensor([tokens[start:]], device=model.device),
            attention_mask=torch.ones((1, len(tokens)), dtype=torch.long, device=model.device),
            position_ids=torch.arange(start, len(tokens), device=model.device)[None],
            cache=computed,
            use_cache=True,
            logits_to_keep=1,
        )
    prefix = Prefix(tuple(tokens), tuple((layer.keys, layer.values) for layer in computed.layers), adapter)
    cache.put(prefix)
    return prefix


@dataclass(frozen=True)
class PrefixStats:
    """What a prefix cache holds and what it has been good for.

    Attributes:
        entries: prefixes held.
        bytes: memory that they take.
        limit_bytes: the most that they may take.
        hits: lookups that found tokens to reuse.
        misses: lookups that found none.
        reused_tokens: tokens, over all lookups, that did not go through the model again.
    """

    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    reused_tokens: int


class PrefixCache:
    """The prefixes that were used last, as many as fit. Safe to use from several threads.

    What an adapter has computed is found only for that adapter; the limit of memory holds for all together.

    Args:
        limit_bytes: the most memory that kept prefixes take; 0 keeps none.
        shortest: shared beginnings of fewer tokens are not worth the copy and count as none.
    """

    def __init__(self, limit_bytes: int, *, shortest: int = MIN_PREFIX) -> None:
        self.limit_bytes = limit_bytes
        self.shortest = shortest
        self._entries: OrderedDict[_Key, tuple[Prefix, int]] = OrderedDict()
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._reused = 0
        self._last_alone: _Key = (None, ())
        self._lock = threading.Lock()

    @property
    def stats(self) -> PrefixStats:
        with self._lock:
            return PrefixStats(
                len(self._entries), self._bytes, self.limit_bytes, self._hits, self._misses, self._reused
            )

    def worthwhile(self, rows: Sequence[list[int]], adapter: str | None = None) -> int:
        """How many tokens at the beginning of all rows a prefix should cover: 0, or at least `shortest`.

        That is what several rows share, leaving each at least one token. A row that comes alone shares with the prefixes
        held and with the row that came alone before it.
        """
        if not rows:
            return 0
        shared = min(shared_length(min(rows), max(rows)), min(len(row) for row in rows) - 1)
        with self._lock:
            kept = self._best((adapter, tuple(rows[0][:shared])))[0]
            if len(rows) == 1:
                alone = (adapter, tuple(rows[0]))
                again = min(_shared(alone, self._last_alone), shared) if self.limit_bytes else 0
                self._last_alone = alone
                shared = max(kept, again)
        # A few tokens that rows share by chance (the same first word) are not worth a pass and an entry of their own.
        return shared if shared - kept >= self.shortest else kept

    def find(self, tokens: Sequence[int], adapter: str | None = None) -> Prefix | None:
        """The longest beginning of `tokens` that is held, as views; None where that is shorter than `shortest`."""
        with self._lock:
            length, key = self._best((adapter, tuple(tokens)))
            if key is None:
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            self._reused += length
            return self._entries[key][0].cut(length)

    def put(self, prefix: Prefix) -> None:
        """Keep a prefix, in place of shorter ones that it begins with; those used longest ago go where room is short."""
        # The size of compact copies is known before they are made, so that nothing too large is copied.
        size = sum(tensor.numel() * tensor.element_size() for layer in prefix.layers for tensor in layer)
        with self._lock:
            wanted = (prefix.adapter, prefix.tokens)
            length, key = self._best(wanted)
            if key is not None and length == len(prefix):
                self._entries.move_to_end(key)
                return
            if size > self.limit_bytes:
                return
            for shorter in [key for key in self._entries if _shared(key, wanted) == len(key[1])]:
                self._drop(shorter)
            while self._bytes + size > self.limit_bytes:
                self._drop(next(iter(self._entries)))
            kept = prefix.compact()
            self._entries[wanted] = (kept, kept.bytes)
            self._bytes += kept.bytes

    def clear(self) -> None:
        """Let go of every prefix; the counts of uses stay."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            self._last_alone = (None, ())

    def _best(self, wanted: _Key) -> tuple[int, _Key | None]:
        best, found = 0, None
        for key in self._entries:
            length = _shared(key, wanted)
            # Of equal ones the last used is taken, which comes last.
            if length >= max(best, self.shortest):
                best, found = length, key
        return best, found

    def _drop(self, key: _Key) -> None:
        self._bytes -= self._entries.pop(key)[1]


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning of two sequences."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _shared(a: _Key, b: _Key) -> int:
    """As `shared_length`; the same tokens under another adapter have nothing in common."""
    return shared_length(a[1], b[1]) if a[0] == b[0] else 0


def limit_bytes() -> int:
    """The limit that the environment variable `WORKBENCH_PREFIX_CACHE_MB` sets (megabytes of 2**20 bytes), else 512 MB.

    Raises:
        UsageError: it is not a number of at least 0.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        # The largest float that is sure to be an int, so that `inf` means: no limit.
        megabytes = min(float(text) if text else DEFAULT_LIMIT_MB, 2.0**40)
    except ValueError:
        megabytes = -1.0
    if not megabytes >= 0:
        raise UsageError(f"{LIMIT_VARIABLE}={text} is no size in megabytes", hint="Give a number; 0 keeps no prefixes.")
    return int(megabytes * 2**20)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)
