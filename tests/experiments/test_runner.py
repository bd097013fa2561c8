"""Runs: every row once, whatever happens on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import ROWS, make_experiment
from workbench import api
from workbench.data.store import import_dataset
from workbench.errors import RunLockedError, UsageError
from workbench.experiments import scorers
from workbench.experiments.run import Run
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt


def test_every_row_is_asked_once_of_every_variant(workspace: api.Workspace, instant: InstantEngine) -> None:
    run = make_experiment(workspace).run()
    calls = run.calls()
    assert run.complete
    assert run.failed == 0
    assert instant.asked == 2 * ROWS
    assert calls.select("variant", "row_id", "repeat").n_unique() == len(calls) == 2 * ROWS
    row = calls.filter((calls["variant"] == "loud") & (calls["row_id"] == "q7")).row(0, named=True)
    assert (row["output"], row["result"], row["target"]) == ("WORD7", '"WORD7"', '"word7"')
    assert len(run.scores()) == 2 * 2 * ROWS
    assert not run.journal.exists()


def test_a_complete_run_is_not_asked_again(workspace: api.Workspace, instant: InstantEngine) -> None:
    first = make_experiment(workspace).run()
    assert make_experiment(workspace).run().id == first.id
    assert instant.asked == 2 * ROWS
    fresh = make_experiment(workspace).run(fresh=True)
    assert fresh.id != first.id
    assert instant.asked == 4 * ROWS


def test_another_prompt_is_another_run(workspace: api.Workspace) -> None:
    first = make_experiment(workspace).run()
    changed = Pipeline(model="instant", prompt=Prompt.from_text("Please: {{ text }}"))
    other = workspace.experiment(
        "quiet-or-loud",
        dataset=workspace.dataset("questions"),
        variants={"quiet": changed, "loud": changed},
        scorers=[scorers.exact()],
    ).run()
    assert other.id != first.id


def test_errors_are_rows_and_are_asked_again(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.failing = {"word5", "word6"}
    run = make_experiment(workspace).run()
    assert run.complete
    assert run.failed == 4
    failed = run.calls().filter(run.calls()["error_kind"] == "engine")
    assert set(failed["row_id"]) == {"q5", "q6"}
    assert failed["output"].to_list() == [None] * 4
    asked, instant.failing = instant.asked, set()
    again = make_experiment(workspace).run()
    assert again.id == run.id
    assert again.failed == 0
    assert instant.asked == asked + 4
    assert len(again.calls()) == 2 * ROWS
    assert len(again.scores()) == 2 * 2 * ROWS


def test_an_engine_that_breaks_loses_nothing(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.breaking = 10
    run = make_experiment(workspace).run()
    assert run.failed == 2 * (ROWS - 10)
    assert set(run.calls().filter(run.calls()["error_kind"] == "engine")["error"]) == {"RuntimeError: the engine broke"}
    instant.breaking = None
    assert make_experiment(workspace).run().failed == 0
    assert instant.asked == 2 * ROWS


def test_an_answer_that_is_rejected_is_wrong_and_not_asked_again(
    workspace: api.Workspace, instant: InstantEngine
) -> None:
    strict = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }}"), response_schema={"type": "object"})
    experiment = workspace.experiment(
        "strict", dataset=workspace.dataset("questions"), variants={"strict": strict}, scorers=[scorers.exact()]
    )
    run = experiment.run()
    assert set(run.calls()["error_kind"]) == {"invalid_output"}
    assert run.failed == 0
    assert set(run.scores()["value"]) == {0.0}
    experiment.run()
    assert instant.asked == ROWS


def test_interrupted_between_parquet_and_manifest_it_loses_and_doubles_nothing(
    workspace: api.Workspace, instant: InstantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Run, finished_at: str) -> None:
        self.calls().write_parquet(self.folder / "calls.parquet")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "compact", cut)
        with pytest.raises(KeyboardInterrupt):
            make_experiment(workspace).run()
    run = make_experiment(workspace).run()
    assert run.complete
    assert len(workspace.runs()) == 1
    assert instant.asked == len(run.calls()) == 2 * ROWS
    assert len(run.scores()) == 2 * 2 * ROWS


def test_a_journal_and_parquet_together_hold_each_row_once(workspace: api.Workspace, instant: InstantEngine) -> None:
    experiment = make_experiment(workspace)
    run = experiment.run()
    before = run.calls()
    # What a kill between writing Parquet and dropping the journal leaves behind.
    from workbench.events.journal import JournalWriter
    from workbench.experiments.records import Call, Score
    from workbench.experiments.run import journal_entry

    calls = [Call(**row) for row in run.calls().to_dicts()]
    scores = [Score(**row) for row in run.scores().to_dicts()]
    with JournalWriter(run.journal) as journal:
        for call in calls[:7]:
            mine = [s for s in scores if (s.variant, s.row_id) == (call.variant, call.row_id)]
            journal.append([journal_entry(call, mine)])
    again = Run(run.folder)
    assert again.calls().equals(before)
    assert len(again.scores()) == len(run.scores())


def test_repeats_are_calls_but_not_rows(workspace: api.Workspace) -> None:
    run = make_experiment(workspace, repeats=3).run()
    assert len(run.calls()) == 2 * 3 * ROWS
    assert run.compare().row("loud").n == ROWS


def test_a_run_records_where_it_came_from(workspace: api.Workspace, tmp_path: Path) -> None:
    notebook = tmp_path / "mine.py"
    notebook.write_text("print('hello')\n")
    mine = api.open(workspace.root, notebook=notebook)
    run = make_experiment(mine).run()
    manifest = run.manifest
    assert manifest.notebook == "mine.py"
    assert set(run.calls()["notebook"]) == {manifest.notebook_digest}
    assert manifest.dataset_digest == workspace.dataset("questions").digest
    assert manifest.environment["polars"]
    assert json.loads((run.folder / "run.json").read_text())["format_version"] == 1


def test_a_run_that_is_being_written_is_left_alone(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.failing = {"word1"}
    run = make_experiment(workspace).run()
    with run.lock():
        other = make_experiment(workspace).run()
        assert other.id != run.id
        with pytest.raises(RunLockedError), Run(run.folder).lock():
            pass


def test_a_row_that_lacks_an_input_is_an_error_row(workspace: api.Workspace) -> None:
    pipeline = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }} {{ mood }}"))
    run = workspace.experiment(
        "lacking", dataset=workspace.dataset("questions"), variants={"only": pipeline}, scorers=[scorers.exact()]
    ).run()
    assert set(run.calls()["error_kind"]) == {"prompt"}
    assert "'mood'" in run.calls()["error"][0]


def test_the_plan_counts_all_calls_and_records_nothing(workspace: api.Workspace) -> None:
    plan = make_experiment(workspace, repeats=2).plan()
    assert plan.calls == 2 * 2 * ROWS
    assert plan.tokens_in == 2 * 2 * ROWS * 5
    assert plan.rows == ROWS
    assert workspace.runs() == []


def test_what_makes_no_experiment_is_refused(workspace: api.Workspace) -> None:
    dataset = workspace.dataset("questions")
    pipeline = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }}"))
    with pytest.raises(UsageError, match="at least one variant"):
        workspace.experiment("x", dataset=dataset, variants={}, scorers=[scorers.exact()])
    with pytest.raises(UsageError, match="same name"):
        workspace.experiment("x", dataset=dataset, variants={"a": pipeline}, scorers=[scorers.exact()] * 2)
    with pytest.raises(UsageError, match="no scorer is called"):
        workspace.experiment("x", dataset=dataset, variants={"a": pipeline}, scorers=[scorers.exact()], primary="y")


def test_the_rows_a_run_used_stay_readable(workspace: api.Workspace, tmp_path: Path) -> None:
    run = make_experiment(workspace).run()
    changed = tmp_path / "other.jsonl"
    changed.write_text('{"id": "q0", "text": "one row only", "label": "only"}\n')
    import_dataset(
        workspace.layout, changed, name="questions", input=("text",), target=("label",), id="id", replace=True
    )
    assert len(workspace.dataset("questions")) == 1
    assert workspace.dataset("questions@1").digest == run.manifest.dataset_digest
