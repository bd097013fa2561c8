"""What the index-tuning notebooks call: from the values of their controls to a tuning, and to what is promoted of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from workbench.errors import DataError, NotFoundError, UsageError, WorkbenchError, require
from workbench.html import callout, escape
from workbench.ui.lab import from_arguments
from workbench.validation import first_fault

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.registry.artifact import Artifact
    from workbench.registry.gate import GateResult
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.question_set import QuestionSet
    from workbench.retrieval.types import Chunk, Document, Question, Span
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
        """Choices from the arguments of a script, such as `--sizes 96,192 --limit 20`.

        Raises:
            UsageError: as `from_arguments`, and a word or number that makes no space.
        """
        choices = from_arguments(cls(), arguments)
        space(choices)
        return choices

    def with_controls(self, values: Mapping[str, Any]) -> TuneChoices:
        """These choices with what controls of the same names say; a list is its words, and an emptied number is 0."""
        changes: dict[str, Any] = {
            name: ",".join(value) if isinstance(value, list) else 0 if value is None else value
            for name, value in values.items()
        }
        return replace(self, **changes)


def words(text: str) -> list[str]:
    """The words of a list that commas separate."""
    return [word.strip() for word in text.split(",") if word.strip()]


def kinds() -> list[str]:
    """Every chunker."""
    from workbench.retrieval.chunking import Kind

    return list(get_args(Kind))


def modes() -> list[str]:
    """Every way of searching."""
    from workbench.retrieval.search_settings import Mode

    return list(get_args(Mode))


def read_corpus(name: str) -> Corpus:
    """The corpus of that name or path.

    Raises:
        NotFoundError: there is none; DataError where it holds no document.
    """
    from workbench.retrieval.corpus import STARTER, open_corpus

    name = name.strip()
    if name != STARTER and not (name and Path(name).exists()):
        raise NotFoundError(
            f"no corpus {name!r} in {Path.cwd()}", hint=f"Give {STARTER}, a folder of documents, or a .jsonl file."
        )
    return open_corpus(name)


def question_sets(workspace: Workspace, preferred: str) -> list[str]:
    """Names of the data sets with questions and evidence.

    Raises:
        NotFoundError: `preferred` is none of them.
    """
    found = [name for name in workspace.datasets() if _has_questions(workspace, name)]
    if preferred not in found:
        raise NotFoundError(
            f"no data set {preferred!r} with the columns question and evidence",
            hint=f"Those here: {', '.join(found)}." if found else "Import one with: workbench data import",
        )
    return found


def _has_questions(workspace: Workspace, name: str) -> bool:
    try:
        return {"question", "evidence"} <= set(workspace.dataset(name).columns)
    except WorkbenchError:
        # A data set that cannot be read is no reason to hide the others.
        return False


@dataclass(frozen=True)
class Plan:
    """What a tuning will do.

    Attributes:
        dev, test: the questions that choose, and those that decide.
    """

    corpus: Corpus
    space: TuneSpace
    dev: QuestionSet
    test: QuestionSet
    limit: int = 0

    def part(self, found: QuestionSet) -> list[Question]:
        """As many of the questions as are used."""
        return list(found.questions[: self.limit] if self.limit else found.questions)

    @property
    def sentence(self) -> str:
        tried = len(self.space.configurations())
        indexes = len({configuration.recipe.digest for configuration in self.space.configurations()})
        return (
            f"{tried} configurations of {indexes} {'index' if indexes == 1 else 'indexes'} over {len(self.corpus)} "
            f"documents ({self.corpus.characters / 1e6:.1f} million characters), chosen on {len(self.part(self.dev))} dev "
            f"questions and decided on {len(self.part(self.test))} test questions. The first configuration is the "
            f"baseline: {self.space.configurations()[0].label}. No model is asked; chunks are embedded once and kept."
        )

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        shown = f"<p style='margin:.2em 0'>{escape(self.sentence)}</p>"
        missing = [entry for found in (self.dev, self.test) for entry in found.missing]
        if missing:
            first = missing[0]
            shown += callout(
                f"{len({entry.question for entry in missing})} questions are left out: their evidence has no one place in "
                f"the corpus, such as {first.question} ({first.reason} in {first.document}).",
                "warn",
            )
        return shown

    def evidence(self) -> list[Span]:
        """The evidence of the dev questions."""
        return [span for question in self.dev for span in question.evidence]


def plan(workspace: Workspace, choices: TuneChoices, corpus: Corpus) -> Plan:
    """What the choices would do.

    Raises:
        UsageError: as `space`.
        DataError: no question of a part has evidence in this corpus, or the data set has another form.
        NotFoundError: the data set has no such part.
    """
    from workbench.retrieval.questions import load_questions

    parts = [load_questions(workspace.layout, corpus, choices.questions, split=split) for split in ("dev", "test")]
    found = Plan(corpus, space(choices), parts[0], parts[1], choices.limit)
    for part in parts:
        if not any(question.answerable for question in found.part(part)):
            reason = f", such as: {part.missing[0].reason} ({part.missing[0].document})" if part.missing else ""
            raise DataError(
                f"no question of {part.name} has evidence in the corpus {corpus.name}{reason}",
                hint="Take the questions that were written on this corpus, or more of them.",
            )
    return found


def space(choices: TuneChoices) -> TuneSpace:
    """The space of the choices.

    Raises:
        UsageError: a word that is no chunker, size or mode; none of them; a number that is too small.
    """
    from pydantic import ValidationError

    from workbench.tuning.space import TuneSpace

    given = {name: words(getattr(choices, name)) for name in ("kinds", "sizes", "modes")}
    if empty := [name for name, found in given.items() if not found]:
        raise UsageError(f"no {empty[0]}", hint="Give at least one.")
    if choices.k < 1 or choices.limit < 0:
        raise UsageError(
            f"{choices.k} passages and {choices.limit} questions",
            hint="Give 1 passage or more, and 0 questions or more.",
        )
    chunkers = [{"kind": kind, "size": size} for kind in given["kinds"] for size in given["sizes"]]
    try:
        return TuneSpace.model_validate(
            {"chunkers": chunkers, "modes": given["modes"], "ks": [choices.k], "dense_weights": [0.5, 0.7]}
        )
    except ValidationError as error:
        raise UsageError(first_fault(error), hint="Correct that word.") from None


def run_tuning(workspace: Workspace, plan: Plan) -> TuneResult:
    """Choose on the dev questions, decide on the test questions."""
    return workspace.tune(plan.corpus, plan.part(plan.dev), plan.part(plan.test), plan.space)


def documents(corpus: Corpus, evidence: Sequence[Span]) -> list[str]:
    """Ids of the documents, the one that most questions ask about first."""
    counts = [span.document for span in evidence]
    return sorted((found.id for found in corpus.documents), key=lambda name: (-counts.count(name), name))


def chunks_of(document: Document, kind: str, size: int) -> list[Chunk]:
    """A document cut by one of the chunkers, by the tokens of the default embedder."""
    from workbench.retrieval.chunking import ChunkerSettings, chunk_document
    from workbench.retrieval.embedding import get_embedder

    settings = ChunkerSettings.model_validate({"kind": kind, "size": size})
    embedder = get_embedder() if kind == "semantic" else None
    return chunk_document(document, settings, tokenizer=_tokenizer(), embedder=embedder)


@functools.cache
def _tokenizer() -> Any:
    """That of the default embedder: it is there at once, where the model takes seconds to load."""
    from workbench.retrieval.embedding import MINILM
    from workbench.retrieval.embedding_models import find_embedding_model

    file = find_embedding_model(MINILM).path / "tokenizer.json"
    tokenizer = require("tokenizers", extra="local").Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def candidates(result: TuneResult) -> list[str]:
    """What can be promoted: those that answered the test questions, the leader first; the baseline only where it is alone."""
    tested = [name for name in result.run.manifest.variants if name != result.baseline]
    return sorted(tested, key=lambda name: name != result.leader) or [result.baseline]


def gate(workspace: Workspace, result: TuneResult, variant: str) -> GateResult:
    """What the policy says of a configuration."""
    return workspace.gate(result.run, variant=variant, over=_over(result, variant))


def _over(result: TuneResult, variant: str) -> str | None:
    """What a configuration is compared with: the baseline, and nothing where it is the baseline itself."""
    return result.baseline if variant != result.baseline else None


def promote(workspace: Workspace, result: TuneResult, variant: str, name: str, alias: str) -> Artifact:
    """Store a configuration, its index included, as the next version of `name`, if the gate lets it.

    Raises:
        GateRefused: with the reasons.
    """
    return workspace.promote(result.run, name, variant=variant, over=_over(result, variant), alias=alias or None)
