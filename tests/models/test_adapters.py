"""Adapters on disk: published whole, found by name and digest, and refused once a byte of them has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import make_adapter, save_adapter, save_tiny_model
from workbench.errors import IntegrityError, ModelError, NotFoundError
from workbench.files import digest_file
from workbench.models.adapters import (
    MANIFEST,
    AdapterFolder,
    find_adapter,
    list_adapters,
    publish_adapter,
    unpack_adapter,
    verify_adapter,
)
from workbench.models.peft_files import CONFIG, WEIGHTS
from workbench.models.store import find_model
from workbench.workspace import Layout

RECIPE = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    return Layout.find(tmp_path)


def publish(layout: Layout, source: Path, **changes: Any) -> AdapterFolder:
    fields: dict[str, Any] = {
        "name": "triage",
        "base": "tiny",
        "base_digest": "sha256:" + "b" * 64,
        "recipe_digest": RECIPE,
        "quantization": "none",
        "metrics": {"dev_loss": 0.5},
    }
    return publish_adapter(layout, source, **{**fields, **changes})


def test_a_published_adapter_tells_what_it_is(layout: Layout, base: Path) -> None:
    adapter = publish(layout, save_adapter(layout.root / "out", base, r=4, lora_alpha=8))
    manifest = adapter.manifest
    assert (manifest.rank, manifest.alpha, manifest.modules) == (4, 8, 14)
    assert manifest.target_modules == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert manifest.files == {name: digest_file(adapter.path / name) for name in (CONFIG, WEIGHTS)}
    assert adapter.path == layout.adapters / adapter.digest.removeprefix("sha256:")
    assert adapter.size == sum((adapter.path / name).stat().st_size for name in (CONFIG, WEIGHTS))
    assert str(adapter) == f"adapter triage {adapter.digest[7:19]}"


def test_the_same_training_gives_the_same_digest_in_any_process_and_folder(layout: Layout, base: Path) -> None:
    """peft saves the names of modules in the order of a set, and the path that the base was loaded from."""
    source = save_adapter(layout.root / "out", base)
    here = publish(layout, source)
    config = json.loads((source / CONFIG).read_text())
    config["target_modules"].reverse()
    config["base_model_name_or_path"] = "/home/somebody/models/tiny"
    (source / CONFIG).write_text(json.dumps(config))
    assert publish(layout, source).digest == here.digest
    assert len(list_adapters(layout)) == 1


def test_an_adapter_is_found_by_name_digest_and_beginning(layout: Layout, base: Path) -> None:
    first, second = (make_adapter(layout, base, "triage", seed=seed) for seed in (1, 2))
    other = make_adapter(layout, base, "other", seed=3)
    for number, adapter in enumerate((second, first, other)):
        os.utime(adapter.path / MANIFEST, ns=(number, number))
    assert [adapter.digest for adapter in list_adapters(layout)] == [other.digest, first.digest, second.digest]
    assert find_adapter(layout, "triage").digest == first.digest
    assert find_adapter(layout, second.digest).digest == second.digest
    assert find_adapter(layout, second.digest[7:15]).digest == second.digest
    # What is published again is the newest of its name once more.
    make_adapter(layout, base, "triage", seed=2)
    assert find_adapter(layout, "triage").digest == second.digest


@pytest.mark.parametrize("name", ["nothing", "sha256:" + "0" * 64, "00000", ""])
def test_what_is_not_there_says_where_to_look(layout: Layout, base: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="workbench finetune ls"):
        find_adapter(layout, name)
    make_adapter(layout, base)
    with pytest.raises(NotFoundError, match="workbench finetune ls"):
        find_adapter(layout, name)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, MANIFEST])
def test_one_flipped_bit_in_any_file_is_refused_by_name(layout: Layout, base: Path, name: str) -> None:
    adapter = make_adapter(layout, base)
    verify_adapter(adapter)
    path = adapter.path / name
    whole = path.read_bytes()
    for damaged in (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], whole[:-2], b""):
        path.write_bytes(damaged)
        for use in (verify_adapter, AdapterFolder.files):
            with pytest.raises(IntegrityError, match=name):
                use(adapter)
        with pytest.raises(IntegrityError, match=name):
            make_adapter(layout, base)
    path.unlink()
    with pytest.raises(IntegrityError, match=name):
        verify_adapter(adapter)


def test_an_adapter_is_unpacked_from_its_files_in_another_workspace(layout: Layout, base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(layout, base)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "workbench.toml").touch()
    other = Layout.find(tmp_path / "other")
    again = unpack_adapter(other, adapter.files())
    assert (again.manifest, again.path.parent) == (adapter.manifest, other.adapters)
    verify_adapter(again)
    with pytest.raises(IntegrityError, match=WEIGHTS):
        unpack_adapter(other, {**adapter.files(), WEIGHTS: b"else"})
    manifest = json.loads(adapter.files()[MANIFEST])
    escaping = {**manifest, "files": {**manifest["files"], "../escaped": "sha256:" + "0" * 64}}
    with pytest.raises(IntegrityError, match="files"):
        unpack_adapter(other, {**adapter.files(), MANIFEST: json.dumps(escaping).encode(), "../escaped": b""})


def _without(name: str) -> Callable[[Path], object]:
    return lambda source: (source / name).unlink()


def _with(**settings: Any) -> Callable[[Path], object]:
    def change(source: Path) -> None:
        config = json.loads((source / CONFIG).read_text()) | settings
        (source / CONFIG).write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without(CONFIG), f"no .*{CONFIG}"),
        (_without(WEIGHTS), f"no .*{WEIGHTS}"),
        (lambda source: (source / CONFIG).write_text("{"), "not a JSON object"),
        (lambda source: (source / CONFIG).write_text("[]"), "not a JSON object"),
        (lambda source: (source / WEIGHTS).write_bytes(b"\x08"), "cannot be read"),
        (_with(r=None), "rank"),
        (_with(peft_type="IA3"), "peft_type is 'IA3'"),
        (_with(bias="all"), "bias is 'all'"),
        (_with(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
        (_with(modules_to_save=["lm_head"]), "modules_to_save is"),
        (_with(use_dora=True), "use_dora is True"),
    ],
)
def test_what_is_no_plain_adapter_is_not_published(
    layout: Layout, base: Path, damage: Callable[[Path], object], message: str
) -> None:
    source = save_adapter(layout.root / "out", base)
    damage(source)
    with pytest.raises(ModelError, match=message):
        publish(layout, source)
    assert list_adapters(layout) == []


def test_metrics_are_numbers(layout: Layout, base: Path) -> None:
    source = save_adapter(layout.root / "out", base)
    with pytest.raises(ModelError, match=r"metrics\.dev_loss"):
        publish(layout, source, metrics={"dev_loss": float("nan")})


def test_a_disk_that_is_full_leaves_nothing_behind(layout: Layout, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_adapter(layout.root / "out", base)
    with monkeypatch.context() as full:
        full.setattr("workbench.models.adapters.shutil.copyfileobj", _fail)
        with pytest.raises(OSError, match="No space"):
            publish(layout, source)
    assert list(layout.adapters.iterdir()) == []
    verify_adapter(publish(layout, source, base_digest=find_model(base).digest))


def _fail(*args: object) -> None:
    raise OSError(28, "No space left on device")
