"""What the fine-tuning notebooks call: from the values of their controls to an adapter, and to what is promoted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from workbench.errors import NotFoundError, UsageError, WorkbenchError
from workbench.experiments.starting_point import starting_point
from workbench.finetune.recipe_files import list_recipes
from workbench.ui.lab import from_arguments, with_shots

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.decision import Decision
    from workbench.experiments.experiment import Experiment
    from workbench.experiments.run import Run
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult
    from workbench.pipeline.prompt import Prompt
    from workbench.registry.artifact import Artifact
    from workbench.registry.gate import GateResult

# The variants: the base model with its best prompt, and the adapter.
PROMPTED, TUNED = "prompted", "tuned"
PRICE = ("latency", "tokens")
AS_WRITTEN = "as the recipe says"
TRIAL = "-trial"
_SHOTS_SEED = 1


@dataclass(frozen=True)
class FinetuneChoices:
    """The settings of the fine-tuning notebook, with the defaults it opens with.

    Attributes:
        recipe: a file of `adapters/`; empty means the first one.
        preset: replaces what the recipe says of rank, alpha, epochs, learning rate and patience; empty leaves it.
        epochs, rank, learning_rate, eval_every: 0 means what recipe and preset say.
        max_steps: an upper bound of the training; 0 means none but the recipe's.
        pilot: time a few steps for the plan.
        prompt: of the base; empty means `RECIPE-few-shot` where there is one, else the recipe's with examples.
        shots: examples of the train split, where `prompt` is a number of examples.
        scorer: the one that decides; empty means the first target column.
        limit: test rows that both are asked; 0 means all.
    """

    recipe: str = ""
    preset: str = ""
    epochs: float = 0.0
    rank: int = 0
    learning_rate: float = 0.0
    eval_every: int = 0
    max_steps: int = 0
    pilot: bool = True
    prompt: str = ""
    shots: int = 8
    scorer: str = ""
    split: str = "test"
    limit: int = 0

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> FinetuneChoices:
        """Choices from the arguments of a script, such as `--max-steps 20 --limit 40`.

        Raises:
            UsageError: as `from_arguments`, a number below 0, and no such preset.
        """
        choices = from_arguments(cls(), arguments)
        if choices.preset and choices.preset not in presets():
            raise UsageError(f"no preset {choices.preset!r}", hint=f"There are: {', '.join(presets()[1:])}.")
        for name, value in vars(choices).items():
            if isinstance(value, (int, float)) and value < 0:
                raise UsageError(f"{name.replace('_', ' ')} is {value}", hint="Give 0 or more.")
        return choices

    def with_controls(self, values: Mapping[str, Any]) -> FinetuneChoices:
        """These choices with what controls of the same names say; an emptied number is 0."""
        changes: dict[str, Any] = {name: 0 if value is None else value for name, value in values.items()}
        return replace(self, **changes)


def recipes(workspace: Workspace, preferred: str = "") -> list[str]:
    """Names of the recipes, `preferred` first.

    Raises:
        NotFoundError: there is none, or not that one.
    """
    names = list_recipes(workspace.layout)
    if preferred and preferred not in names:
        workspace.finetune_recipe(preferred)  # a path, or the error that says what there is
        names = [preferred, *names]
    if not names:
        raise NotFoundError("there is no fine-tuning recipe in adapters/", hint="Write one: see docs/finetuning.md")
    return sorted(names, key=lambda name: (name != preferred, name))


def presets(preferred: str = "") -> list[str]:
    """The recipe itself and every preset, `preferred` first."""
    from workbench.finetune.recipe import Preset

    return sorted([AS_WRITTEN, *get_args(Preset)], key=lambda name: name != preferred)


def recipe_of(workspace: Workspace, choices: FinetuneChoices) -> FinetuneRecipe:
    """The recipe with the chosen settings. Where they differ from the file's it is called `NAME-trial`, so that NAME stays
    what the file makes. Alpha follows the rank, as their ratio scales the update.

    Raises:
        NotFoundError: no such recipe.
        UsageError: a setting that does not fit, which it names; or the recipe is for preferences.
    """
    from workbench.finetune.recipe import PRESETS

    written = workspace.finetune_recipe(choices.recipe or recipes(workspace)[0])
    if written.kind != "sft":
        raise UsageError(
            f"{written.name} learns preferences, which have no right answers to compare by",
            hint="Train it with: workbench finetune run",
        )
    wanted: dict[str, Any] = {}
    if choices.preset not in ("", AS_WRITTEN):
        wanted = {"preset": choices.preset, **PRESETS.get(choices.preset, {})}
    for name in ("epochs", "rank", "learning_rate", "eval_every", "max_steps"):
        if value := getattr(choices, name):
            wanted[name] = value
    settings = written.settings
    if choices.rank:
        base = PRESETS.get(choices.preset, {"rank": settings.rank, "alpha": settings.alpha})
        wanted["alpha"] = max(1, round(choices.rank * base["alpha"] / base["rank"]))
    found = workspace.finetune_recipe(written, **wanted)
    if found.settings == settings:
        return written
    return type(found).model_validate({**found.model_dump(), "name": written.name + TRIAL})


def state(workspace: Workspace, recipe: FinetuneRecipe) -> str:
    """What pressing Train does, in Markdown: begin, go on, or show what came out."""
    from workbench.finetune.record import training_of
    from workbench.finetune.result import finished

    training = training_of(workspace.layout, recipe)
    if finished(workspace.layout, training) is not None:
        return "This is trained already: **Train** shows what came out."
    record = training.record()
    if record is not None and record.adapter is None and len(steps := training.frame()["step"]):
        return f"This was stopped at step {steps[-1]} of {record.steps}: **Train** goes on from its last checkpoint."
    return "Press **Train** to make the adapter."


@dataclass(frozen=True)
class Offered:
    """What the comparison may be made with, the default first: prompts of the base, and scorers that decide."""

    prompts: list[str]
    scorers: list[str]


def offered(workspace: Workspace, recipe: FinetuneRecipe, choices: FinetuneChoices) -> Offered:
    """Prompts with the recipe's variables, and examples of the train split; the scorers of quality.

    Raises:
        NotFoundError, UsageError: the prompt or the scorer of the choices is none of them.
    """
    return Offered(_prompts(workspace, recipe, choices), _scorers(workspace, recipe, choices.scorer))


def _prompts(workspace: Workspace, recipe: FinetuneRecipe, choices: FinetuneChoices) -> list[str]:
    files = [path.stem for path in workspace.layout.prompts.glob("*.md")]
    fitting = [name for name in files if _variables(workspace, name) == recipe.prompt.variables]
    examples = _examples(choices)
    if choices.prompt and choices.prompt not in (*fitting, examples):
        workspace.prompt(choices.prompt)
        fitting.append(choices.prompt)
    preferred = choices.prompt or f"{recipe.name.removesuffix(TRIAL)}-few-shot"
    return sorted([*fitting, examples], key=lambda name: (name != preferred, name != examples, name))


def _variables(workspace: Workspace, name: str) -> tuple[str, ...] | None:
    try:
        return workspace.prompt(name).variables
    except WorkbenchError:
        # A prompt that cannot be read is no reason to hide the others.
        return None


def _examples(choices: FinetuneChoices) -> str:
    return f"{choices.shots} examples of the train split"


def _baseline_prompt(workspace: Workspace, recipe: FinetuneRecipe, choices: FinetuneChoices) -> Prompt:
    name = choices.prompt or _prompts(workspace, recipe, choices)[0]
    if name != _examples(choices):
        return workspace.prompt(name)
    train = workspace.dataset(recipe.dataset).split(recipe.train)
    return with_shots(recipe.prompt, train, choices.shots, _SHOTS_SEED)


def _scorers(workspace: Workspace, recipe: FinetuneRecipe, preferred: str) -> list[str]:
    from workbench.experiments.scorers.resources import RESOURCE_TYPES

    dataset = workspace.dataset(recipe.dataset)
    found = starting_point(dataset, recipe.model, recipe.prompt)[1]
    names = [scorer.name for scorer in found if scorer.config().get("type") not in RESOURCE_TYPES]
    if preferred and preferred not in names:
        raise UsageError(f"no scorer {preferred!r} to decide by", hint=f"There are: {', '.join(names)}.")
    return sorted(names, key=lambda name: (name != preferred, name != dataset.spec.target[0]))


def experiment(
    workspace: Workspace, recipe: FinetuneRecipe, result: TrainResult, choices: FinetuneChoices
) -> Experiment:
    """The base with its prompt against the adapter with the recipe's prompt, on rows that neither has seen.

    Raises:
        UsageError: the rows were trained or chosen on, or there is no such scorer.
        NotFoundError: no such split or prompt.
    """
    if choices.split in (recipe.train, recipe.dev):
        raise UsageError(
            f"the adapter has seen the split {choices.split!r}",
            hint="Compare on rows that took no part: the test split.",
        )
    dataset = workspace.dataset(recipe.dataset)
    rows = dataset.split(choices.split)
    base, scoring = starting_point(dataset, recipe.model, _baseline_prompt(workspace, recipe, choices))
    return workspace.experiment(
        f"finetune-{recipe.name}",
        dataset=rows.head(choices.limit) if choices.limit else rows,
        variants={PROMPTED: base, TUNED: base.with_(prompt=recipe.prompt, adapter=result.adapter.digest)},
        scorers=scoring,
        primary=_scorers(workspace, recipe, choices.scorer)[0],
    )


def decisions(comparison: Comparison) -> list[Decision]:
    """Whether the adapter answers better, and at what price: on the primary scorer, latency and tokens."""
    compared = dict.fromkeys(row.scorer for row in comparison.rows)
    return [comparison.decision(TUNED, scorer=name) for name in (comparison.primary, *PRICE) if name in compared]


def gate(workspace: Workspace, run: Run) -> GateResult:
    """What the policy says of the adapter."""
    return workspace.gate(run, variant=TUNED, over=PROMPTED)


def promote(workspace: Workspace, run: Run, name: str, alias: str) -> Artifact:
    """Store prompt and adapter as the next version of `name`, if the gate lets it.

    Raises:
        GateRefused: with the reasons.
    """
    return workspace.promote(run, name, variant=TUNED, over=PROMPTED, alias=alias or None)
