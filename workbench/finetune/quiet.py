"""What the training libraries say of themselves, kept from the user; errors still rise."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from workbench.errors import require
from workbench.models.store import stay_offline


@contextlib.contextmanager
def versions_apart() -> Iterator[None]:
    """Without the notices that the libraries give one another of what a coming version will call differently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|accelerate)\.")
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and notices of transformers, datasets and trl inside."""
    stay_offline()
    transformers = require("transformers", extra="finetune")
    datasets = require("datasets", extra="finetune")
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    dataset_bars = datasets.utils.logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("trl", "accelerate", "peft")]
    levels = [logger.level for logger in loggers]
    log.set_verbosity_error()
    log.disable_progress_bar()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with versions_apart():
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
        if dataset_bars:
            datasets.enable_progress_bars()
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
