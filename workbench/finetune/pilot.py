"""The pilot: a few steps of the real training, timed, of which nothing is kept."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.data.dataset import Dataset
from workbench.errors import WorkbenchWarning
from workbench.events.journal import JournalWriter, iterate_journal
from workbench.finetune import train
from workbench.finetune.inputs import sequences
from workbench.finetune.quiet import quiet
from workbench.finetune.recipe import FinetuneRecipe
from workbench.finetune.record import Training
from workbench.models.store import find_model
from workbench.models.transformers_engine import out_of_memory
from workbench.progress import progress
from workbench.workspace import Layout, Settings

# Steps of the pilot: one to warm up, on the longest rows, and two that are timed.
PILOT_STEPS = 3
# Rows of the dev split that the pilot looks at.
PILOT_DEV = 16


@dataclass(frozen=True)
class Pilot:
    """What the first steps of the real training showed.

    Attributes:
        tokens_per_s: of rows in steps, without padding. train_s, evaluation_s: of the whole training, all its looks at the
            dev split included in the second.
    """

    steps: int
    tokens_per_s: float
    train_s: float
    evaluation_s: float


def run_pilot(
    layout: Layout,
    recipe: FinetuneRecipe,
    parts: Mapping[str, Dataset],
    device: str,
    *,
    micro: int,
    tokens: int,
    evaluations: int,
    show_progress: bool,
) -> Pilot | None:
    """The first steps of the training, by its own code, in a folder that is thrown away; None where memory ran out.

    Args:
        micro: rows at once. tokens, evaluations: of the whole training, to which the pace is carried over.
    """
    short = recipe.with_settings(max_steps=PILOT_STEPS, eval_every=PILOT_STEPS)
    with tempfile.TemporaryDirectory(prefix="workbench-pilot-") as folder, quiet():
        training = Training(Layout(Path(folder), Settings()), "pilot")
        session = train.Session(layout, short, training, parts, find_model(recipe.model).digest, device)
        with JournalWriter(training.journal) as journal, progress(PILOT_STEPS, "Pilot", show=show_progress) as bar:
            model, tokenizer = session.load()
            assert session.examples is not None
            dev = session.examples.dev
            looked = dev[:: -(-len(dev) // PILOT_DEV)]
            session.examples = dataclasses.replace(session.examples, dev=looked)
            try:
                session.attempt(model, tokenizer, micro, None, journal, bar, None)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                warnings.warn("memory ran out in the pilot, so no time is told", WorkbenchWarning, stacklevel=4)
                return None
        rows = [row for row in iterate_journal(training.journal) if row is not None]
    timed = [row for row in rows if row["tokens_per_s"]]
    pace = statistics.median(row["tokens_per_s"] for row in timed[1:] or timed)
    *_, stepped, evaluated = rows
    share = _tokens(dev) / _tokens(looked)
    seconds = (datetime.fromisoformat(evaluated["at"]) - datetime.fromisoformat(stepped["at"])).total_seconds()
    return Pilot(len(timed), round(pace, 2), round(tokens / pace, 3), round(seconds * share * evaluations, 3))


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(sequence) for row in rows for sequence in sequences(row))
