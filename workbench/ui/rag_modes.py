"""Questions under one configuration: which passages dense, sparse and hybrid search have in its chunks, and how far down.

It is the dev questions, which the choice was made on, that are looked at. The test questions stay unseen, so that they can
decide again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from workbench.errors import NotFoundError
from workbench.progress import progress as progress_bar
from workbench.retrieval.copies import with_copies
from workbench.retrieval.metrics import is_relevant
from workbench.retrieval.search_settings import Mode
from workbench.retrieval.types import Chunk, Question, Span
from workbench.tuning.evaluate import Evaluator, Judged

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.retrieval.corpus import Corpus
    from workbench.tuning.space import Configuration
    from workbench.tuning.tune import TuneResult

MODES: tuple[Mode, ...] = get_args(Mode)
# How far down a ranking evidence is looked for, so that what was missed says by how much.
DEPTH = 50
# How `marimo.ui.table` shows `ByMode.frame`: one row is picked; widths are pixels.
TABLE: dict[str, Any] = {
    "selection": "single",
    "page_size": 5,
    "wrapped_columns": ["question"],
    "column_widths": {"question": 350, "dense": 85, "sparse": 85, "hybrid": 85},
    "show_download": False,
    "show_data_types": False,
    "show_column_summaries": False,
    "label": "Ranks of the evidence in each mode: in brackets past k, – not found. Tick a question.",
}


@dataclass(frozen=True)
class Find:
    """Where a ranking has one passage of the evidence.

    Attributes:
        rank: of the first chunk that holds at least half of it, 1-based; None where none of those looked at does.
        cut: where `rank` is None, rank and share (0..1) of the chunk that holds most of it, if one holds any.
    """

    rank: int | None
    cut: tuple[int, float] | None = None

    def within(self, k: int) -> bool:
        return self.rank is not None and self.rank <= k


def find(ranking: Sequence[Chunk], span: Span) -> Find:
    """Where a ranking has a passage."""
    shares = []
    for rank, chunk in enumerate(ranking, 1):
        if is_relevant(chunk, span):
            return Find(rank)
        held = min(chunk.end, span.end) - max(chunk.start, span.start)
        if chunk.document == span.document and held > 0:
            shares.append((held / (span.end - span.start), rank))
    if not shares:
        return Find(None)
    share, rank = max(shares, key=lambda entry: (entry[0], -entry[1]))
    return Find(None, (rank, share))


@dataclass(frozen=True)
class ByMode:
    """Questions under one configuration, its chunks searched by each mode.

    Attributes:
        questions: by id, as they were asked.
        found: by mode and question, the first `DEPTH` chunks (k where that is more); the question in it has its evidence
            in the copies that this ranking does best with.
        own, baseline: the measure of each question under the configuration and under the baseline; None where there is
            nothing to find.
        texts: of each document, by id.
    """

    configuration: Configuration
    measure: str
    questions: Mapping[str, Question]
    found: Mapping[Mode, Mapping[str, Judged]]
    own: Mapping[str, float | None]
    baseline: Mapping[str, float | None]
    texts: Mapping[str, str]

    @property
    def k(self) -> int:
        return self.configuration.search.k

    @cached_property
    def answerable(self) -> list[str]:
        """Ids of the questions with evidence."""
        return [name for name, question in self.questions.items() if question.evidence]

    def finds(self, question: str, mode: Mode) -> list[Find]:
        """Where a mode has each passage of a question's evidence, in their order."""
        judged = self.found[mode][question]
        return [find(judged.chunks, span) for span in judged.question.evidence]

    @property
    def sentence(self) -> str:
        """Which mode has the whole evidence of how many questions, and which of them the others miss."""
        total = len(self.answerable)
        if not total:
            return "None of the dev questions has evidence, so there is nothing to find."
        dense, sparse, hybrid = (
            {name for name in self.answerable if all(each.within(self.k) for each in self.finds(name, mode))}
            for mode in MODES
        )
        return (
            f"Of {total} dev questions with evidence, dense search has all of it in the first {self.k} passages for "
            f"{len(dense)}, sparse for {len(sparse)}, hybrid for {len(hybrid)}. Dense finds {len(dense - sparse)} that "
            f"sparse misses, sparse {len(sparse - dense)} that dense misses; all three miss "
            f"{total - len(dense | sparse | hybrid)}."
        )

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row a question, those that the configuration does worst on first and those without evidence last.

        `dense`, `sparse` and `hybrid` hold the rank of each passage of the evidence, in brackets where it is past the
        first k, and a dash where it is not among those looked at.
        """
        rows = []
        for name, question in self.questions.items():
            own, base = self.own[name], self.baseline[name]
            change = own - base if own is not None and base is not None else None
            row: dict[str, Any] = {"id": name, "question": question.text}
            row |= {mode: ", ".join(self._short(each) for each in self.finds(name, mode)) for mode in MODES}
            rows.append(row | {self.measure: own, "over baseline": change})
        frame = pl.DataFrame(
            rows, schema_overrides={self.measure: pl.Float64, "over baseline": pl.Float64}, infer_schema_length=None
        )
        numbers = pl.col(self.measure, "over baseline").round(3)
        return frame.sort(self.measure, nulls_last=True, maintain_order=True).with_columns(numbers)

    def _short(self, found: Find) -> str:
        return str(found.rank) if found.within(self.k) else f"({found.rank})" if found.rank else "–"

    def place_of(self, question: str) -> int:
        """The row of a question in `frame`; the first one where it is not there."""
        ids = self.frame["id"].to_list()
        return ids.index(question) if question in ids else 0

    def names(self) -> dict[str, str]:
        """Ids of the questions by what people pick them by, in the order of `frame`."""
        rows = self.frame.select("id", "question").iter_rows()
        return {f"{name}: {' '.join(text.split())[:90]}": name for name, text in rows}


@dataclass
class Drill:
    """The dev questions of a tuning under any of its configurations; what configurations share is computed once.

    Attributes:
        question: id of the question that was looked at last, so that another configuration opens with it.
    """

    workspace: Workspace
    corpus: Corpus
    result: TuneResult
    questions: Sequence[Question]
    question: str = ""
    _evaluator: Evaluator = field(init=False)
    _views: dict[str, ByMode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._evaluator = Evaluator(self.workspace.layout, self.corpus, show_progress=False)
        self.questions = with_copies(self.questions, self.corpus.documents)

    def at(self, label: str) -> ByMode:
        """The questions under the configuration of that label.

        Raises:
            NotFoundError: it was not tried.
        """
        if label not in {trial.label for trial in self.result.trials}:
            raise NotFoundError(f"{label!r} was not tried", hint="Pick a configuration of this tuning.")
        if label not in self._views:
            self._views[label] = self._view(label)
        return self._views[label]

    def _view(self, label: str) -> ByMode:
        own, base = (self.result.trial(name).configuration for name in (label, self.result.baseline))
        asked: dict[str, Configuration] = {mode: _in_mode(own, mode) for mode in MODES}
        asked |= {"own": own, "baseline": base}
        judged: dict[str, dict[str, Judged]] = {}
        with progress_bar(len(asked), f"Searching {label}") as bar:
            for name, configuration in asked.items():
                found = self._evaluator.judge(configuration, self.questions)
                judged[name] = {entry.question.id: entry for entry in found}
                bar.update(len(judged), name)
        measure = self.result.measure
        return ByMode(
            configuration=own,
            measure=measure,
            questions={question.id: question for question in self.questions},
            found={mode: judged[mode] for mode in MODES},
            own={name: entry.values.get(measure) for name, entry in judged["own"].items()},
            baseline={name: entry.values.get(measure) for name, entry in judged["baseline"].items()},
            texts=self._evaluator.texts,
        )

    def remember(self, rows: Any) -> None:
        """Keep the question of the row that a table has picked."""
        self.question = picked_question(rows) or self.question


def _in_mode(configuration: Configuration, mode: Mode) -> Configuration:
    search = configuration.search
    depth = max(DEPTH, search.k)
    search = search.with_(mode=mode, k=depth, candidates=max(depth, search.candidates))
    return configuration.model_copy(update={"search": search})


def picked_question(rows: Any) -> str:
    """The id in the first of the rows that a table has picked; empty where there is none."""
    return str(rows["id"][0]) if rows is not None and len(rows) else ""
