"""Export: a GGUF file by llama.cpp's converter, or the adapter alone; and `workbench finetune merge` and `export`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.finetune import convert_hf_to_gguf
from tests.finetune.small import PROMPT, make_layout, make_recipe, model_of
from tests.models.tiny import hollow_adapter, make_adapter
from workbench.cli.main import app
from workbench.errors import IntegrityError, ModelError, RunError, UsageError
from workbench.experiments.spec import read_experiment
from workbench.finetune import export as exporting
from workbench.finetune import gguf
from workbench.finetune import merge as merging
from workbench.finetune import plan as planning
from workbench.finetune import train as training
from workbench.finetune.export import export
from workbench.finetune.formats import GgufType
from workbench.finetune.quiet import versions_apart
from workbench.finetune.recipe import read_recipe
from workbench.finetune.train import train
from workbench.models.adapters import AdapterFolder
from workbench.models.peft_files import CONFIG, WEIGHTS
from workbench.models.store import find_model
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]
CONVERTER = Path(convert_hf_to_gguf.__file__)


@pytest.fixture(autouse=True)
def nobody_opened_a_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.workspace._opened", None)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gguf.VARIABLE, str(CONVERTER.parent))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("export") / "workspace")


@pytest.fixture(scope="module")
def adapter(layout: Layout) -> AdapterFolder:
    """Trained for long enough to be sure of its answers."""
    recipe = make_recipe(layout, epochs=20, max_steps=80, eval_every=80)
    return train(layout, recipe, show_progress=False).adapter


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_a_gguf_file_is_read_back_and_answers_as_the_adapter_does(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, kind: GgufType
) -> None:
    from gguf import GGUFReader

    file = tmp_path / "colours.gguf"
    result = export(layout, adapter, out=file, format="gguf", type=kind, show_progress=False)
    assert result.agreement is not None
    assert (result.agreement.equal, result.agreement.rows) == (12, 12)
    assert (result.path, result.size) == (file, file.stat().st_size)
    assert "12 of 12 rows" in str(result)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    assert types["blk.0.attn_q.weight"] == kind.upper()
    assert [path.name for path in tmp_path.iterdir()] == ["colours.gguf"]


@pytest.mark.usefixtures("converter")
def test_a_file_with_other_answers_is_refused(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVERTER_SCALE", "0.5")
    with pytest.raises(ModelError, match=r"the GGUF file was not kept: .* of 12 rows .*Export safetensors"):
        export(layout, adapter, out=tmp_path / "colours.gguf", format="gguf", show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("converter")
def test_a_converter_that_fails_says_why(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ask_adapter", lambda *_, **__: ([], None))
    target: dict[str, Any] = {"out": tmp_path / "colours.gguf", "format": "gguf"}
    monkeypatch.setenv("CONVERTER_FAILS", "NotImplementedError: BPE pre-tokenizer was not recognized")
    with pytest.raises(ModelError, match=r"no GGUF file of colours: NotImplementedError: BPE pre-tokenizer"):
        export(layout, adapter, **target)
    monkeypatch.setenv("CONVERTER_FAILS", "OSError: [Errno 28] No space left on device")
    with pytest.raises(RunError, match=r"disk of .* is full"):
        export(layout, adapter, **target)
    monkeypatch.setattr(gguf, "convert", lambda converter, model, file, kind: file.write_bytes(b"GGUF and no more"))
    with pytest.raises(ModelError, match=r"cannot be read back, so its answers are not known"):
        export(layout, adapter, **target)
    assert list(tmp_path.iterdir()) == []


def test_the_converter_is_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gguf.VARIABLE, raising=False)
    with pytest.raises(
        ModelError, match=r"convert_hf_to_gguf.py\) is not on this machine. Get it: git clone.*LLAMA_CPP"
    ):
        gguf.find_converter()
    module = tmp_path / "modules" / "convert_hf_to_gguf.py"
    module.parent.mkdir()
    shutil.copy(CONVERTER, module)
    monkeypatch.syspath_prepend(module.parent)
    assert gguf.find_converter() == [sys.executable, "-m", "convert_hf_to_gguf"]
    script = tmp_path / "convert_hf_to_gguf.py"
    shutil.copy(CONVERTER, script)
    script.chmod(0o755)
    assert gguf.find_converter() == [sys.executable, str(script)]
    for given in (CONVERTER, CONVERTER.parent):
        monkeypatch.setenv(gguf.VARIABLE, str(given))
        assert gguf.find_converter() == [sys.executable, str(CONVERTER)]
    monkeypatch.setenv(gguf.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"LLAMA_CPP is .*nowhere, where there is no convert_hf_to_gguf.py"):
        gguf.find_converter()


def test_safetensors_are_a_merged_model(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    result = export(layout, adapter, out=tmp_path / "colours", show_progress=False)
    model = find_model(result.path)
    assert (result.digest, result.size, result.format) == (model.digest, model.size, "safetensors bf16")


def test_an_adapter_alone_is_what_peft_loads(layout: Layout, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    adapter = make_adapter(layout, model_of(layout.root), "alone")
    result = export(layout, adapter, out=tmp_path / "alone", adapter_only=True)
    assert (result.digest, result.agreement) == (adapter.digest, None)
    assert {path.name for path in result.path.iterdir()} == {CONFIG, WEIGHTS, "manifest.json"}
    base = AutoModelForCausalLM.from_pretrained(model_of(layout.root), dtype=torch.float32)
    with versions_apart():
        loaded = dict(PeftModel.from_pretrained(base, str(result.path)).named_parameters())
    for name, weights in load_file(adapter.path / WEIGHTS).items():
        assert torch.equal(loaded[name.replace(".weight", ".default.weight")], weights)

    (adapter.path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=WEIGHTS):
        export(layout, adapter, out=tmp_path / "again", adapter_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["alone"]
    shutil.rmtree(adapter.path)


@pytest.mark.usefixtures("converter")
def test_what_does_not_go_together_is_refused(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    taken = tmp_path / "taken.gguf"
    taken.write_text("kept")
    with pytest.raises(UsageError, match="exists already"):
        export(layout, adapter, out=taken, format="gguf")
    with pytest.raises(UsageError, match=r"End it in \.gguf"):
        export(layout, adapter, out=tmp_path / "colours", format="gguf")
    with pytest.raises(UsageError, match="alone is exported as safetensors"):
        export(layout, adapter, out=tmp_path / "colours.gguf", format="gguf", adapter_only=True)
    with pytest.raises(UsageError, match="exists already"):
        export(layout, adapter, out=taken, adapter_only=True)
    assert taken.read_text() == "kept"


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["finetune", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("converter")
def test_the_commands(layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)
    merged = json.loads(call("merge", "colours", "--out", str(tmp_path / "merged"), "--json"))
    assert (merged["adapter"], merged["model"]) == (adapter.digest, str(tmp_path / "merged"))
    assert (merged["agreement"]["share"], merged["agreement"]["differing"]) == (1.0, [])
    said = call("merge", "colours", "--out", str(tmp_path / "again"), "--dtype", "fp16")
    assert "12 of 12 rows" in said
    assert f'Pipeline(model="{tmp_path / "again"}", …)' in said

    (layout.root / "prompt.md").write_text(PROMPT)
    asked = ("--dataset", "colours", "--split", "dev", "--prompt", "prompt.md")
    file = tmp_path / "colours.gguf"
    written = json.loads(call("export", "colours", "--format", "gguf", "--out", str(file), *asked, "--json"))
    assert (written["path"], written["format"], written["bytes"]) == (str(file), "gguf f16", file.stat().st_size)
    alone = json.loads(call("export", adapter.digest, "--adapter-only", "--out", str(tmp_path / "alone"), "--json"))
    assert (alone["digest"], alone["agreement"]) == (adapter.digest, None)
    with pytest.raises(UsageError, match="exists already"):
        call("export", "colours", "--out", str(tmp_path / "alone"))


def test_the_guide_s_blocks_are_what_they_seem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    layout = Layout.find(tmp_path)
    adapter = hollow_adapter(layout, "triage")
    guide = (ROOT / "docs" / "finetuning.md").read_text("utf-8")

    [block] = re.findall(r"```python adapter\n(.*?)```", guide, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "finetuning.md", "exec"), names)
    assert names["tuned"].adapter == adapter.digest

    recipe, preferred, experiment = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert read_recipe(layout, tmp_path / "recipe.yaml").name == "triage"
    (tmp_path / "preferred.yaml").write_text(preferred)
    found = read_recipe(layout, tmp_path / "preferred.yaml")
    assert (found.kind, found.adapter) == ("dpo", adapter.digest)
    (tmp_path / "experiment.yaml").write_text(experiment)
    assert read_experiment(layout, tmp_path / "experiment.yaml").variants["tuned"].adapter == adapter.digest


def test_every_command_of_the_guide_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    called: list[str] = []

    def stop(*_: Any, **__: Any) -> None:
        called.append("")
        raise RuntimeError("far enough")

    for module, name in ((merging, "merge"), (exporting, "export"), (planning, "plan"), (training, "train")):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("adapters", "datasets", "launch", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    hollow_adapter(Layout.find(tmp_path), "triage")
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs" / "finetuning.md").read_text("utf-8")
    _, preferred, _ = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "adapters" / "triage-preferred.yaml").write_text(preferred)
    lines = [line for line in guide.splitlines() if line.startswith("workbench finetune ")]
    for line in lines:
        result = CliRunner().invoke(app, line.split()[1:])
        assert result.exit_code != 2, result.output
    assert len(called) == len([line for line in lines if line.split()[2] in ("merge", "export", "plan", "run")])
