"""What the index-tuning notebooks call: from the values of their controls to a tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import UsageError
from workbench.ui.lab import from_arguments
from workbench.validation import first_fault

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.types import Chunk, Document
    from workbench.tuning.space import TuneSpace
    from workbench.tuning.tune import TuneResult


@dataclass(frozen=True)
class TuneChoices:
    """The settings of the tuning notebook, with the defaults it opens with.

    Attributes:
        corpus: `python-reference`, a folder, or a `.jsonl` file.
        questions: a data set with the columns `question` and `evidence`.
        sizes: chunk sizes in tokens, separated by commas. kinds: chunkers, likewise.
        limit: dev and test questions that are used, each; 0 means all.
    """

    corpus: str = "python-reference"
    questions: str = "python-reference-qa"
    kinds: str = "auto"
    sizes: str = "96,192,384"
    modes: str = "dense,sparse,hybrid"
    k: int = 5
    limit: int = 0

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> TuneChoices:
        """Choices from the arguments of a script, such as `--sizes 96,192 --limit 20`; errors as in `from_arguments`."""
        return from_arguments(cls(), arguments)


def read_corpus(choices: TuneChoices) -> Corpus:
    """The corpus that the choices name."""
    from workbench.retrieval.corpus import open_corpus

    return open_corpus(choices.corpus)


def space(choices: TuneChoices) -> TuneSpace:
    """The space of the choices.

    Raises:
        UsageError: a word that is no chunker, size or mode.
    """
    from pydantic import ValidationError

    from workbench.tuning.space import TuneSpace

    words = {name: [word.strip() for word in getattr(choices, name).split(",")] for name in ("kinds", "sizes", "modes")}
    chunkers = [{"kind": kind, "size": size} for kind in words["kinds"] for size in words["sizes"]]
    try:
        return TuneSpace.model_validate(
            {"chunkers": chunkers, "modes": words["modes"], "ks": [choices.k], "dense_weights": [0.5, 0.7]}
        )
    except ValidationError as error:
        raise UsageError(first_fault(error), hint="Correct that word.") from None


def run_tuning(workspace: Workspace, choices: TuneChoices, corpus: Corpus) -> TuneResult:
    """Choose on the dev questions, decide on the test questions."""
    from workbench.retrieval.questions import load_questions

    parts = []
    for split in ("dev", "test"):
        found = load_questions(workspace.layout, corpus, choices.questions, split=split).questions
        parts.append(found[: choices.limit] if choices.limit else found)
    return workspace.tune(corpus, parts[0], parts[1], space(choices))


def chunks_of(document: Document, kind: str, size: int) -> list[Chunk]:
    """A document cut by one of the chunkers, by the tokens of the default embedder."""
    from workbench.retrieval.chunking import ChunkerSettings, chunk_document
    from workbench.retrieval.embedding import get_embedder

    settings = ChunkerSettings.model_validate({"kind": kind, "size": size})
    embedder = get_embedder()
    return chunk_document(document, settings, tokenizer=embedder.tokenizer, embedder=embedder)
