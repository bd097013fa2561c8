"""What a fine-tuning takes, before it is begun: rows, tokens, steps, memory, time and disk; and what would fit instead."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from workbench.data.dataset import Dataset
from workbench.errors import OutOfMemoryError, RunError, require
from workbench.finetune.build import start_of
from workbench.finetune.checkpoints import KEPT
from workbench.finetune.examples import open_splits
from workbench.finetune.inputs import Examples, learned, make_examples, sequences
from workbench.finetune.memory import (
    MB,
    MemoryEstimate,
    available_mb,
    base_on_meta,
    estimate_memory,
    give_back_at_once,
    quantization,
)
from workbench.finetune.order import look_every, steps_of, training_order
from workbench.finetune.pilot import Pilot, run_pilot
from workbench.finetune.quiet import quiet
from workbench.finetune.recipe import FinetuneRecipe
from workbench.html import callout, table
from workbench.models.adapters import AdapterFolder
from workbench.models.store import find_model
from workbench.models.transformers_engine import best_device
from workbench.workspace import Layout

# How many times what it uses a training may hold on to where memory is not handed back at once; see `give_back_at_once`.
HELD = 5

_T = TypeVar("_T")


@dataclass(frozen=True)
class Alternative:
    """Settings with which a training would fit, and what it would take then."""

    settings: Mapping[str, Any]
    memory: MemoryEstimate

    @property
    def named(self) -> str:
        """The settings as a recipe writes them."""
        return ", ".join(f"{name}: {str(value).lower()}" for name, value in self.settings.items())

    def __str__(self) -> str:
        return f"{self.named} ({self.memory.training:,.0f} MB)"


@dataclass(frozen=True)
class FinetunePlan:
    """What a fine-tuning takes.

    Attributes:
        train_rows, dev_rows: that take part. too_long: train rows above the limit; dropped: those of them left out.
        tokens: of the rows of all steps, without padding; learned of them are of answers; padded is with padding.
        memory: at the peak, and available_mb what is free besides what this process holds.
        disk_mb: the most that checkpoints take at once, the adapter included.
        fits: whether memory and disk suffice. alternatives: settings with which memory would; empty where it does.
        pilot: None where none was run.
    """

    name: str
    model: str
    device: str
    quantization: str
    train_rows: int
    dev_rows: int
    too_long: int
    dropped: int
    steps: int
    evaluations: int
    batch_size: int
    micro_batch: int
    tokens: int
    learned: int
    padded: int
    memory: MemoryEstimate
    available_mb: float
    disk_mb: float
    free_disk_mb: float
    alternatives: tuple[Alternative, ...] = ()
    pilot: Pilot | None = None

    @property
    def fits(self) -> bool:
        return self._memory_fits and self.disk_mb <= self.free_disk_mb

    @property
    def _memory_fits(self) -> bool:
        return self.memory.training <= self.available_mb

    @property
    def sentence(self) -> str:
        """Whether it fits, in words."""
        if not self._memory_fits:
            return (
                f"{self.name} does not fit: training would take {self.memory.training:,.0f} MB beside what is in use, "
                f"and {self.available_mb:,.0f} MB are free"
            )
        if not self.fits:
            return (
                f"{self.name} does not fit: its checkpoints would take {self.disk_mb:,.0f} MB of disk, "
                f"and {self.free_disk_mb:,.0f} MB are free"
            )
        return f"{self.name} fits: {self.memory.training:,.0f} MB of {self.available_mb:,.0f} MB that are free"

    @property
    def way_out(self) -> str:
        """What would fit, in words."""
        if self._memory_fits:
            return "Make room on the disk."
        if self.alternatives:
            return "It would fit with " + "; or ".join(map(str, self.alternatives)) + "."
        return "Nothing here would make it fit: use a smaller model, lower max_length, or close other programs."

    @property
    def verdict(self) -> str:
        """Whether it fits, and what would where it does not."""
        return f"{self.sentence}." if self.fits else f"{self.sentence}. {self.way_out}"

    def require_fit(self) -> None:
        """Refuse what does not fit.

        Raises:
            OutOfMemoryError: memory does not suffice; the hint names settings that would.
            RunError: the disk does not.
        """
        if not self._memory_fits:
            raise OutOfMemoryError(self.sentence, hint=self.way_out)
        if not self.fits:
            raise RunError(self.sentence, hint=self.way_out)

    @property
    def tight(self) -> bool:
        """Whether memory has to be handed back to the system at once, which takes time, for the estimate to hold."""
        return self.device == "cpu" and self.available_mb < HELD * self.memory.training

    def prepare(self) -> None:
        """Make this process ready for the training.

        Raises:
            OutOfMemoryError, RunError: as `require_fit`.
        """
        self.require_fit()
        if self.tight:
            give_back_at_once()

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        fields["memory"] = self.memory.to_json()
        fields["alternatives"] = [
            {"settings": dict(a.settings), "memory": a.memory.to_json()} for a in self.alternatives
        ]
        return {**fields, "fits": self.fits, "sentence": self.sentence}

    def _lines(self) -> Iterator[tuple[str, str]]:
        dropped = f" ({self.too_long} above the limit, {self.dropped} of them left out)" if self.too_long else ""
        yield (
            "model",
            f"{self.model}, {'fp32 or bf16' if self.quantization == 'none' else self.quantization}, on {self.device}",
        )
        yield "examples", f"{self.train_rows} train{dropped}, {self.dev_rows} dev"
        yield (
            "tokens",
            f"{self.tokens:,} in all, {self.learned:,} of them learned; padding adds {self.padded / self.tokens - 1:.0%}",
        )
        pieces = f" in pieces of {self.micro_batch}" if self.micro_batch < self.batch_size else ""
        yield "steps", f"{self.steps} of {self.batch_size} rows{pieces}, {self.evaluations} looks at the dev split"
        parts = {name: value for name, value in self.memory.to_json().items() if name not in ("peak", "loading")}
        shown = " + ".join(f"{name} {value:,.0f}" for name, value in parts.items())
        yield "memory", f"{self.memory.peak:,.0f} MB at the peak: {shown}"
        if self.memory.loading + self.memory.framework >= self.memory.peak:
            yield "", f"the peak is while the weights are read: {self.memory.loading:,.0f} MB"
        if self.device == "cpu":
            yield (
                "",
                "handed back at once, which takes time, since little is free"
                if self.tight
                else (f"while {HELD} times as much is free, as here, more is held on to for speed"),
            )
        if self.pilot is not None:
            total = self.pilot.train_s + self.pilot.evaluation_s
            pace = f"{self.pilot.tokens_per_s:.0f} tokens/s in a pilot of {self.pilot.steps} steps"
            yield "time", f"{_duration(total)}, {_duration(self.pilot.evaluation_s)} of it the dev split; {pace}"
        yield "disk", f"{self.disk_mb:,.0f} MB for checkpoints, {self.free_disk_mb:,.0f} MB free"

    def __str__(self) -> str:
        lines = [f"{name:<9} {text}" for name, text in self._lines()]
        return "\n".join([*lines, "", self.verdict])

    def _repr_html_(self) -> str:
        return callout(self.verdict, "ok" if self.fits else "bad") + table(["", self.name], self._lines())


def plan(
    layout: Layout, recipe: FinetuneRecipe, *, pilot: bool = True, device: str | None = None, show_progress: bool = True
) -> FinetunePlan:
    """What training with the recipe takes. Nothing is kept of it.

    Args:
        pilot: load the model and time two steps after one to warm up, where it fits; without it no time is told.

    Raises:
        DataError: a split is empty, has rows without a target or too long, or holds one class.
        NotFoundError, ModelError, UsageError: no such data set, split or model, or settings that do not fit it.
    """
    parts = open_splits(layout, recipe)
    device = device or best_device(require("torch", extra="finetune"))
    examples = _examples(recipe, parts, device)
    settings = recipe.settings
    micro = settings.micro_batch or settings.batch_size
    steps = steps_of(len(examples.train), settings.batch_size, settings.epochs, settings.max_steps)
    lengths, counted = examples.lengths, [learned(row) for row in examples.train]
    order = training_order(lengths, settings.batch_size, steps, settings.seed)
    every = look_every(steps, settings.eval_every)
    start = start_of(layout, recipe)
    memory = _memory(recipe, examples, order, device, start)
    free = available_mb(device)
    place = layout.root / ".workbench"
    found = FinetunePlan(
        name=recipe.name,
        model=recipe.model,
        device=device,
        quantization=quantization(recipe, device),
        train_rows=len(examples.train),
        dev_rows=len(examples.dev),
        too_long=len(examples.too_long),
        dropped=0 if settings.packing else len(parts["train"]) - len(examples.train),
        steps=steps,
        evaluations=-(-steps // every),
        batch_size=settings.batch_size,
        micro_batch=micro,
        tokens=sum(lengths[row] for row in order),
        learned=sum(counted[row] for row in order),
        padded=_padded([examples.train[row] for row in order], 1 if settings.packing else micro),
        memory=memory,
        available_mb=free,
        # Weights and two moments each: those kept, the best, and the one that is being written; then the adapter.
        disk_mb=(KEPT + 2) * (memory.adapter + memory.optimizer) + memory.adapter,
        free_disk_mb=shutil.disk_usage(place if place.is_dir() else layout.root).free / MB,
    )
    if memory.training > free:
        return dataclasses.replace(found, alternatives=_alternatives(recipe, examples, order, device, free, start))
    if not pilot:
        return found
    if found.tight:
        give_back_at_once()
    return dataclasses.replace(
        found,
        pilot=run_pilot(
            layout,
            recipe,
            parts,
            device,
            micro=micro,
            tokens=found.tokens,
            evaluations=found.evaluations,
            show_progress=show_progress,
        ),
    )


def _examples(recipe: FinetuneRecipe, parts: Mapping[str, Dataset], device: str) -> Examples:
    transformers = require("transformers", extra="finetune")
    folder = find_model(recipe.model)
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        return make_examples(recipe, parts, base_on_meta(folder, device), tokenizer)


def _memory(
    recipe: FinetuneRecipe, examples: Examples, order: Sequence[int], device: str, start: AdapterFolder | None
) -> MemoryEstimate:
    """By the first rows of the first step, which are the longest there are."""
    micro = recipe.settings.micro_batch or recipe.settings.batch_size
    return estimate_memory(recipe, [examples.train[row] for row in order[:micro]], device, start)


def _alternatives(
    recipe: FinetuneRecipe,
    examples: Examples,
    order: Sequence[int],
    device: str,
    free: float,
    start: AdapterFolder | None,
) -> tuple[Alternative, ...]:
    """For each way to take less, the settings closest to the recipe's that fit."""
    settings = recipe.settings
    micro = settings.micro_batch or settings.batch_size
    smaller: list[dict[str, Any]] = [
        {"micro_batch": size} for size in range(micro - 1, 0, -1) if settings.batch_size % size == 0
    ]
    kinds = [smaller]
    if not settings.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True}
        kinds.append([checkpointing, *(change | checkpointing for change in smaller)])
    if quantization(recipe, device) != "nf4":
        four_bit = {"quantization": "nf4"}
        least = {"micro_batch": 1, "gradient_checkpointing": True}
        kinds.append([four_bit, *(change | four_bit for change in smaller), least | four_bit])

    def fitting(changes: Mapping[str, Any]) -> Alternative | None:
        memory = _memory(recipe.with_settings(**changes), examples, order, device, start)
        return Alternative(changes, memory) if memory.training <= free else None

    return tuple(found for kind in kinds if kind and (found := _first(kind, fitting)) is not None)


def _first(kind: Sequence[Mapping[str, Any]], fitting: Callable[[Mapping[str, Any]], _T | None]) -> _T | None:
    """The first of settings, each of which takes less than the one before, that fits; found with few tries."""
    low, high, found = 0, len(kind) - 1, fitting(kind[-1])
    while found is not None and low < high:
        middle = (low + high) // 2
        tried = fitting(kind[middle])
        if tried is None:
            low = middle + 1
        else:
            high, found = middle, tried
    return found


def _padded(rows: Sequence[Mapping[str, Any]], micro: int) -> int:
    """Tokens of the rows when `micro` of them at a time are filled up to the longest."""
    pieces = [
        [len(sequence) for row in rows[start : start + micro] for sequence in sequences(row)]
        for start in range(0, len(rows), micro)
    ]
    return sum(len(piece) * max(piece) for piece in pieces)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
