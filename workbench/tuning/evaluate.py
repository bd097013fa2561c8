"""Evaluating configurations: everything that several of them share is computed once.

Chunks and vectors are those of an index, built once for each chunker and embedder. What the dense and the sparse side find
for a question does not depend on how they are joined, so that one matrix product and one pass over the words serve every
mode, fusion, weight and k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.progress import Progress
from workbench.retrieval import metrics
from workbench.retrieval.copies import settled
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.embedding import Embedder, cached_embedder, get_embedder
from workbench.retrieval.index import Index
from workbench.retrieval.ranking import Side, rank, top
from workbench.retrieval.recipe import IndexRecipe
from workbench.retrieval.rerank import reranked
from workbench.retrieval.types import Chunk, Question
from workbench.tuning.space import Configuration
from workbench.workspace import Layout

# What is reported of every configuration; any of them may be what is maximized.
MEASURES = ("ndcg_at_k", "recall_at_k", "mrr", "average_precision", "hit_at_k", "token_iou")
# Most numbers in one product of questions and chunks: 256 MB.
_PRODUCT = 64_000_000


@dataclass(frozen=True)
class Judged:
    """One configuration on one question: the chunks it found, and each measure (None where there is nothing to find)."""

    question: Question
    chunks: tuple[Chunk, ...]
    values: dict[str, float | None]


@dataclass
class Evaluator:
    """Judges configurations on the questions of one corpus.

    Attributes:
        depth: how many of each side are kept for every question; no configuration may ask for more candidates.
    """

    layout: Layout
    corpus: Corpus
    depth: int = 200
    show_progress: bool = True
    _indexes: dict[str, Index] = field(default_factory=dict)
    _served: dict[str, Index] = field(default_factory=dict)
    _embedders: dict[str, Embedder] = field(default_factory=dict)
    _queries: dict[tuple[str, str], npt.NDArray[np.float32]] = field(default_factory=dict)
    _sides: dict[tuple[str, str, str], Side] = field(default_factory=dict)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Text of each document, by id."""
        return {document.id: document.text for document in self.corpus.documents}

    def index(self, recipe: IndexRecipe) -> Index:
        """The index of a recipe, built on first use."""
        key = recipe.digest
        if key not in self._indexes:
            self._indexes[key] = Index.build(
                self.layout,
                self.corpus,
                recipe,
                embedder=self.embedder(recipe.embedder),
                show_progress=self.show_progress,
            )
        return self._indexes[key]

    def served(self, recipe: IndexRecipe) -> Index:
        """The index as a pipeline opens it: queries are embedded anew, which is part of what a search takes."""
        key = recipe.digest
        if key not in self._served:
            index = self.index(recipe)
            self._served[key] = Index(index.folder, index.manifest, get_embedder(recipe.embedder, self.layout.settings))
        return self._served[key]

    def embedder(self, name: str) -> Embedder:
        if name not in self._embedders:
            self._embedders[name] = cached_embedder(self.layout, name)
        return self._embedders[name]

    def judge(
        self, configuration: Configuration, questions: Sequence[Question], progress: Progress | None = None
    ) -> list[Judged]:
        """The configuration on each question, by exact search."""
        index, search = self.index(configuration.recipe), configuration.search
        sides = self._found(configuration, questions)
        vectors = index.vectors if search.mmr is not None else None
        found: list[Judged] = []
        for number, question in enumerate(questions):
            ranked = rank(
                {name: _cut(side[number], search.candidates) for name, side in sides.items()},
                search,
                query=self._query(configuration.recipe.embedder, question) if vectors is not None else None,
                vectors=vectors,
                length=search.candidates if search.reranker else search.k,
            )
            chunks = [index.chunks[entry.place] for entry in ranked]
            if search.reranker:
                places = reranked(search.reranker, question.text, [chunk.text for chunk in chunks])
                chunks = [chunks[place] for place, _ in places]
            chunks = chunks[: search.k]
            question = settled(chunks, question)
            known = all(span.document in self.texts for span in question.evidence)
            found.append(
                Judged(
                    question,
                    tuple(chunks),
                    metrics.measures(chunks, question, search.k, self.texts if question.evidence and known else None),
                )
            )
            if progress is not None:
                progress.update(number + 1, configuration.label)
        return found

    def _found(self, configuration: Configuration, questions: Sequence[Question]) -> dict[str, list[Side]]:
        """What each side finds for each question, from what was found before where it can be."""
        search, recipe = configuration.search, configuration.recipe
        index = self.index(recipe)
        sides: dict[str, list[Side]] = {}
        if search.mode != "sparse":
            missing = [q for q in questions if (index.digest, "dense", q.id) not in self._sides]
            self._fill_dense(index, recipe.embedder, missing)
            sides["dense"] = [self._sides[index.digest, "dense", question.id] for question in questions]
        if search.mode != "dense":
            for question in questions:
                if (index.digest, "sparse", question.id) not in self._sides:
                    places, scores = index.sparse.search(question.text, self.depth)
                    self._sides[index.digest, "sparse", question.id] = Side(places, scores)
            sides["sparse"] = [self._sides[index.digest, "sparse", question.id] for question in questions]
        return sides

    def _fill_dense(self, index: Index, embedder: str, questions: Sequence[Question]) -> None:
        unknown = [question for question in questions if (embedder, question.id) not in self._queries]
        if unknown:
            vectors = self.embedder(embedder).encode([question.text for question in unknown], kind="query")
            for question, vector in zip(unknown, vectors, strict=True):
                self._queries[embedder, question.id] = vector
        step = max(1, _PRODUCT // max(1, len(index.vectors)))
        for start in range(0, len(questions), step):
            part = questions[start : start + step]
            scores = np.stack([self._queries[embedder, question.id] for question in part]) @ index.vectors.T
            for question, row in zip(part, scores, strict=True):
                self._sides[index.digest, "dense", question.id] = top(row, self.depth)

    def _query(self, embedder: str, question: Question) -> Any:
        if (embedder, question.id) not in self._queries:
            self._queries[embedder, question.id] = self.embedder(embedder).encode([question.text], kind="query")[0]
        return self._queries[embedder, question.id]


def _cut(side: Side, count: int) -> Side:
    return Side(side.places[:count], side.scores[:count])


def mean(judged: Sequence[Judged], measure: str) -> float | None:
    """The mean of a measure over the questions that have something to find; None where none has."""
    values = [value for entry in judged if (value := entry.values.get(measure)) is not None]
    return float(np.mean(values)) if values else None
