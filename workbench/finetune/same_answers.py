"""Whether a model made of an adapter answers as the adapter does, on the rows that training looked at but did not learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.data.store import open_dataset
from workbench.errors import DataError, ModelError, UsageError
from workbench.finetune.recipe import FinetuneRecipe
from workbench.finetune.record import list_trainings
from workbench.models.adapters import AdapterFolder
from workbench.models.engine import Generation, ModelInfo
from workbench.models.store import ModelFolder
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.pipeline import Answer, Pipeline
from workbench.pipeline.prompt import Prompt, output_text
from workbench.progress import progress
from workbench.workspace import Layout, use

# Share of rows, in percent, on which both must give the same answer.
REQUIRED = 99
# Tokens that an answer may have beyond those of the longest target, and the most in all.
MORE_TOKENS = 16
MOST_TOKENS = 256
# Rows that an agreement keeps to show how answers differ, and that a message names.
KEPT, NAMED = 20, 3


@dataclass(frozen=True)
class Difference:
    """A row to which two models give different answers."""

    id: str
    adapter: str
    model: str


@dataclass(frozen=True)
class Agreement:
    """How many answers are the same, letter for letter.

    Attributes:
        rows: that were compared; equal: of them, with the same answer.
        left_out: rows that neither can be asked, such as those too long for the model.
        differing: the first rows whose answers differ, at most 20.
    """

    dataset: str
    split: str
    rows: int
    equal: int
    left_out: int = 0
    differing: tuple[Difference, ...] = field(default=(), repr=False)

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.equal / self.rows

    @property
    def enough(self) -> bool:
        """Whether at least 99% of the answers are the same."""
        return 100 * self.equal >= REQUIRED * self.rows

    def refusal(self, what: str, hint: str) -> ModelError:
        """Why `what` is not kept, with the first rows that differ."""
        named = [f"{row.id!r} ({_brief(row.adapter)} became {_brief(row.model)})" for row in self.differing[:NAMED]]
        more = self.rows - self.equal - len(named)
        return ModelError(
            f"{what} was not kept: it gives the adapter's answer to {self.equal} of {self.rows} rows of "
            f"{self.dataset}/{self.split}, and {REQUIRED}% are needed. They differ on {', '.join(named)}"
            + (f" and {more} more" if more else ""),
            hint=hint,
        )

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("dataset", "split", "rows", "equal", "left_out")}
        return {**fields, "share": round(self.share, 6), "differing": [vars(row) for row in self.differing]}

    def __str__(self) -> str:
        left_out = f"; {self.left_out} could not be asked" if self.left_out else ""
        return f"the adapter's answer to {self.equal} of {self.rows} rows of {self.dataset}/{self.split}{left_out}"


@dataclass(frozen=True)
class Questions:
    """What both models are asked: the rows of a split through a prompt, answered freely and greedily."""

    dataset: str
    split: str
    prompt: Prompt
    ids: tuple[str, ...]
    inputs: tuple[Mapping[str, Any], ...]
    targets: tuple[str, ...]

    def ask(
        self, engine: TransformersEngine, title: str, *, adapter: str | None = None, show_progress: bool = True
    ) -> list[Answer]:
        """Answers by row, as any pipeline with this prompt gets them.

        Args:
            adapter: digest of the one that answers with the engine's model.
        """
        longest = max((len(engine.tokenizer.encode(text)) for text in self.targets), default=0)
        generation = Generation(max_new_tokens=min(longest + MORE_TOKENS, MOST_TOKENS))
        pipeline = Pipeline(model=engine.info.name, prompt=self.prompt, generation=generation, adapter=adapter)
        found: dict[int, Answer] = {}
        with progress(len(self.ids), title, show=show_progress) as bar:
            for index, answer in pipeline.answers(engine, self.inputs):
                found[index] = answer
                bar.update(len(found))
        return [found[index] for index in range(len(self.ids))]

    def compare(self, adapter: Sequence[Answer], model: Sequence[Answer]) -> Agreement:
        """Hold the model's answers against the adapter's.

        Raises:
            DataError: there is no row that both could be asked.
        """
        pairs = [(_said(one), _said(other)) for one, other in zip(adapter, model, strict=True)]
        asked = [place for place, pair in enumerate(pairs) if pair[0][0] or pair[1][0]]
        if not asked:
            raise DataError(
                f"no row of {self.dataset}/{self.split} could be asked: {adapter[0].error}",
                hint="Name another split, prompt or data set.",
            )
        differing = [place for place in asked if pairs[place][0] != pairs[place][1]]
        return Agreement(
            dataset=self.dataset,
            split=self.split,
            rows=len(asked),
            equal=len(asked) - len(differing),
            left_out=len(pairs) - len(asked),
            differing=tuple(
                Difference(self.ids[place], pairs[place][0][1], pairs[place][1][1]) for place in differing[:KEPT]
            ),
        )


def find_questions(
    layout: Layout,
    adapter: AdapterFolder,
    *,
    dataset: str | None = None,
    split: str | None = None,
    prompt: Prompt | None = None,
) -> Questions:
    """The dev rows and the prompt of the recipe that the adapter was trained by, or what is named instead of them.

    Raises:
        UsageError: the training is not in this workspace, and not all is named that it would tell.
        NotFoundError: no such data set or split.
        DataError: the split is empty.
    """
    recipe = None if dataset and split and prompt else _recipe(layout, adapter)
    if recipe is None and not (dataset and prompt):
        raise UsageError(
            f"the training of {adapter} is not in this workspace, so what to ask is not known",
            hint="Name it: --dataset NAME --split SPLIT --prompt FILE",
        )
    dataset = dataset or (recipe.dataset if recipe else "")
    split = split or (recipe.dev if recipe else "dev")
    asked = prompt or (recipe.prompt if recipe else None)
    assert asked is not None
    rows = open_dataset(layout, dataset).split(split).rows()
    if not rows:
        raise DataError(f"the split {split!r} of {dataset!r} is empty", hint="Name a split that has rows.")
    return Questions(
        dataset=dataset,
        split=split,
        prompt=asked,
        ids=tuple(row.id for row in rows),
        inputs=tuple(row.inputs for row in rows),
        targets=tuple(output_text(row.target) for row in rows if row.target is not None),
    )


def ask_adapter(
    layout: Layout, base: ModelFolder, adapter: AdapterFolder, questions: Questions, *, show_progress: bool = True
) -> tuple[list[Answer], ModelInfo]:
    """What the adapter answers on its base, which is not quantized, and where it ran. The workspace becomes the current one.

    Raises:
        IntegrityError, ModelError: the adapter is damaged, does not fit the base or changes nothing.
    """
    # The engine looks for adapters in the current workspace.
    use(layout)
    engine = TransformersEngine.load(str(base.path))
    try:
        title = f"{adapter.manifest.name}, unmerged"
        return questions.ask(engine, title, adapter=adapter.digest, show_progress=show_progress), engine.info
    finally:
        engine.close()


def _recipe(layout: Layout, adapter: AdapterFolder) -> FinetuneRecipe | None:
    wanted = adapter.manifest.recipe_digest
    return next((record.recipe for record in list_trainings(layout) if record.recipe.digest == wanted), None)


def _said(answer: Answer) -> tuple[bool, str]:
    """Whether there is an answer, and its text or the error."""
    text = answer.completion.text
    return (False, f"[{answer.error_kind}]") if text is None else (True, text)


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
