"""Merging: the adapter's answers from one 16-bit model, or no model at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.test_disk import small_disk
from tests.finetune.small import PROMPT, make_layout, make_recipe, model_of
from tests.models.tiny import make_adapter, save_tiny_model
from workbench.errors import DataError, IntegrityError, ModelError, NotFoundError, RunError, UsageError
from workbench.finetune import merge as merging
from workbench.finetune.formats import Dtype
from workbench.finetune.merge import MergeResult, merge
from workbench.finetune.same_answers import REQUIRED, Agreement, Questions
from workbench.finetune.train import train
from workbench.models.adapters import AdapterFolder
from workbench.models.engine import Completion, Generation
from workbench.models.peft_files import WEIGHTS
from workbench.models.store import STARTER, find_model, verify_model
from workbench.pipeline.pipeline import Answer, Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.workspace import Layout

ASKED: dict[str, Any] = {"dataset": "colours", "prompt": Prompt.from_text(PROMPT)}


def asked(layout: Layout) -> dict[str, Any]:
    """What an adapter needs that was not trained here."""
    return {**ASKED, "base": str(model_of(layout.root)), "show_progress": False}


@pytest.fixture(autouse=True)
def nobody_opened_a_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.workspace._opened", None)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("merge") / "workspace")


@pytest.fixture(scope="module")
def adapter(layout: Layout) -> AdapterFolder:
    """Trained for long enough to be sure of its answers."""
    recipe = make_recipe(layout, epochs=20, max_steps=40, eval_every=40, learning_rate=1e-2)
    return train(layout, recipe, show_progress=False).adapter


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_merged_model_answers_as_the_adapter_does(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, dtype: Dtype
) -> None:
    result = merge(layout, adapter, out=tmp_path / "merged", dtype=dtype, show_progress=False)
    assert (result.agreement.equal, result.agreement.rows) == (12, 12)
    assert str(result.agreement) == "the adapter's answer to 12 of 12 rows of colours/dev"
    model = find_model(tmp_path / "merged")
    verify_model(model)
    assert (model.name, model.source) == ("merged", f"merge:model+colours@{adapter.digest[7:19]}")
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]

    prompt, generation = Prompt.from_text(PROMPT), Generation(max_new_tokens=8)
    merged = Pipeline(model=str(model.path), prompt=prompt, generation=generation)
    unmerged = merged.with_(model=str(model_of(layout.root)), adapter=adapter.digest)
    assert merged(text="der x") == unmerged(text="der x") == "red"


def test_the_sum_is_computed_in_fp32_and_rounded_once(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = load_file(model_of(layout.root) / "model.safetensors")
    lora = load_file(adapter.path / WEIGHTS)
    merged = load_file(merge(layout, adapter, out=tmp_path / "merged").model.path / "model.safetensors")
    assert merged.keys() == base.keys()
    scale = adapter.manifest.alpha / adapter.manifest.rank
    changed = 0
    for name, weights in base.items():
        a, b = (lora.get(f"base_model.model.{name.replace('.weight', f'.lora_{part}.weight')}") for part in "AB")
        expected = weights if a is None or b is None else weights + scale * (b @ a)
        changed += a is not None
        assert merged[name].dtype == torch.bfloat16
        # Sums in another order differ by the last bit of fp32, which now and then rounds the other way.
        assert (merged[name] != expected.bfloat16()).float().mean() < 1e-3
        torch.testing.assert_close(merged[name].float(), expected, rtol=2**-8, atol=1e-6)
    assert changed == adapter.manifest.modules


def test_everything_but_the_weights_is_the_base_s(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    base, merged = model_of(layout.root), merge(layout, adapter, out=tmp_path / "merged").model.path
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (merged / name).read_bytes() == (base / name).read_bytes()
    settings = json.loads((merged / "config.json").read_bytes())
    assert settings["dtype"] == "bfloat16"
    assert "transformers_version" not in settings
    assert (merged / "model.safetensors").stat().st_mode == (merged / "config.json").stat().st_mode


def test_the_same_merge_is_the_same_model(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    results: list[MergeResult] = [merge(layout, adapter, out=tmp_path / name, show_progress=False) for name in "ab"]
    assert results[0].model.digest == results[1].model.digest


def test_a_merged_model_can_have_a_name(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    result = merge(layout, "colours", name="colours-1", show_progress=False)
    assert find_model("colours-1") == result.model
    with pytest.raises(UsageError, match="colours-1 already"):
        merge(layout, adapter, name="colours-1")
    for name in ("", "a/b", "../up", "server:model", STARTER + " "):
        with pytest.raises(UsageError, match="not a name"):
            merge(layout, adapter, name=name)


def test_other_answers_are_refused_and_nothing_is_left(layout: Layout, tmp_path: Path) -> None:
    """Random weights are sure of nothing, so that a rounded bit changes what they say."""
    unsure = make_adapter(layout, model_of(layout.root), "unsure")
    target = tmp_path / "merged"
    with pytest.raises(ModelError, match=r"answer to \d of 12 rows of colours/dev.*'r\d+' \(.* became .*dtype fp16"):
        merge(layout, unsure, out=target, dtype="bf16", **asked(layout))
    assert nothing_in(tmp_path)
    with pytest.raises(ModelError, match=r"merged model \(fp16\) .* of 12 rows .*Use the adapter as it is"):
        merge(layout, unsure, out=target, **asked(layout))
    assert nothing_in(tmp_path)


def test_fp16_is_tried_where_bf16_changes_answers(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differ = Agreement("colours", "dev", 12, 3)
    compare, compared = Questions.compare, []

    def spoil_the_first(*arguments: Any) -> Agreement:
        compared.append(compare(*arguments))
        return differ if len(compared) == 1 else compared[-1]

    monkeypatch.setattr(Questions, "compare", spoil_the_first)
    result = merge(layout, adapter, out=tmp_path / "merged", show_progress=False)
    assert (result.dtype, result.agreement.equal) == ("fp16", 12)
    verify_model(result.model)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]

    huge = make_adapter(layout, model_of(layout.root), "very-huge", scale=1e6)
    monkeypatch.setattr(Questions, "compare", lambda *_: differ)
    with pytest.raises(ModelError, match=r"merged model \(bf16\) .* 3 of 12 rows.*Use the adapter as it is"):
        merge(layout, huge, out=tmp_path / "huge", **asked(layout))
    assert not (tmp_path / "huge").exists()


def test_without_the_training_s_recipe_it_must_be_said_what_to_ask(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path
) -> None:
    elsewhere = make_layout(tmp_path / "elsewhere" / "workspace")
    shutil.copytree(layout.adapters, elsewhere.adapters)
    target: dict[str, Any] = {"out": tmp_path / "merged", "base": str(model_of(elsewhere.root))}
    with pytest.raises(UsageError, match="--dataset NAME --split SPLIT --prompt FILE"):
        merge(elsewhere, adapter, **target)
    with pytest.raises(UsageError, match="--prompt"):
        merge(elsewhere, adapter, dataset="colours", split="dev", **target)
    with pytest.raises(NotFoundError, match="nowhere"):
        merge(elsewhere, adapter, split="nowhere", **ASKED, **target)
    assert merge(elsewhere, adapter, split="train", **ASKED, **target).agreement.rows == 48


def test_another_base_is_refused(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match=r"was trained on .*, and .*other is other .*--base"):
        merge(layout, adapter, out=tmp_path / "merged", base=str(other))
    foreign = make_adapter(layout, model_of(layout.root), "foreign", base_digest="sha256:" + "9" * 64)
    with pytest.raises(ModelError, match="999999999999"):
        merge(layout, foreign, out=tmp_path / "merged", **asked(layout))


def test_nothing_is_merged_into_a_quantized_base(layout: Layout, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "quantized")
    adapter = make_adapter(layout, base, "onto-quantized")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_4bit": True}}))
    onto = make_adapter(layout, model_of(layout.root), "onto", base_digest=find_model(base).digest)
    with pytest.raises(ModelError, match="nothing is merged into a quantized model"):
        merge(layout, onto, base=str(base), out=tmp_path / "merged")
    assert adapter.digest != onto.digest


def test_a_damaged_adapter_is_refused(layout: Layout, tmp_path: Path) -> None:
    adapter = make_adapter(layout, model_of(layout.root), "damaged")
    data = bytearray((adapter.path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (adapter.path / WEIGHTS).write_bytes(data)
    with pytest.raises(IntegrityError, match=WEIGHTS):
        merge(layout, adapter, out=tmp_path / "merged", **asked(layout))
    shutil.rmtree(adapter.path)
    assert nothing_in(tmp_path)


def test_an_adapter_without_effect_is_refused(layout: Layout, tmp_path: Path) -> None:
    idle = make_adapter(layout, model_of(layout.root), "idle", scale=0)
    with pytest.raises(ModelError, match="changes nothing"):
        merge(layout, idle, out=tmp_path / "merged", **asked(layout))
    assert nothing_in(tmp_path)


def test_weights_beyond_the_type_are_refused(layout: Layout, tmp_path: Path) -> None:
    huge = make_adapter(layout, model_of(layout.root), "huge", scale=1e6)
    with pytest.raises(ModelError, match=r"does not fit fp16.*bf16"):
        merge(layout, huge, out=tmp_path / "merged", dtype="fp16", **asked(layout))
    assert nothing_in(tmp_path)


def test_nothing_is_written_over(layout: Layout, adapter: AdapterFolder, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="exists already"):
            merge(layout, adapter, out=tmp_path / name)
    assert (tmp_path / "full" / "kept.txt").read_text() == (tmp_path / "file").read_text() == "kept"
    for arguments in ({}, {"out": tmp_path / "a", "name": "b"}):
        with pytest.raises(UsageError, match="--out"):
            merge(layout, adapter, **arguments)  # type: ignore[arg-type]


def test_whoever_comes_second_loses_nothing_but_its_work(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "merged" / "model.safetensors"

    def interfere(*arguments: Any) -> Any:
        first.parent.mkdir()
        first.write_text("another's")
        return made(*arguments)

    made = merging.make_merged
    monkeypatch.setattr(merging, "make_merged", interfere)
    with pytest.raises(UsageError, match="exists already"):
        merge(layout, adapter, out=tmp_path / "merged")
    assert first.read_text() == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_disk_without_room_is_told_before_the_work(
    layout: Layout, adapter: AdapterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "64k"):
        with pytest.raises(RunError, match=r"0 MB free, and 0 MB are needed.*another disk"):
            merge(layout, adapter, out=tmp_path / "disk" / "merged")
        # Free when it was asked, and full when it is written.
        monkeypatch.setattr(merging, "parameters", lambda base: 0)
        with pytest.raises(RunError, match=r"disk of .*disk is full; nothing was kept"):
            merge(layout, adapter, out=tmp_path / "disk" / "merged")
        assert nothing_in(tmp_path / "disk")


@given(rows=st.integers(1, 500), data=st.data())
def test_enough_is_99_percent_and_no_less(rows: int, data: st.DataObject) -> None:
    equal = data.draw(st.integers(0, rows))
    agreement = Agreement("d", "dev", rows, equal)
    assert agreement.enough == (rows - equal <= rows * (100 - REQUIRED) // 100)
    assert f"{equal} of {rows} rows" in str(agreement.refusal("it", "Try again."))


def said(text: str | None, kind: str = "too_long") -> Answer:
    return Answer(text, Completion(text), None) if text is not None else Answer(None, Completion(None), kind, kind)


def test_rows_that_neither_can_be_asked_are_left_out() -> None:
    questions = Questions("d", "dev", Prompt.from_text(PROMPT), ("a", "b", "c"), ({}, {}, {}), ())
    found = questions.compare([said("x"), said(None), said("y")], [said("x"), said(None), said(None)])
    assert (found.rows, found.equal, found.left_out) == (2, 1, 1)
    assert [(row.id, row.adapter, row.model) for row in found.differing] == [("c", "y", "[too_long]")]
    assert found.to_json()["share"] == 0.5
    with pytest.raises(DataError, match="no row of d/dev could be asked: too_long"):
        questions.compare([said(None)] * 3, [said(None)] * 3)


@pytest.mark.slow
@pytest.mark.model
def test_a_real_model_is_merged(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace", rows=20)
    adapter = make_adapter(layout, STARTER, "real", scale=0.002)
    result = merge(layout, adapter, out=tmp_path / "merged", dtype="fp16", show_progress=False, **ASKED)
    assert (result.agreement.equal, result.agreement.rows) == (4, 4)
    assert result.model.licence == "Apache-2.0"
    assert result.model.size == pytest.approx(find_model(STARTER).size, rel=1e-3)
