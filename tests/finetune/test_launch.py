"""Training in two processes on the CPU (gloo): the adapter of one process, and errors that come through."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
from typer.testing import CliRunner

from tests.finetune.small import PROMPT, make_layout, make_recipe, model_of
from tests.finetune.test_preference import add_pairs, dpo, rows
from workbench.cli.main import app
from workbench.errors import DataError, MissingExtraError, RunError, UsageError
from workbench.finetune import launch as launching
from workbench.finetune.launch import LaunchFile, launch
from workbench.finetune.recipe import TrainSettings
from workbench.finetune.record import Training
from workbench.finetune.train import TrainResult, first_micro_batch, train
from workbench.workspace import Layout

FILES = Path(__file__).parents[2] / "launch"
TWO = FILES / "two-processes.yaml"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = make_layout(tmp_path / "workspace")
    add_pairs(layout, rows())
    return layout


def apart(one: TrainResult, other: TrainResult) -> float:
    """The largest difference between two adapters' weights."""
    first, second = (
        safetensors.torch.load_file(found.adapter.path / "adapter_model.safetensors") for found in (one, other)
    )
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_the_shipped_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = {path.stem: LaunchFile.read(path) for path in FILES.glob("*.yaml") if path.stem != "deepspeed-zero3"}
    assert {name: (file.processes, file.kind, file.cpu, file.sharded) for name, file in found.items()} == {
        "one-gpu": (1, "NO", False, False),
        "ddp": (4, "MULTI_GPU", False, False),
        "fsdp-qlora": (4, "FSDP", False, True),
        "two-processes": (2, "MULTI_GPU", True, False),
    }
    with pytest.raises(MissingExtraError, match="pip install deepspeed"):
        LaunchFile.read(FILES / "deepspeed-zero3.yaml")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    file = LaunchFile.read(FILES / "deepspeed-zero3.yaml")
    assert (file.processes, file.kind, file.sharded) == (4, "DEEPSPEED", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("a: [", "not a configuration"),
        ("- a", "not a configuration"),
        ("num_processes: 2", "`distributed_type` must be specified"),
        ("distributed_type: DPP", "'DPP'"),
        ("distributed_type: MULTI_GPU\nproceses: 2", "proceses"),
        ("distributed_type: MULTI_GPU\nmachine_rank: 0", "for GPUs, and there is none"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, text: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    path = tmp_path / "launch.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=said):
        LaunchFile.read(path)


def test_a_batch_that_cannot_be_dealt_out_is_refused(layout: Layout) -> None:
    with pytest.raises(UsageError, match="3 rows cannot be dealt out to 2 processes"):
        launch(layout, make_recipe(layout, batch_size=3), LaunchFile.read(TWO))


@pytest.mark.parametrize(
    ("batch", "micro", "count", "expected"),
    [(8, None, 1, 8), (8, None, 2, 4), (12, 6, 3, 4), (12, 6, 1, 6), (12, 4, 2, 3)],
)
def test_pieces_of_a_batch_are_even_however_many_processes_share_it(
    batch: int, micro: int | None, count: int, expected: int
) -> None:
    found = first_micro_batch(TrainSettings(batch_size=batch, micro_batch=micro), count)
    assert found == expected
    assert batch % (found * count) == 0


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(layout, max_steps=6)
    seen: list[int] = []
    both = launch(
        layout, recipe, LaunchFile.read(TWO), show_progress=False, watch=lambda frame: seen.append(len(frame))
    )
    assert (both.stopped, both.steps, both.micro_batch) == ("steps", 6, 2)
    assert both.metrics["step"].to_list() == [1, 2, 3, 4, 5, 6]
    file = layout.root / "colours.yaml"
    (layout.root / "prompt.md").write_text(PROMPT)
    settings = recipe.settings.model_dump_json(exclude={"eval_every"}).replace("{", '{"eval_every": 3, ', 1)
    file.write_text(
        f"name: colours\ndataset: colours\nmodel: {model_of(layout.root)}\nprompt: prompt.md\nsettings: {settings}\n"
    )
    monkeypatch.chdir(layout.root)
    # The same training by the command: it has ended.
    said = CliRunner().invoke(app, ["finetune", "run", "colours.yaml", "--launch", str(TWO), "--json"])
    assert json.loads(said.output)["path"] == str(both.adapter.path), said.output
    one = train(layout, recipe, resume=False, show_progress=False)
    assert apart(one, both) < 1e-5
    assert one.dev_loss == pytest.approx(both.dev_loss, rel=1e-5)
    assert one.metrics["loss"].to_list() == pytest.approx(both.metrics["loss"].to_list(), rel=1e-4)


@pytest.mark.slow
def test_two_processes_learn_the_preferences_of_one(layout: Layout) -> None:
    recipe = dpo(layout, max_steps=4, eval_every=4, batch_size=6)
    both = launch(layout, recipe, LaunchFile.read(TWO), show_progress=False)
    one = train(layout, recipe, resume=False, show_progress=False)
    assert apart(one, both) < 1e-5
    looks = [result.metrics.filter(pl.col("dev_loss").is_not_null()) for result in (one, both)]
    assert looks[0]["dev_loss"].to_list() == pytest.approx(looks[1]["dev_loss"].to_list(), rel=1e-4)
    assert looks[0]["dev_accuracy"].to_list() == pytest.approx(looks[1]["dev_accuracy"].to_list())


@pytest.mark.slow
def test_weights_that_are_dealt_out_train_the_same_adapter(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(layout, max_steps=4, eval_every=2)
    text = (FILES / "fsdp-qlora.yaml").read_text()
    path = layout.root / "fsdp.yaml"
    path.write_text(
        text.replace("mixed_precision: bf16", 'mixed_precision: "no"\nuse_cpu: true\nnum_processes: 2').replace(
            "efficient_loading: true", "efficient_loading: false"
        )
    )
    monkeypatch.setattr(launching, "WORKER", "tests.finetune.fsdp_on_cpu")
    file = LaunchFile.read(path)
    assert file.sharded
    both = launch(layout, recipe, file, show_progress=False)
    one = train(layout, recipe, resume=False, show_progress=False)
    assert apart(one, both) < 1e-5
    assert one.dev_loss == pytest.approx(both.dev_loss, rel=1e-5)


@pytest.mark.slow
def test_killed_processes_go_on_from_their_last_checkpoint(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(layout, max_steps=9, eval_every=3)
    expected = train(layout, recipe, show_progress=False)
    killed: list[str] = []

    def kill_at_a_checkpoint(process: object, training: Training, *args: object, **kwargs: object) -> None:
        while process.poll() is None:  # type: ignore[attr-defined]
            if any(training.working.glob("checkpoint-*")):
                os.killpg(process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
                killed.append(training.id)
                return
            time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(launching, "_follow", kill_at_a_checkpoint)
        with pytest.raises(RunError, match="exit code"):
            launch(layout, recipe, LaunchFile.read(TWO), resume=False, show_progress=False)
    assert len(killed) == 1
    result = launch(layout, recipe, LaunchFile.read(TWO), show_progress=False)
    assert result.metrics["step"].to_list() == list(range(1, 10))
    assert apart(expected, result) < 1e-5


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_said_here(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(layout, max_length=8, too_long="refuse", max_steps=3)
    with pytest.raises(DataError, match="has rows of more than 8 tokens"):
        launch(layout, recipe, LaunchFile.read(TWO), show_progress=False)
    monkeypatch.setattr(launching, "WORKER", "tests.finetune.no_such_module")
    with pytest.raises(RunError, match=r"exit code 1 and without a result.*launch\.log"):
        launch(layout, make_recipe(layout, max_steps=2), LaunchFile.read(TWO), show_progress=False)
    assert any("no_such_module" in log.read_text() for log in layout.trainings.glob("*/launch.log"))
