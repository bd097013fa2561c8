"""Experiment: variants × data set × scorers. Its identity is the digest of these."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import surroundings
from workbench.data.row import Row
from workbench.errors import RunError, RunLockedError, UsageError
from workbench.experiments import notebook_source, runner
from workbench.experiments.origin import name_in, new_run_id, now, origin
from workbench.experiments.records import RunManifest
from workbench.experiments.run import Run, list_runs
from workbench.experiments.scorers.base import PairScorer
from workbench.experiments.scorers.resources import RESOURCE_TYPES
from workbench.experiments.stopping import EarlyStopping, Watch, check_stoppable
from workbench.files import digest_json
from workbench.models.asking import Asking, asked_by
from workbench.models.budget import Budget
from workbench.models.response_cache import response_cache
from workbench.pipeline.pipeline import Pipeline
from workbench.progress import progress as progress_bar
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset
    from workbench.experiments.power import Plan
    from workbench.experiments.scorers.base import Scorer
    from workbench.models.engine import Engine


@dataclass(frozen=True)
class Experiment:
    """What is compared on which rows by which scorers.

    Attributes:
        variants: pipelines by name; the first is the baseline.
        repeats: how often each row is asked; repeats of a row are averaged, not counted as rows.
        primary: the scorer that decides; the first by default.
        notebook: the notebook that made it, where the front end does not say.
        arguments: with which the notebook, run as a script, makes this very experiment; those it was given by default.
        file: the YAML file that it was read from.
    """

    name: str
    dataset: Dataset
    variants: Mapping[str, Pipeline]
    scorers: Sequence[Scorer]
    layout: Layout
    repeats: int = 1
    primary: str = ""
    notebook: str | Path | None = None
    arguments: Sequence[str] | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if not self.variants:
            raise UsageError("an experiment needs at least one variant", hint="Pass variants={'base': pipeline, …}.")
        if not self.scorers:
            raise UsageError("an experiment needs at least one scorer", hint="Pass scorers=[wb.scorers.exact()].")
        names = [scorer.name for scorer in self.scorers]
        if len(set(names)) < len(names):
            raise UsageError(f"two scorers have the same name: {', '.join(names)}", hint="Give one another name.")
        if self.repeats < 1:
            raise UsageError(f"repeats is {self.repeats}", hint="Ask each row at least once.")
        if self.primary and self.primary not in names:
            raise UsageError(f"no scorer is called {self.primary!r}", hint=f"There are: {', '.join(names)}.")
        if not self.rows:
            raise UsageError(f"{self.dataset.name} has no rows here", hint="Check the split and the filter.")
        object.__setattr__(self, "primary", self.primary or names[0])

    @cached_property
    def rows(self) -> list[Row]:
        return self.dataset.rows()

    @cached_property
    def digest(self) -> str:
        """sha256 over the data set's content, each variant's pipeline, the scorers and the repeats."""
        return digest_json(
            {
                "name": self.name,
                "dataset": self.dataset.digest,
                "split": self.dataset.split_name,
                "variants": {name: pipeline.digest for name, pipeline in self.variants.items()},
                "order": list(self.variants),
                "scorers": [[scorer.name, scorer.digest] for scorer in self.scorers],
                "primary": self.primary,
                "repeats": self.repeats,
            }
        )

    def jobs(self) -> Iterator[runner.Job]:
        """Every question of the experiment: variant, row, repeat."""
        return (
            (variant, row, repeat) for variant in self.variants for repeat in range(self.repeats) for row in self.rows
        )

    def plan(self, *, pilot: int = 5, seed: int = 0, show_progress: bool = True) -> Plan:
        """What the whole would take and could show, measured on `pilot` rows of every variant. Nothing is recorded."""
        from workbench.experiments.planning import make_plan

        with progress_bar(len(self.variants), "Pilot", show=show_progress) as bar:
            return make_plan(self, min(pilot, len(self.rows)), random.Random(seed), bar)

    def watch(self, rule: EarlyStopping | None) -> Watch | None:
        """What decides when the run may stop; None without a rule.

        Raises:
            UsageError: the primary scorer has no limits or judges pairs, or the rows do not stand alone.
        """
        if rule is None:
            return None
        [scorer] = [scorer for scorer in self.scorers if scorer.name == self.primary]
        if isinstance(scorer, PairScorer):
            raise UsageError(f"{scorer.name} scores at the end of a run, so that it cannot stop it")
        bounds = check_stoppable(scorer, any(row.group is not None for row in self.rows), len(self.variants))
        quality = [s for s in self.scorers if s.config().get("type") not in RESOURCE_TYPES]
        return Watch(rule, list(self.variants), scorer, bounds, (len(self.variants) - 1) * max(1, len(quality)))

    def run(
        self,
        *,
        fresh: bool = False,
        budget_usd: float | None = None,
        stop_early: bool | EarlyStopping = False,
        show_progress: bool = True,
    ) -> Run:
        """Answer and score every row, going on where an earlier run of the same experiment stopped.

        A complete run without accidents is returned as it is. Ctrl-C keeps what is done.

        Args:
            fresh: ask everything anew, the response cache included.
            budget_usd: dollars that the run may spend in all, what it has spent before included; rows beyond are errors
                of the kind `budget`, asked by the next `run`.
            stop_early: stop as soon as the decision is certain; see `EarlyStopping`.

        Raises:
            ModelError: a model is not here (before anything is recorded).
            UsageError: a rule for early stopping that does not fit.
            RunError: the disk is full; what was recorded is kept.
        """
        rule = (EarlyStopping() if stop_early else None) if isinstance(stop_early, bool) else stop_early
        self.watch(rule)
        engines = {name: pipeline.engine(self.layout.settings) for name, pipeline in self.variants.items()}
        for name, pipeline in self.variants.items():
            pipeline.check_engine(engines[name])
        models = {name: engine.info.to_dict() for name, engine in engines.items()}
        earlier = [] if fresh else self.earlier_runs(rule)
        open_run = next((run for run in earlier if not run.complete or run.failed), None)
        if open_run is None and earlier:
            return earlier[0]
        for run in (open_run, self._new_run(models, rule)):
            if run is None:
                continue
            try:
                with run.lock():
                    self._execute(run, engines, fresh, budget_usd, show_progress)
                return run
            except RunLockedError:
                continue  # another process is at work on that run: this one gets its own
        raise RunLockedError("every run of this experiment is being written", hint="Try again.")

    def _execute(
        self, run: Run, engines: Mapping[str, Engine], fresh: bool, budget_usd: float | None, show_progress: bool
    ) -> None:
        cache = response_cache(self.layout)
        try:
            if not (run.folder / "run.json").exists():
                self._remember_dataset()
                self._keep_notebook(run)
                run.save_manifest()
            budget = None if budget_usd is None else Budget(budget_usd, spent_usd=run.spent_usd)
            rules = Asking(cache, read=not fresh, budget=budget)
            with asked_by(rules), progress_bar(run.expected, self.name, show=show_progress) as bar:
                runner.execute(self, run, engines, progress=bar)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RunError(
                f"the disk of {self.layout.runs} is full", hint="Make room and run again: what was answered is kept."
            ) from error
        finally:
            if cache is not None:
                cache.trim()
                cache.close()

    def earlier_runs(self, rule: EarlyStopping | None = None) -> list[Run]:
        """Runs of this very experiment with the models that are here now and the same rule, the newest first."""
        settings = self.layout.settings
        digests = {name: pipeline.engine(settings).info.digest for name, pipeline in self.variants.items()}
        return [
            run
            for run in list_runs(self.layout)
            if run.manifest.experiment_digest == self.digest
            and run.manifest.early_stopping == rule
            and {name: model["digest"] for name, model in run.manifest.models.items()} == digests
        ]

    def _remember_dataset(self) -> None:
        from workbench.data.store import snapshot

        snapshot(self.layout, self.dataset)

    def _keep_notebook(self, run: Run) -> None:
        """Keep what made the run beside its manifest: the notebook, else the YAML file, as it is now."""
        book = surroundings.notebook(self.notebook)
        file = Path(book.path) if book else self.file
        if file is None:
            return
        given = self.arguments
        if given is None:
            given = surroundings.arguments() if book else ()
        name = name_in(self.layout.root, file)
        digest = notebook_source.keep(
            run.folder, file, name, arguments=given, dataset=self.dataset, experiment=book is None
        )
        if book and digest:
            # It may have been saved since the manifest was made.
            run.manifest = run.manifest.model_copy(update={"notebook": name, "notebook_digest": digest})

    def _new_run(self, models: dict[str, dict[str, str]], rule: EarlyStopping | None) -> Run:
        at = now()
        run_id = new_run_id(self.digest, at)
        manifest = RunManifest(
            run_id=run_id,
            experiment=self.name,
            experiment_digest=self.digest,
            dataset=self.dataset.name,
            dataset_digest=self.dataset.digest,
            split=self.dataset.split_name,
            rows=len(self.rows),
            repeats=self.repeats,
            variants={name: pipeline.model_dump(mode="json") for name, pipeline in self.variants.items()},
            pipeline_digests={name: pipeline.digest for name, pipeline in self.variants.items()},
            scorers=[_described(scorer) for scorer in self.scorers],
            primary=self.primary,
            models=models,
            started_at=at,
            early_stopping=rule,
            **origin(self.layout.root, self.notebook),
        )
        return Run(self.layout.runs / run_id, manifest)


def _described(scorer: Scorer) -> dict[str, Any]:
    return {
        "name": scorer.name,
        "digest": scorer.digest,
        "kind": scorer.kind,
        "direction": scorer.direction,
        "on_error": scorer.on_error,
        "bounds": None if scorer.bounds is None else list(scorer.bounds),
        "config": scorer.config(),
    }
