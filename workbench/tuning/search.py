"""Which configurations are judged on how many questions: all of them on all, or the promising ones on more and more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

from workbench.errors import require
from workbench.tuning.space import Configuration, TuneSpace

Strategy = Literal["auto", "grid", "halving", "optuna"]
# Up to here every configuration is judged.
GRID = 64
# Successive halving begins with this many questions, and keeps one of three configurations at each step.
FIRST_QUESTIONS = 24
KEPT = 3
# Optuna is asked at most so many times for each trial.
ASKED = 4

# The mean of the measure for a configuration on the first n questions of a fixed random order; None: nothing to find.
Judge = Callable[[Configuration, int], float | None]


def search(
    space: TuneSpace, judge: Judge, questions: int, *, strategy: Strategy = "auto", trials: int = GRID, seed: int = 0
) -> list[tuple[Configuration, float, int]]:
    """Configurations with their mean and the number of questions it rests on, the best first.

    `grid` judges all on every question; `halving` (Jamieson and Talwalkar 2016) all on a few and the better third on three
    times as many, until the last ones have seen every question; `optuna` lets TPE (Bergstra et al. 2011) choose `trials`
    of them. `auto` is `grid` up to 64 configurations, and `optuna` beyond.
    """
    configurations = space.configurations()
    if strategy == "auto":
        strategy = "grid" if len(configurations) <= GRID else "optuna"
    if strategy == "halving":
        return halving(configurations, judge, questions)
    chosen = configurations if strategy == "grid" else None
    if chosen is not None:
        found = [(configuration, judge(configuration, questions)) for configuration in chosen]
        return _ordered([(configuration, value, questions) for configuration, value in found if value is not None])
    return tpe(configurations, judge, questions, trials=trials, seed=seed)


def halving(
    configurations: Sequence[Configuration], judge: Judge, questions: int
) -> list[tuple[Configuration, float, int]]:
    """Successive halving over questions. Those that fall out keep the mean of the questions they saw."""
    left, seen = list(configurations), min(FIRST_QUESTIONS, questions)
    done: list[tuple[Configuration, float, int]] = []
    while True:
        judged = _ordered([(c, value, seen) for c in left if (value := judge(c, seen)) is not None])
        if seen >= questions or len(judged) <= 1:
            if judged and seen < questions:
                best = judged[0][0]
                judged = [(best, judge(best, questions) or 0.0, questions), *judged[1:]]
            return [*judged, *_ordered(done)]
        kept = max(1, math.ceil(len(judged) / KEPT))
        done += judged[kept:]
        left = [configuration for configuration, _, _ in judged[:kept]]
        seen = min(questions, seen * KEPT)


def tpe(
    configurations: Sequence[Configuration], judge: Judge, questions: int, *, trials: int, seed: int
) -> list[tuple[Configuration, float, int]]:
    """Optuna's TPE over the settings that vary."""
    optuna = require("optuna", extra="rag")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    flat = [_flat(configuration) for configuration in configurations]
    axes = {
        name: list(dict.fromkeys(settings[name] for settings in flat))
        for name in flat[0]
        if len({settings[name] for settings in flat}) > 1
    }
    by_values = {tuple(settings[name] for name in axes): c for settings, c in zip(flat, configurations, strict=True)}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    found: dict[str, tuple[Configuration, float, int]] = {}
    chance = random.Random(seed)
    # A configuration that is chosen again costs nothing, and is no trial; asking for new ones must end all the same.
    for _ in range(ASKED * trials):
        if len(found) >= min(trials, len(configurations)):
            break
        trial = study.ask()
        values: tuple[Any, ...] = tuple(trial.suggest_categorical(name, choices) for name, choices in axes.items())
        configuration = by_values.get(values)
        if configuration is None:
            # A combination that another one stands for, such as a weight where nothing is weighed: the nearest of those.
            near = sorted(
                by_values, key=lambda known: (-sum(a == b for a, b in zip(known, values, strict=True)), known != values)
            )
            best = sum(a == b for a, b in zip(near[0], values, strict=True))
            alike = [known for known in near if sum(a == b for a, b in zip(known, values, strict=True)) == best]
            configuration = by_values[chance.choice(alike)]
        if configuration.digest not in found:
            value = judge(configuration, questions)
            if value is None:
                continue
            found[configuration.digest] = (configuration, value, questions)
        study.tell(trial, found[configuration.digest][1])
    return _ordered(list(found.values()))


def _flat(configuration: Configuration) -> dict[str, str]:
    """Every setting by its dotted name, as text."""
    found: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else key)
        else:
            found[name] = repr(value)

    walk(configuration.model_dump(mode="json"), "")
    return found


def _ordered(found: list[tuple[Configuration, float, int]]) -> list[tuple[Configuration, float, int]]:
    return sorted(found, key=lambda item: (-item[1], item[0].label))
