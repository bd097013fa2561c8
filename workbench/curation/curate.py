"""Curate: the checks one after the other over the rows of a data set, to a data set without what was dropped and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.curation.balance import balance_notes, class_counts, is_classes
from workbench.curation.items import Item, make_items
from workbench.curation.report import (
    OUTCOME_OF,
    ClassCount,
    CurationReport,
    Finding,
    Histogram,
    Note,
    Outcome,
    make_side,
    rounded,
)
from workbench.curation.settings import CHECKS, Check, CurationSettings
from workbench.data.dataset import Dataset
from workbench.errors import UsageError
from workbench.progress import progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.retrieval.embedding import Embedder

_LABEL = 40
# With fewer rows there is no telling which length is usual.
_FEWEST = 10


@dataclass(frozen=True)
class Curated:
    """What comes of a curation: the rows that stay, and the report on all of them."""

    dataset: Dataset
    report: CurationReport


def curate_dataset(
    dataset: Dataset,
    settings: CurationSettings | None = None,
    *,
    embedder: Embedder | None = None,
    show_progress: bool = True,
) -> Curated:
    """Check every row; nothing is written. Rows that stay keep their order, their ids and so their splits.

    Args:
        embedder: None leaves out near duplicates by meaning and label noise, and the report says so.

    Raises:
        UsageError: no input column holds text, there is one row only, every text is empty, or the settings do not fit
            the data set.
        MissingExtraError: what a check needs is not installed.
        ModelError: the embedder cannot be run.
    """
    return _Curation(dataset, settings or CurationSettings(), embedder, show_progress).run()


class _Curation:
    def __init__(
        self, dataset: Dataset, settings: CurationSettings, embedder: Embedder | None, show_progress: bool
    ) -> None:
        self._dataset = dataset
        self._settings = settings
        self._embedder = embedder
        self._show = show_progress
        self._findings: list[Finding] = []
        self._notes: list[Note] = []

    def run(self) -> Curated:
        dataset, settings = self._dataset, self._settings
        if len(dataset) < 2:
            raise UsageError(f"{dataset.name!r} has {len(dataset)} row: there is nothing to compare it with")
        records = list(dataset.records())
        items = make_items(dataset, records, settings.splits)
        if not any(item.text.strip() for item in items):
            raise UsageError(f"the text of every row of {dataset.name!r} is empty")
        items = self._personal(self._empty(items))
        full = [item for item in items if item.text.strip()]
        if not full:
            raise _nothing_left(dataset)
        vectors = self._embed(full)
        full, vectors, nearest = self._copies(full, vectors)
        full, vectors, lengths = self._lengths(full, vectors)
        self._label_noise(full, vectors)
        stay = {item.id for item in full} | {item.id for item in items if not item.text.strip()}
        items = [item for item in items if item.id in stay]
        classes = self._balance(items)
        after = _with_records(dataset, [item.record for item in items])
        place = {record["id"]: number for number, record in enumerate(records)}
        self._findings.sort(key=lambda found: (CHECKS.index(found.check), place[found.id], found.reason))
        used = self._embedder
        report = CurationReport(
            dataset=dataset.name,
            before=make_side(dataset),
            after=make_side(after),
            settings=settings,
            embedder={"name": used.name, "digest": used.digest} if used is not None else None,
            findings=tuple(self._findings),
            notes=tuple(self._notes),
            lengths=lengths,
            nearest=nearest,
            classes=tuple(classes),
        )
        return Curated(after, report)

    def _on(self, check: Check) -> bool:
        return self._settings.action(check) != "skip"

    def _outcome(self, check: Check) -> Outcome:
        return OUTCOME_OF[self._settings.action(check)]

    def _note(self, check: Check, text: str) -> None:
        if self._on(check):
            self._notes.append(Note(check=check, text=text))

    def _found(self, item: Item, check: Check, reason: str, score: float | None = None, **more: Any) -> None:
        number = None if score is None else rounded(score)
        action = self._outcome(check)
        fields = {"id": item.id, "split": item.split, "check": check, "action": action, "reason": reason}
        self._findings.append(Finding(**fields, score=number, **more))

    def _empty(self, items: list[Item]) -> list[Item]:
        """Rows without text take part in no other check."""
        if not self._on("empty"):
            return items
        empty = [item for item in items if not item.text.strip()]
        for item in empty:
            self._found(item, "empty", "no text in its inputs")
        gone = {item.id for item in empty} if self._settings.empty == "drop" else set()
        return [item for item in items if item.id not in gone]

    def _personal(self, items: list[Item]) -> list[Item]:
        if not self._on("personal-data"):
            return items
        from workbench.curation.personal_rows import personal_rows, searched_columns

        settings = self._settings
        columns = searched_columns(self._dataset.spec, items, settings.most_classes)
        spans, masked = personal_rows(items, columns, settings, show_progress=self._show)
        for row, held in spans.items():
            kinds = ", ".join(sorted({span.entity for span in held}))
            self._found(items[row], "personal-data", kinds, max(span.score for span in held), spans=held)
        if settings.personal_data == "drop":
            return [item for row, item in enumerate(items) if row not in spans]
        return items if masked is None else make_items(self._dataset, masked, settings.splits)

    def _embed(self, items: Sequence[Item]) -> NDArray[np.float32] | None:
        wanted = any(self._on(check) for check in ("leakage", "near-duplicates", "label-noise"))
        if self._embedder is None or not wanted:
            self._embedder = None
            return None
        with progress(len(items), "embedding", show=self._show) as bar:
            return self._embedder.encode([item.text for item in items], progress=bar)

    def _copies(
        self, items: list[Item], vectors: NDArray[np.float32] | None
    ) -> tuple[list[Item], NDArray[np.float32] | None, Histogram | None]:
        from workbench.curation.copies import find_copies

        if len({item.level for item in items}) == 1:
            names = ", ".join(dict.fromkeys(item.split for item in items))
            self._note("leakage", f"Not checked: there is no split to keep apart from another ({names} only).")
        comparable = vectors
        if vectors is None:
            for check in ("leakage", "near-duplicates"):
                self._note(check, "By words only: there is no embedder.")
        elif self._embedder is not None:
            from workbench.curation.meaning import cut_short

            cut = cut_short([item.text for item in items], self._embedder)
            if cut.any():
                comparable = vectors.copy()
                comparable[cut] = 0
                said = f"{int(cut.sum())} rows are longer than {self._embedder.name} reads and compared by words only."
                self._note("near-duplicates", said)
        with progress(len(items), "comparing rows", show=self._show) as bar:
            found = find_copies(items, comparable, self._settings, progress=bar)
        self._findings += found.findings
        limits = (self._settings.cosine,)
        nearest = _histogram(found.nearest, [step / 20 for step in range(21)], limits) if found.nearest else None
        return (*_without(items, vectors, found.dropped), nearest)

    def _lengths(
        self, items: list[Item], vectors: NDArray[np.float32] | None
    ) -> tuple[list[Item], NDArray[np.float32] | None, Histogram | None]:
        """Outliers are dropped until there are none: fewer rows have another median, and a second curation would use it."""
        import numpy as np

        from workbench.curation.lengths import length_limits, length_scores

        if not self._on("length-outliers") or not items:
            return items, vectors, None
        texts = [item.text for item in items]
        limits = length_limits(texts, self._settings.length_z)
        lengths = [len(text) for text in texts]
        edges = np.unique(np.geomspace(min(lengths), max(lengths) + 1, 31).round(1))
        histogram = _histogram(lengths, [float(edge) for edge in edges], limits) if len(edges) > 1 else None
        if len(items) < _FEWEST:
            self._note("length-outliers", f"Not checked: there are fewer than {_FEWEST} rows.")
        while len(items) >= _FEWEST:
            scores = length_scores([item.text for item in items])
            gone = {}
            for item, score in zip(items, scores, strict=True):
                if abs(score) > self._settings.length_z:
                    gone[item.id] = (item, float(score))
            for item, score in gone.values():
                side = "longer" if score > 0 else "shorter"
                reason = f"{len(item.text)} characters, much {side} than the others"
                self._found(item, "length-outliers", reason, score)
            if not gone or self._settings.length_outliers != "drop":
                break
            items, vectors = _without(items, vectors, set(gone))
        return items, vectors, histogram

    def _label_noise(self, items: Sequence[Item], vectors: NDArray[np.float32] | None) -> None:
        if not self._on("label-noise"):
            return
        if not any(item.label is not None for item in items):
            self._note("label-noise", "Not checked: no row has a target.")
            return
        if vectors is None:
            self._note("label-noise", "Only copies that contradict each other: there is no embedder.")
            return
        from workbench.curation.labels import label_suspects
        from workbench.data.values import as_text

        settings = self._settings
        for column in self._dataset.spec.target:
            rows = [row for row, item in enumerate(items) if item.record[column] is not None]
            values = [items[row].record[column] for row in rows]
            if not is_classes(values, settings.most_classes):
                self._note("label-noise", f"Of {column} only copies that contradict each other: it holds no classes.")
                continue
            labels = [as_text(value) for value in values]
            suspects, rare = label_suspects(
                vectors[rows], labels, margin=settings.label_margin, folds=settings.folds, seed=settings.seed
            )
            if len(set(labels) - rare) < 2:
                self._note("label-noise", f"Of {column} there are not two classes with {settings.folds} rows or more.")
            elif rare:
                self._note("label-noise", f"{column}: classes with fewer than {settings.folds} rows were left out.")
            for suspect in suspects:
                given, likely = _clip(labels[suspect.place]), _clip(suspect.likely)
                reason = f"{column}: labelled {given}, reads like {likely}"
                self._found(items[rows[suspect.place]], "label-noise", reason, suspect.margin)

    def _balance(self, items: Sequence[Item]) -> list[ClassCount]:
        if not self._on("class-balance"):
            return []
        out: list[ClassCount] = []
        for column in self._dataset.spec.target:
            if is_classes([item.record[column] for item in items], self._settings.most_classes):
                counts = class_counts(items, column)
                self._notes += balance_notes(counts, self._settings.smallest_class)
                out += counts
        if not out:
            self._note("class-balance", "Not checked: the target holds no classes.")
        return out


def _clip(label: str) -> str:
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"


def _without(
    items: Sequence[Item], vectors: NDArray[np.float32] | None, gone: set[str]
) -> tuple[list[Item], NDArray[np.float32] | None]:
    keep = [place for place, item in enumerate(items) if item.id not in gone]
    return [items[place] for place in keep], None if vectors is None else vectors[keep]


def _histogram(values: Sequence[float], edges: Sequence[float], limits: Sequence[float]) -> Histogram:
    import numpy as np

    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=np.array(edges))
    return Histogram(
        edges=tuple(map(rounded, edges)), counts=tuple(map(int, counts)), limits=tuple(map(rounded, limits))
    )


def _nothing_left(dataset: Dataset) -> UsageError:
    hint = "Flag instead of dropping, and look at the report"
    return UsageError(f"every row of {dataset.name!r} would be dropped", hint=hint)


def _with_records(dataset: Dataset, records: list[dict[str, Any]]) -> Dataset:
    """A data set like `dataset` with these rows; `dataset` itself where they are its own."""
    from workbench.data.check import Source
    from workbench.data.opening import from_table
    from workbench.data.readers import Table

    made = from_table(Table(dataset.columns, records, Source()), dataset.spec)
    return dataclasses.replace(dataset, known_digest=dataset.digest) if made.digest == dataset.digest else made
