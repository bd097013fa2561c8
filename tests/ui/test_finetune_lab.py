"""From the controls of the fine-tuning notebook to an adapter and a comparison; what does not fit is said first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.finetune.small import PROMPT, make_layout, make_recipe, model_of
from workbench import api
from workbench.errors import DataError, GateRefused, NotFoundError, OutOfMemoryError, UsageError
from workbench.finetune.memory import MemoryEstimate
from workbench.finetune.pilot import Pilot
from workbench.finetune.plan import Alternative
from workbench.finetune.train import TrainResult
from workbench.ui import finetune_lab, finetune_view
from workbench.ui.charts import Nothing
from workbench.ui.finetune_lab import FinetuneChoices
from workbench.workspace import Layout

WRITTEN = {
    "quantization": "none",
    "rank": 4,
    "alpha": 8,
    "batch_size": 4,
    "epochs": 1.0,
    "max_steps": 4,
    "eval_every": 2,
    "learning_rate": 5e-3,
    "patience": 9,
}


def make_workspace(folder: Path) -> api.Workspace:
    """The data set has a third split, `test`, that no training sees."""
    layout = make_layout(folder)
    data = layout.datasets / "colours"
    [file] = data.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, line in enumerate(lines):
        if number % 5 == 3:
            line["part"] = "test"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "adapters").mkdir()
    layout.prompts.mkdir(exist_ok=True)
    (layout.prompts / "colours.md").write_text(PROMPT)
    (layout.prompts / "other.md").write_text("{{ question }}")
    (layout.prompts / "broken.md").write_text("---\nnothing: here\n---\n")
    write(folder, "colours", {})
    return api.open(folder)


def write(folder: Path, name: str, fields: dict[str, Any]) -> None:
    recipe = {"name": name, "dataset": "colours", "model": str(model_of(folder)), "prompt": "prompts/colours.md"}
    (folder / "adapters" / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, "settings": WRITTEN, **fields}))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> api.Workspace:
    return make_workspace(tmp_path_factory.mktemp("lab") / "workspace")


@pytest.fixture(scope="module")
def result(workspace: api.Workspace) -> TrainResult:
    return workspace.finetune("colours", show_progress=False)


def test_controls_that_say_what_the_file_says_leave_the_recipe(workspace: api.Workspace) -> None:
    written = workspace.finetune_recipe("colours")
    same = FinetuneChoices().with_controls(
        {"recipe": "colours", "preset": finetune_lab.AS_WRITTEN, "epochs": 1.0, "rank": 4, "learning_rate": 5e-3}
    )
    assert finetune_lab.recipe_of(workspace, same).digest == written.digest
    assert finetune_lab.recipe_of(workspace, FinetuneChoices()).digest == written.digest


def test_other_settings_are_a_trial_and_alpha_follows_the_rank(workspace: api.Workspace) -> None:
    trial = finetune_lab.recipe_of(workspace, FinetuneChoices(rank=6, max_steps=3))
    assert trial.name == "colours-trial"
    assert (trial.settings.rank, trial.settings.alpha, trial.settings.max_steps) == (6, 12, 3)
    assert trial.settings.learning_rate == 5e-3
    preset = finetune_lab.recipe_of(workspace, FinetuneChoices(preset="balanced"))
    assert (preset.settings.rank, preset.settings.epochs, preset.settings.learning_rate) == (16, 3.0, 3e-4)
    emptied = FinetuneChoices(rank=6).with_controls({"rank": None})
    assert finetune_lab.recipe_of(workspace, emptied).name == "colours"


def test_presets_and_recipes_are_offered_with_the_preferred_one_first(workspace: api.Workspace) -> None:
    assert finetune_lab.presets()[0] == finetune_lab.AS_WRITTEN
    assert finetune_lab.presets("thorough")[0] == "thorough"
    assert finetune_lab.recipes(workspace) == ["colours"]
    path = str(workspace.root / "adapters" / "colours.yaml")
    assert finetune_lab.recipes(workspace, path) == [path, "colours"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"colour": "red"}, "unknown argument --colour"),
        ({"max-steps": "many"}, "does not fit"),
        ({"limit": -1}, "limit is -1"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"learning-rate": -0.1}, "learning rate is -0.1"),
    ],
)
def test_arguments_that_make_no_choices_are_refused(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        FinetuneChoices.from_arguments(arguments)


def test_settings_that_do_not_fit_are_named(workspace: api.Workspace) -> None:
    with pytest.raises(UsageError, match="preset"):
        finetune_lab.recipe_of(workspace, FinetuneChoices(preset="huge"))
    with pytest.raises(UsageError, match=r"colours: settings\.rank"):
        finetune_lab.recipe_of(workspace, FinetuneChoices(rank=5000))
    with pytest.raises(UsageError, match=r"colours: settings\.speed"):
        workspace.finetune_recipe("colours", speed=2)


def test_a_recipe_that_is_not_there_says_which_are(workspace: api.Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Those in adapters/: colours"):
        workspace.finetune_recipe("colors")
    with pytest.raises(NotFoundError, match="Those in adapters/: colours"):
        finetune_lab.recipes(workspace, "colors")
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    empty = api.Workspace(Layout.find(tmp_path))
    with pytest.raises(NotFoundError, match="no fine-tuning recipe"):
        finetune_lab.recipes(empty)
    with pytest.raises(NotFoundError, match=r"adapters/mine\.yaml"):
        empty.finetune_recipe("mine")


def test_preferences_have_nothing_to_compare_by(workspace: api.Workspace) -> None:
    write(workspace.root, "pairs", {"kind": "dpo"})
    try:
        with pytest.raises(UsageError, match="pairs learns preferences"):
            finetune_lab.recipe_of(workspace, FinetuneChoices(recipe="pairs"))
    finally:
        (workspace.root / "adapters" / "pairs.yaml").unlink()


def test_a_malformed_recipe_is_named(workspace: api.Workspace, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\n")
    with pytest.raises(UsageError, match=r"one\.yaml: dataset"):
        workspace.finetune_recipe(tmp_path / "one.yaml")


def test_the_state_says_whether_there_is_something_to_train(workspace: api.Workspace, result: TrainResult) -> None:
    recipe = workspace.finetune_recipe("colours")
    assert "trained already" in finetune_lab.state(workspace, recipe)
    assert "make the adapter" in finetune_lab.state(workspace, recipe.with_settings(seed=9))


def test_one_that_was_stopped_says_that_it_goes_on(workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.finetune import train

    recipe = workspace.finetune_recipe("colours", seed=5)

    def stop(metrics: Any) -> None:
        if metrics["step"][-1] >= 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("workbench.finetune.callbacks.WATCH_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train.train(workspace.layout, recipe, show_progress=False, watch=stop)
    assert "stopped at step 2 of 4" in finetune_lab.state(workspace, recipe)


def test_what_is_learned_is_tinted(workspace: api.Workspace) -> None:
    view = finetune_view.example_view(workspace, workspace.finetune_recipe("colours"))
    assert "36 train rows" in str(view)
    assert "only they are learned" in str(view)
    assert "Name the colour." in str(view)
    every = finetune_view.example_view(workspace, workspace.finetune_recipe("colours", completion_only=False))
    assert "all tokens are learned" in str(every)
    with pytest.raises(DataError, match="no row of at most 8 tokens"):
        finetune_view.example_view(workspace, workspace.finetune_recipe("colours", max_length=8))


def test_rows_are_drawn_by_split_with_what_each_is_for(workspace: api.Workspace) -> None:
    drawn = finetune_view.data_chart(workspace, workspace.finetune_recipe("colours")).to_dict()
    rows = {row["split"]: row["rows"] for row in drawn["data"]["values"]}
    assert rows == {"train (36): trains": 36, "dev (12): chooses the checkpoint": 12, "test (12): compares": 12}


def test_a_plan_is_drawn_by_part_and_what_would_fit_beside_it(workspace: api.Workspace) -> None:
    plan = workspace.plan_finetune("colours", pilot=False)
    memory, time = finetune_view.plan_charts(plan)
    assert isinstance(time, Nothing)
    assert {row["bar"] for row in memory.to_dict()["data"]["values"]} == {"training", "loading the weights"}
    assert "fits" in str(finetune_view.verdict(plan))
    tight = dataclasses.replace(
        plan,
        memory=MemoryEstimate(100, 10, 10, 20, 300, 0, 150),
        available_mb=200,
        alternatives=(Alternative({"micro_batch": 1}, MemoryEstimate(100, 10, 10, 20, 40, 0, 150)),),
    )
    drawn = finetune_view.memory_chart(tight).to_dict()["layer"]
    assert "with micro_batch: 1" in {row["bar"] for row in drawn[0]["data"]["values"]}
    assert drawn[1]["data"]["values"] == [{"free": 200}]
    assert "It would fit with micro_batch: 1" in str(finetune_view.verdict(tight))


@pytest.mark.parametrize(
    ("train_s", "unit", "values"), [(90.0, "seconds", [90.0, 30.0]), (600.0, "minutes", [10.0, 0.5])]
)
def test_time_is_drawn_in_a_unit_that_reads_well(
    workspace: api.Workspace, train_s: float, unit: str, values: list[float]
) -> None:
    plan = workspace.plan_finetune("colours", pilot=False, max_steps=1)
    drawn = finetune_view.time_chart(dataclasses.replace(plan, pilot=Pilot(2, 100.0, train_s, 30.0))).to_dict()
    assert [row["time"] for row in drawn["data"]["values"]] == values
    assert [row["what"] for row in drawn["data"]["values"]] == ["1 step", "1 look at dev"]
    assert unit in drawn["title"]


def test_what_cannot_fit_is_refused_before_it_is_trained(
    workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.finetune.plan.available_mb", lambda device: 0.001)
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        workspace.finetune("colours", seed=7, show_progress=False)
    assert workspace.finetune("colours", seed=7, max_steps=1, anyway=True, show_progress=False).steps == 1


def test_prompts_of_the_base_have_the_recipes_variables(workspace: api.Workspace) -> None:
    recipe = workspace.finetune_recipe("colours")
    assert finetune_lab.offered(workspace, recipe, FinetuneChoices()).prompts == [
        "8 examples of the train split",
        "colours",
    ]
    few = workspace.layout.prompts / "colours-few-shot.md"
    few.write_text(PROMPT)
    try:
        assert finetune_lab.offered(workspace, recipe, FinetuneChoices()).prompts[0] == "colours-few-shot"
        trial = finetune_lab.recipe_of(workspace, FinetuneChoices(rank=6))
        assert finetune_lab.offered(workspace, trial, FinetuneChoices()).prompts[0] == "colours-few-shot"
    finally:
        few.unlink()
    assert finetune_lab.offered(workspace, recipe, FinetuneChoices(prompt="colours")).prompts[0] == "colours"
    with pytest.raises(NotFoundError, match="no prompt 'nothing'"):
        finetune_lab.offered(workspace, recipe, FinetuneChoices(prompt="nothing"))
    with pytest.raises(UsageError, match="no scorer 'beauty' to decide by"):
        finetune_lab.offered(workspace, recipe, FinetuneChoices(scorer="beauty"))


def test_the_base_with_examples_is_compared_with_the_adapter_without(
    workspace: api.Workspace, result: TrainResult
) -> None:
    recipe = workspace.finetune_recipe("colours")
    experiment = finetune_lab.experiment(workspace, recipe, result, FinetuneChoices(shots=3))
    base, tuned = experiment.variants["prompted"], experiment.variants["tuned"]
    assert len(experiment.rows) == 12
    assert (len(base.prompt.examples), base.adapter) == (3, None)
    assert (tuned.prompt, tuned.adapter) == (recipe.prompt, result.adapter.digest)
    assert len(finetune_lab.experiment(workspace, recipe, result, FinetuneChoices(limit=5)).rows) == 5
    bare = finetune_lab.experiment(workspace, recipe, result, FinetuneChoices(shots=0))
    assert bare.variants["prompted"].prompt == recipe.prompt


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_that_the_adapter_has_seen_are_refused(workspace: api.Workspace, result: TrainResult, split: str) -> None:
    with pytest.raises(UsageError, match=f"has seen the split '{split}'"):
        finetune_lab.experiment(workspace, workspace.finetune_recipe("colours"), result, FinetuneChoices(split=split))


def test_the_gate_refuses_so_few_rows(workspace: api.Workspace, result: TrainResult) -> None:
    experiment = finetune_lab.experiment(workspace, workspace.finetune_recipe("colours"), result, FinetuneChoices())
    run = experiment.run(show_progress=False)
    decided = finetune_lab.decisions(run.compare("prompted"))
    assert [decision.scorer for decision in decided] == ["exact", "latency", "tokens"]
    assert decided[0].n == 12
    assert not finetune_lab.gate(workspace, run).passed
    with pytest.raises(GateRefused, match="rows"):
        finetune_lab.promote(workspace, run, "colours", "staging")
    assert not workspace.artifacts()


def test_a_recipe_given_as_an_object_is_trained_as_it_is(workspace: api.Workspace) -> None:
    recipe = make_recipe(workspace.layout, max_steps=1, eval_every=1)
    assert workspace.plan_finetune(recipe, pilot=False).steps == 1
    assert workspace.plan_finetune(recipe, pilot=False, max_steps=2).steps == 2
