"""What happens beside the steps: metrics are written down and shown, the watchdog looks, patience runs out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from workbench.errors import require
from workbench.events.journal import JournalWriter
from workbench.experiments.origin import now
from workbench.finetune.record import METRICS, Training, peak_memory_mb
from workbench.finetune.watchdog import Watchdog
from workbench.progress import Progress

# Seconds between two looks of whoever watches.
WATCH_EVERY_S = 2.0

Watch = Callable[[pl.DataFrame], None]


class Recorder:
    """A callback of transformers' trainer; `callback` makes it one.

    Args:
        journal: None in a process that is not the main one of several.

    Attributes:
        seconds: that steps took, without the dev split and saving. tokens: trained on meanwhile.
        ends: `patience` once that has run out.
    """

    def __init__(
        self,
        training: Training,
        journal: JournalWriter | None,
        bar: Progress,
        *,
        order: Sequence[int],
        lengths: Sequence[int],
        batch_size: int,
        patience: int,
        device: str,
        watch: Watch | None,
        watchdog: Watchdog,
        stop: Callable[[str], None],
    ) -> None:
        self._training = training
        self._journal = journal
        self._bar = bar
        self._lengths = list(itertools.accumulate((lengths[row] for row in order), initial=0))
        self._batch = batch_size
        self._patience = patience
        self._device = device
        self._watch = watch
        self._watched = 0.0
        self._watchdog = watchdog
        self._stop = stop
        self._began = 0.0
        self._last_s = 0.0
        self._note = ""
        self.seconds = 0.0
        self.tokens = 0

    def tokens_at(self, step: int) -> int:
        """Tokens of the rows of all steps up to this one, without padding."""
        return self._lengths[step * self._batch]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last_s = time.perf_counter() - self._began
        self.seconds += self._last_s
        self.tokens += self.tokens_at(state.global_step) - self.tokens_at(state.global_step - 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        step = state.global_step
        if "loss" in logs:
            self._watchdog.check(step, logs["loss"])
            tokens = self.tokens_at(step) - self.tokens_at(step - 1)
            speed = tokens / self._last_s if self._last_s else None
            memory = peak_memory_mb(self._device)
            self._append(
                step,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                tokens_per_s=speed,
                memory_mb=memory,
            )
            self._note = f"loss {logs['loss']:.3f} · {speed or 0:.0f} tokens/s · {memory / 1024:.1f} GB"
            self._bar.update(step, self._note)
        elif "eval_loss" in logs:
            self._watchdog.check_dev(step, logs["eval_loss"])
            self._append(step, dev_loss=logs["eval_loss"], dev_accuracy=logs.get("eval_accuracy"))
            self._bar.update(step, f"{self._note} · dev loss {logs['eval_loss']:.3f}")
        self._show(final="eval_loss" in logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        since = len(losses) - 1 - losses.index(min(losses))
        if since >= self._patience and state.global_step < state.max_steps:
            self._stop("patience")
            control.should_training_stop = True
        return control

    def _append(self, step: int, **values: float | None) -> None:
        if self._journal is None:
            return
        empty = dict.fromkeys(name for name in METRICS if name not in ("step", "tokens", "at"))
        self._journal.append([{"step": step, **empty, "tokens": self.tokens_at(step), "at": now(), **values}])
        self._journal.flush()

    def _show(self, *, final: bool) -> None:
        if self._watch is not None and (final or time.perf_counter() - self._watched > WATCH_EVERY_S):
            self._watch(self._training.frame())
            self._watched = time.perf_counter()


def callback(recorder: Recorder) -> Any:
    """The recorder as a callback of transformers' trainer."""
    base = require("transformers", extra="finetune").TrainerCallback

    def passed_on(name: str) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: getattr(recorder, name)(*args, **kwargs)

    events = ("on_step_begin", "on_step_end", "on_log", "on_evaluate")
    return type("WorkbenchCallback", (base,), {name: passed_on(name) for name in events})()
