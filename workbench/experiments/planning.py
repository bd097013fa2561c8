"""Planning: a pilot on a few rows, and what follows from it for the whole experiment."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

from workbench.experiments.power import Plan, smallest_difference
from workbench.models.asking import Asking
from workbench.models.response_cache import response_cache
from workbench.pipeline.pipeline import Answer
from workbench.progress import Progress

if TYPE_CHECKING:
    from workbench.experiments.experiment import Experiment

# Before any data: two prompts that disagree on three rows of ten, or whose scores differ by 0.3 in standard deviation.
ASSUMED_DISCORDANCE = 0.3
ASSUMED_SD = 0.3
RESOURCE_SCORERS = frozenset({"latency", "tokens", "cost"})


def make_plan(experiment: Experiment, pilot: int, random: Random, progress: Progress) -> Plan:
    """Ask `pilot` rows of every variant and extrapolate. The time is an upper estimate: larger batches are faster a row."""
    rows = random.sample(experiment.rows, pilot)
    asked = len(experiment.rows) * experiment.repeats
    seconds = cost = 0.0
    tokens_in = tokens_out = 0.0
    # The pilot measures the pace of real answers, and leaves them for the run.
    cache = response_cache(experiment.layout)
    rules = Asking(cache, read=False)
    for number, (name, pipeline) in enumerate(experiment.variants.items(), 1):
        engine = rules.through(pipeline.engine(experiment.layout.settings))
        started = time.perf_counter()
        answers: dict[int, Answer] = dict(
            pipeline.answers(engine, [row.inputs for row in rows], seed_keys=[f"{row.id}:0" for row in rows])
        )
        spent = time.perf_counter() - started
        # What is done once a variant (the shared prefix) must not be multiplied by the rows.
        once = min((answer.completion.queue_s for answer in answers.values()), default=0.0)
        seconds += once + (spent - once) / pilot * asked
        completions = [answer.completion for answer in answers.values()]
        tokens_in += sum(c.tokens_in for c in completions) / pilot * asked
        tokens_out += sum(c.tokens_out for c in completions) / pilot * asked
        cost += sum(c.cost_usd or 0.0 for c in completions) / pilot * asked
        progress.update(number, name)
    if cache is not None:
        cache.close()
    groups = {row.group for row in experiment.rows if row.group is not None}
    independent = len(groups) or len(experiment.rows)
    quality = [scorer for scorer in experiment.scorers if scorer.name not in RESOURCE_SCORERS]
    comparisons = max(1, (len(experiment.variants) - 1) * len(quality))
    smallest = {
        scorer.name: smallest_difference(
            independent,
            "continuous" if experiment.repeats > 1 else scorer.kind,
            discordance=ASSUMED_DISCORDANCE,
            sd=ASSUMED_SD,
            comparisons=comparisons,
        )
        for scorer in quality
    }
    assumptions = (
        f"Pace and tokens are from a pilot of {pilot} rows a variant; larger batches are a little faster.",
        (
            f"The smallest difference is for 80% power at a joint level of 95% over {comparisons} "
            f"comparison{'s' if comparisons > 1 else ''}, if the variants disagree on {ASSUMED_DISCORDANCE:.0%} of the rows "
            f"(for scores with more than two values: differ by {ASSUMED_SD} in standard deviation)."
        ),
    )
    return Plan(
        calls=asked * len(experiment.variants),
        tokens_in=round(tokens_in),
        tokens_out=round(tokens_out),
        minutes=seconds / 60,
        cost_usd=cost,
        rows=len(experiment.rows),
        clusters=len(groups) or None,
        smallest_difference=smallest,
        assumptions=assumptions,
    )
