"""Workspace as people use it: data sets, prompts, experiments, runs and artifacts of one project, from one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import access
from workbench.html import callout, escape
from workbench.workspace import Layout, use

if TYPE_CHECKING:
    import polars as pl
    from duckdb import DuckDBPyConnection

    from workbench.curation.settings import CurationSettings
    from workbench.curation.write import Curation
    from workbench.data.dataset import Dataset
    from workbench.events.store import Events
    from workbench.experiments.experiment import Experiment
    from workbench.experiments.run import Run
    from workbench.experiments.scorers.base import Scorer
    from workbench.finetune.plan import FinetunePlan
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult
    from workbench.pipeline.pipeline import Pipeline
    from workbench.pipeline.prompt import Prompt
    from workbench.registry.artifact import Artifact
    from workbench.registry.gate import GateResult
    from workbench.registry.lineage_graph import Lineage
    from workbench.registry.reproduction import Reproduction
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.index import Index
    from workbench.retrieval.recipe import IndexRecipe
    from workbench.retrieval.types import Question
    from workbench.tuning.space import TuneSpace
    from workbench.tuning.tune import TuneResult


class Workspace:
    """One project on disk. `workbench.open()` makes it.

    Args:
        notebook: the notebook this is opened in, where the front end does not say (nbval, nbclient, plain Jupyter).
    """

    def __init__(self, layout: Layout, *, notebook: str | Path | None = None) -> None:
        self.layout = layout
        self._notebook = notebook

    @property
    def root(self) -> Path:
        return self.layout.root

    @property
    def model(self) -> str:
        """The default model of `workbench.toml`."""
        return self.layout.settings.model

    def datasets(self) -> list[str]:
        """Names of the data sets here."""
        from workbench.data.store import list_datasets

        return [found.name for found in list_datasets(self.layout)]

    def dataset(self, name: str) -> Dataset:
        """A data set by `name`, `name@version` or `name@sha256:…`.

        Raises:
            NotFoundError: there is none.
            DataError: its file is malformed; names the line.
        """
        from workbench.data.store import open_dataset

        return open_dataset(self.layout, name)

    def curate(
        self, name: str, settings: CurationSettings | None = None, *, dry_run: bool = False, **changes: Any
    ) -> Curation:
        """Check the rows of a data set, leave out what the settings say, and report every row found.

        Args:
            dry_run: check and report only.
            changes: single settings, such as `near_duplicates="drop"` or `cosine=0.9`.

        Raises:
            NotFoundError: there is no such data set.
            UsageError: the settings, or the data set, do not allow it; says why.
            DataError: a split would be left without rows.
        """
        from workbench.curation.settings import make_settings
        from workbench.curation.write import curate
        from workbench.ui.curation import html_report

        given = settings.model_dump() if settings is not None else {}
        return curate(self.layout, name, make_settings(**(given | changes)), dry_run=dry_run, render=html_report)

    def prompt(self, name: str) -> Prompt:
        """A prompt file of `prompts/` (`triage` or `prompts/triage.md`), or a saved one (`triage@3`).

        Raises:
            NotFoundError, PromptError: there is none, or it is malformed.
        """
        from workbench.registry.prompts import find_prompt

        return find_prompt(self.layout, name)

    def save_prompt(self, name: str, prompt: Prompt, *, message: str = "") -> int:
        """Keep a prompt as the next version of `name`; the same prompt again is the version it has."""
        from workbench.registry.prompts import save_prompt

        return save_prompt(self.layout, name, prompt, message=message)

    def experiment(
        self,
        name: str,
        *,
        dataset: Dataset,
        variants: Mapping[str, Pipeline],
        scorers: Sequence[Scorer],
        repeats: int = 1,
        primary: str = "",
        arguments: Sequence[str] | None = None,
    ) -> Experiment:
        """What is compared on which rows by which scorers; the first variant is the baseline.

        Args:
            arguments: with which the notebook, run as a script, makes this very experiment, where its controls may stand
                otherwise than the arguments it was given (`["--limit=20"]`). The run keeps them with the notebook.

        Raises:
            UsageError: no variants, scorers or rows, or a name that does not fit.
        """
        from workbench.experiments.experiment import Experiment

        found = tuple(scorers)
        return Experiment(
            name, dataset, dict(variants), found, self.layout, repeats, primary, self._notebook, arguments
        )

    def index(self, name: str) -> Index:
        """An index by its name (the newest build) or a beginning of its digest, verified.

        Raises:
            NotFoundError: there is none.
            IntegrityError: its bytes are not what was built.
        """
        from workbench.retrieval.index import Index

        return Index.open(self.layout, name)

    def build_index(self, corpus: Corpus, recipe: IndexRecipe | None = None, *, name: str = "") -> Index:
        """Chunk and embed a corpus; what was built before is found again."""
        from workbench.retrieval.index import Index

        return Index.build(self.layout, corpus, recipe, name=name)

    def tune(
        self,
        corpus: Corpus,
        dev: Sequence[Question],
        test: Sequence[Question],
        space: TuneSpace | None = None,
        **options: Any,
    ) -> TuneResult:
        """Search over chunkers, embedders and ways of searching; see `tuning.tune.tune` for the options."""
        from workbench.tuning.tune import tune

        return tune(self.layout, corpus, dev, test, space, **options)

    def answers(self, run: Run, *, limit: int | None = None, **options: Any) -> Run:
        """Let the finalists of a tuning answer its test questions, scored by `answer_scorers`.

        Args:
            run: the one that the tuning ended with (`result.run`).
            limit: ask so many of the questions. options: as of `Experiment.run`.

        Raises:
            UsageError: the run is of no tuning.
            NotFoundError, ModelError: an index or the model is not here.
        """
        from workbench.tuning.answers import answer_experiment

        return answer_experiment(self.layout, run, limit=limit).run(**options)

    def finetune_recipe(self, recipe: FinetuneRecipe | str | Path, **settings: Any) -> FinetuneRecipe:
        """A fine-tuning recipe of `adapters/` (`triage` or `adapters/triage.yaml`), of any path, or one that is given.

        Args:
            settings: single training settings in place of the recipe's, such as `max_steps=50` or `rank=8`.

        Raises:
            NotFoundError: no such recipe or prompt file.
            UsageError: the file or a setting does not fit; names the field.
        """
        from workbench.finetune.recipe_files import changed, find_recipe

        found = find_recipe(self.layout, recipe) if isinstance(recipe, (str, Path)) else recipe
        return changed(found, settings)

    def plan_finetune(
        self, recipe: FinetuneRecipe | str | Path, *, pilot: bool = True, show_progress: bool = True, **settings: Any
    ) -> FinetunePlan:
        """What a fine-tuning takes: examples, tokens, steps, memory by part, time and disk, and what would fit instead.

        Args:
            recipe, settings: as of `finetune_recipe`.
            pilot: time the first steps of the training; without it no time is told, and it is quick.

        Raises:
            NotFoundError, UsageError: as `finetune_recipe`.
            DataError, ModelError: rows that cannot be trained on, or no such model; says which.
        """
        from workbench.finetune.plan import plan

        return plan(self.layout, self.finetune_recipe(recipe, **settings), pilot=pilot, show_progress=show_progress)

    def finetune(
        self,
        recipe: FinetuneRecipe | str | Path,
        *,
        fresh: bool = False,
        anyway: bool = False,
        show_progress: bool = True,
        **settings: Any,
    ) -> TrainResult:
        """Train an adapter, with a curve that grows in a notebook; goes on where it stopped, and finds what is finished.

        Args:
            recipe, settings: as of `finetune_recipe`.
            fresh: begin anew. anyway: try it even if the estimate says that it cannot fit.

        Raises:
            NotFoundError, UsageError, DataError, ModelError: as `plan_finetune`.
            OutOfMemoryError: it does not fit; the hint names settings that would.
            RunError: training went wrong, the disk does not suffice, or another process is at this very training.
        """
        from workbench.finetune.memory import give_back_at_once
        from workbench.finetune.plan import plan
        from workbench.finetune.record import training_of
        from workbench.finetune.result import finished
        from workbench.ui.training import train_live

        found = self.finetune_recipe(recipe, **settings)
        if anyway:
            give_back_at_once()
        elif fresh or finished(self.layout, training_of(self.layout, found)) is None:
            plan(self.layout, found, pilot=False, show_progress=False).prepare()
        return train_live(self.layout, found, resume=not fresh, show_progress=show_progress)

    def runs(self) -> list[Run]:
        """Every run, the newest first."""
        from workbench.experiments.run import list_runs

        return list_runs(self.layout)

    def run(self, name: str = "latest") -> Run:
        """A run by its id, a unique beginning of it, or `latest`."""
        from workbench.experiments.run import open_run

        return open_run(self.layout, name)

    def gate(self, run: Run, *, variant: str, over: str | None = None, policy: str | Path | None = None) -> GateResult:
        """What the policy says of a variant, without promoting it."""
        from workbench.registry.gate import judge
        from workbench.registry.policy import find_policy

        return judge(run, find_policy(self.layout, policy), variant, over).result

    def promote(
        self,
        run: Run,
        name: str,
        *,
        variant: str,
        over: str | None = None,
        alias: str | None = None,
        policy: str | Path | None = None,
    ) -> Artifact:
        """Store a variant as the next version of the artifact `name`, with its evidence, if the gate lets it.

        Raises:
            GateRefused: with the reasons; the refusal is on record.
        """
        from workbench.registry.promote import promote

        return promote(self.layout, run, name, variant, baseline=over, alias=alias, policy=policy)

    def artifact(self, name: str) -> Artifact:
        """An artifact by `name` (newest version), `name@version`, `name@alias` or `name@sha256:…`."""
        from workbench.registry.artifact import Artifact

        return Artifact.open(self.layout, name)

    def lineage(self, name: str) -> Lineage:
        """What an artifact came from (data, training, index, run, decision) and what points at it.

        Args:
            name: as of `artifact`.

        Raises:
            NotFoundError: there is none.
            IntegrityError: what is read of it is damaged.
        """
        from workbench.finetune.record import list_trainings
        from workbench.registry.lineage import lineage

        return lineage(self.layout, name, list_trainings(self.layout))

    def lineage_of_dataset(self, name: str) -> Lineage:
        """The trainings, adapters, runs, artifacts and aliases that used a data set.

        Args:
            name: `name` (every version), `name@version` or `name@sha256:…`.

        Raises:
            NotFoundError: there is none, and nothing used one.
        """
        from workbench.finetune.record import list_trainings
        from workbench.registry.lineage_uses import lineage_of_dataset

        return lineage_of_dataset(self.layout, name, list_trainings(self.layout))

    def reproduce(self, name: str, *, timeout_s: float | None = None, show_progress: bool = True) -> Reproduction:
        """Run the notebook of an artifact again on the recorded rows, and say whether the evidence comes out the same.

        The notebook is code of whoever promoted it. Nothing here is changed: it runs in a workspace of its own.

        Args:
            name: as of `artifact`.
            timeout_s: seconds after which the notebook is ended; never by default.

        Raises:
            NotFoundError: no such artifact, it holds no notebook, or its rows are not here.
            IntegrityError: what is read of it is damaged.
            RunError: the notebook fails, takes too long, or ends without its run.
            ComparisonError: it makes another experiment; says what differs.
        """
        from workbench.registry.reproduce import reproduce

        return reproduce(self.layout, name, timeout_s=timeout_s, show_progress=show_progress)

    def artifacts(self) -> list[dict[str, Any]]:
        """Every version: name, version, digest, aliases, created_at."""
        from workbench.registry import names

        return [entry.to_json() for entry in names.ls(self.layout)]

    def events(self) -> Events:
        """Calls, scores, feedback and reviews on disk: to record them, read them, compact and remove them."""
        from workbench.analytics.open import open_events

        return open_events(self.layout)

    def sql(self, query: str, **parameters: Any) -> pl.DataFrame:
        """The rows of one SELECT over `calls`, `scores`, `runs`, `feedback`, `reviews` and `artifacts`.

        Whoever is restricted to tenants sees their rows only, here and in `frame` and `duckdb`, and neither `runs` nor
        `artifacts`, which belong to no tenant.

        Args:
            parameters: values for `$name` in the query.

        Raises:
            UsageError: not one SELECT, or it is wrong; with the names that may have been meant.
        """
        return self.events().sql(query, parameters, tenants=access.current().tenants)

    def frame(self, name: str) -> pl.LazyFrame:
        """Every row of a view; what is filtered and not selected is not read.

        Raises:
            UsageError: there is no such view.
        """
        return self.events().frame(name, tenants=access.current().tenants)

    def duckdb(self) -> DuckDBPyConnection:
        """A DuckDB connection in memory with the views as of now, such as for `mo.sql(…, engine=ws.duckdb())`."""
        return self.events().connection(tenants=access.current().tenants)

    def export(self, rows: str | pl.DataFrame | pl.LazyFrame, path: str | Path) -> int:
        """Write a query's rows, or a frame, to a file that ends in `.csv`, `.parquet` or `.xlsx`. Returns how many there are.

        Raises:
            UsageError: the query is wrong, another ending, or more rows than Excel has.
        """
        from workbench.analytics.export import export

        return export(self.sql(rows) if isinstance(rows, str) else rows, path)

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def _repr_html_(self) -> str:
        names = ", ".join(self.datasets()) or "none"
        return f"<p><b>{escape(self.layout.settings.name)}</b> · {escape(self.root)}</p>" + callout(
            f"Data sets: {names}"
        )


def open(path: str | Path | None = None, *, notebook: str | Path | None = None) -> Workspace:
    """Open the workspace at `path`, or the nearest one at or above the current folder.

    Raises:
        WorkspaceError: there is none; the hint says how to make one.
    """
    layout = Layout.find(path)
    use(layout)
    return Workspace(layout, notebook=notebook)
