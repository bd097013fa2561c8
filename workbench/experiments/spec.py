"""An experiment written down in YAML, so that it can be reviewed, repeated and run by CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.errors import NotFoundError
from workbench.experiments.experiment import Experiment
from workbench.experiments.scorers import scorer_from_config
from workbench.experiments.spec_retrieval import RetrievalSpec
from workbench.experiments.starting_point import starting_point
from workbench.experiments.stopping import EarlyStopping
from workbench.models.adapters import find_adapter
from workbench.models.engine import Generation
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.steps import Step
from workbench.validation import read_yaml
from workbench.workspace import Layout


class VariantSpec(BaseModel):
    """One variant.

    Attributes:
        prompt: a prompt file, relative to the experiment file or to the workspace.
        adapter: name (the newest of that name) or digest of an adapter that answers with the model.
        shots: few-shot examples sampled from the data set's train split, in turn from each target; 0 keeps the prompt's own.
        seed: of that sampling.
        retrieval: an index whose passages the prompt shows as `{{ passages }}`.
        response_schema, postprocess: in place of those that follow from the data set's targets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str
    model: str | None = None
    adapter: str | None = None
    shots: int = Field(default=0, ge=0)
    seed: int = 0
    retrieval: RetrievalSpec | None = None
    generation: Generation | None = None
    response_schema: dict[str, Any] | None = None
    postprocess: tuple[Step, ...] | None = None


class ExperimentSpec(BaseModel):
    """The YAML file. The first variant is the baseline; scorers are chosen by the data set's targets unless given."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    name: str
    dataset: str
    split: str = "test"
    limit: int | None = Field(default=None, ge=1)
    variants: dict[str, VariantSpec] = Field(min_length=1)
    scorers: list[str | dict[str, Any]] | None = None
    primary: str = ""
    repeats: int = Field(default=1, ge=1)
    budget_usd: float | None = Field(default=None, ge=0)
    early_stopping: bool | EarlyStopping = False


def read_spec(path: Path) -> ExperimentSpec:
    """What a YAML file says.

    Raises:
        UsageError: no such file, not YAML, or a field that does not fit; names the file and the field.
    """
    return read_yaml(path, ExperimentSpec, "experiment file")


def read_experiment(layout: Layout, path: Path) -> Experiment:
    """The experiment that a YAML file describes; errors as in `read_spec`."""
    return build_experiment(layout, path, read_spec(path))


def build_experiment(layout: Layout, path: Path, spec: ExperimentSpec) -> Experiment:
    """The experiment of a spec whose paths are relative to `path` or to the workspace.

    Raises:
        NotFoundError: no such data set, split, prompt, adapter or index.
        UsageError: settings that do not fit together.
    """
    from workbench.data.store import open_dataset

    dataset = open_dataset(layout, spec.dataset)
    rows = dataset.split(spec.split)
    variants = {}
    scorers = None
    for name, variant in spec.variants.items():
        prompt = Prompt.from_file(prompt_file(variant.prompt, path, layout))
        if variant.shots:
            prompt = prompt.with_examples(
                dataset.split("train").sample(variant.shots, seed=variant.seed, stratify=True).rows()
            )
        pipeline, suggested = starting_point(dataset, variant.model or layout.settings.model, prompt)
        given: dict[str, Any] = {
            field: value
            for field in ("generation", "response_schema", "postprocess")
            if (value := getattr(variant, field)) is not None
        }
        if variant.adapter is not None:
            given["adapter"] = _adapter(layout, variant.adapter, f"{path}: variants.{name}.adapter")
        if variant.retrieval is not None:
            given["retrieval"] = variant.retrieval.find(layout, f"{path}: variants.{name}.retrieval")
        variants[name] = pipeline.with_(**given) if given else pipeline
        scorers = scorers or suggested
    if spec.scorers is not None:
        scorers = [scorer_from_config(config) for config in spec.scorers]
    return Experiment(
        name=spec.name,
        dataset=rows.head(spec.limit) if spec.limit else rows,
        variants=variants,
        scorers=tuple(scorers or ()),
        layout=layout,
        repeats=spec.repeats,
        primary=spec.primary,
        file=path,
    )


def _adapter(layout: Layout, name: str, where: str) -> str:
    try:
        return find_adapter(layout, name).digest
    except NotFoundError as error:
        raise NotFoundError(f"{where}: {error.message}", hint=error.hint) from None


def prompt_file(prompt: str, file: Path, layout: Layout) -> Path:
    """A prompt file that `file` names, relative to it or to the workspace.

    Raises:
        NotFoundError: there is none.
    """
    for folder in (file.parent, layout.root):
        if (folder / prompt).is_file():
            return folder / prompt
    raise NotFoundError(f"{file}: no prompt file {prompt}", hint="Paths are relative to the file or the workspace.")
