"""The documentation: the site builds, every block runs or is checked, and what the pages name exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tests.documentation import (
    DOCS,
    PAGES,
    ROOT,
    Block,
    blocks,
    commands,
    inline_commands,
    naming_fault,
    parse_fault,
    unsaid,
)
from tests.documentation_bundle import check_bundle
from tests.documentation_given import TINY, give, tiny_models
from tests.documentation_run import Place, run_page
from workbench.experiments.spec import ExperimentSpec, read_experiment
from workbench.finetune.recipe import FinetuneSpec
from workbench.init.init import init_workspace
from workbench.registry.policy import Policy
from workbench.tuning.space import TuneSpace
from workbench.workspace import Layout, Settings

RESEARCHER = "guides/researcher.md"
# Pages that go on where the researcher's ends; those in the second set, with a second version of its artifact.
AFTER_RESEARCHER = {"guides/team-lead.md", "guides/ci.md"}
AFTER_TWO_VERSIONS = {"guides/deployer.md", "artifacts.md", "deploying.md", "registry.md"}
ASKS_A_MODEL = {"models.md"}
# Why blocks do not run, and how many for each reason.
NOT_RUN = {
    "needs Docker": 1,
    "needs a cluster": 1,
    "needs root and systemd": 1,
    "needs Sigstore and somebody who signs in": 1,
}
DEPLOYER = "guides/deployer.md"
ALL = [block for page in PAGES for block in blocks(page)]


def _of(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def _copy(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, symlinks=True)
    return folder


@pytest.fixture(scope="module")
def researched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace that the researcher's page leaves behind."""
    folder = tmp_path_factory.mktemp("researcher")
    shutil.copy(DOCS / "guides" / "messages.csv", folder)
    with pytest.MonkeyPatch.context() as patch:
        run_page(RESEARCHER, Place.of(RESEARCHER, folder), patch)
    return folder / "team"


@pytest.fixture(scope="module")
def two_versions(researched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a second version, of a run of one row fewer, and a policy that takes so few rows."""
    folder = _copy(researched, tmp_path_factory.mktemp("versions") / "team")
    shutil.copy(folder / "policies" / "messages.toml", folder / "policies" / "default.toml")
    experiment = folder / "experiments" / "messages.yaml"
    experiment.write_text(experiment.read_text().replace("split: test", "split: test\nlimit: 31"))
    for words in (
        ["run", "experiments/messages.yaml"],
        ["promote", "latest", "triage", "--variant", "few-shot"],
        ["artifact", "alias", "triage@1", "prod"],
    ):
        Place(folder).workbench(*words)
    return folder


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is of the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    built = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    said = built.stdout + built.stderr
    assert built.returncode == 0, said
    assert not re.search("WARNING|ERROR", said), said
    for page in PAGES:
        html = (tmp_path / "site" / page).with_suffix(".html").read_text("utf-8")
        # A fence that no rule takes is a paragraph with its backticks in it.
        assert "```" not in html, f"docs/{page}: a block is not shown as one"
        loaded = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=\"?(https?:[^\"\s>]+)", html)
        assert not loaded, f"docs/{page} fetches {loaded}"


@pytest.mark.slow
@pytest.mark.model
def test_the_researchers_page_runs(researched: Path) -> None:
    assert (researched / "report.html").is_file()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("page", sorted(AFTER_RESEARCHER | AFTER_TWO_VERSIONS | ASKS_A_MODEL))
def test_a_page_runs_with_a_model(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page in ASKS_A_MODEL:
        folder = init_workspace(tmp_path / "team").root
    else:
        start: Path = request.getfixturevalue("two_versions" if page in AFTER_TWO_VERSIONS else "researched")
        folder = _copy(start, tmp_path / "team")
    _run(page, folder, monkeypatch)
    if page == DEPLOYER:
        check_bundle(tmp_path / "triage-1", *(block.text for block in blocks(page) if block.why_not))


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TINY))
def test_a_page_runs_with_a_tiny_model(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    cache = _copy(tiny, tmp_path / "cache")
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    _run(page, init_workspace(tmp_path / "team").root, monkeypatch)


@pytest.mark.parametrize(
    "page", sorted(set(PAGES) - AFTER_RESEARCHER - AFTER_TWO_VERSIONS - ASKS_A_MODEL - TINY - {RESEARCHER})
)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(page, init_workspace(tmp_path / "team").root, monkeypatch)


def _run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.of(page, folder)
    give(page, place)
    if left_out := run_page(page, place, monkeypatch):
        pytest.skip("; ".join(left_out))


def test_every_block_runs_but_these() -> None:
    shell = [block for block in _of("bash", "console", "sh", "shell") if not block.file]
    assert Counter(block.why_not for block in shell if block.why_not) == NOT_RUN
    for block in shell:
        assert block.runs or block.why_not or block.other, f"{block.place} neither runs nor says why"
    assert all(block.runs or block.words in ("model", "adapter") or block.file for block in _of("python"))


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in ALL if b.other])
def test_what_another_page_runs_is_there(block: Block) -> None:
    run = {line for other in blocks(block.other) if other.runs for line in other.text.splitlines()}
    assert set(block.text.splitlines()) <= run


def test_every_command_is_one_that_the_command_line_takes() -> None:
    named = [(block.place, words) for block in _of("bash", "console") for words in commands(block.text)]
    for block in _of("yaml"):
        named += [(block.place, words) for text in _texts(yaml.safe_load(block.text)) for words in commands(text)]
    readme = (ROOT / "README.md").read_text("utf-8")
    for block_text in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL):
        named += [("README.md", words) for words in commands(block_text)]
    assert len(named) > 100
    assert [f"{place}: {fault}" for place, words in named if (fault := parse_fault(words))] == []


def test_every_command_that_the_text_names_exists() -> None:
    texts = {page: (DOCS / page).read_text("utf-8") for page in PAGES} | {"README.md": (ROOT / "README.md").read_text()}
    named = [(page, words) for page, text in texts.items() for words in inline_commands(text)]
    assert len(named) > 30
    assert [f"{page}: {fault}" for page, words in named if (fault := naming_fault(words))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert [
        parse_fault(words) is None for words in commands("workbench plan a.yaml && workbench plan --no b | cat")
    ] == [
        True,
        False,
    ]
    assert parse_fault(["promte"]) == "no command promte"
    assert parse_fault(["prompt", "forget"]) == "no command prompt forget"
    assert naming_fault(["gate", "RUN", "--police", "FILE"]) == "gate has no --police"
    assert naming_fault(["run", "notebooks/a.py", "--", "--limit", "5"]) is None
    assert unsaid("one\nthree …", "one\ntwo\nthree 3") is None
    assert unsaid("three …\none", "one\ntwo\nthree 3") == "one"


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in _of("toml")])
def test_toml_is_a_policy_or_settings(block: Block) -> None:
    told = tomllib.loads(block.text)
    is_policy = {"decision", "guard", "evidence", "approval", "test", "signature"} & told.keys()
    (Policy if is_policy else Settings).model_validate(told)


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in _of("yaml")])
def test_yaml_is_what_its_reader_takes(block: Block) -> None:
    told = yaml.safe_load(block.text)
    marks: dict[str, type[BaseModel]] = {"variants": ExperimentSpec, "settings": FinetuneSpec, "chunkers": TuneSpace}
    readers = [reader for mark, reader in marks.items() if mark in told]
    if readers:
        readers[0].model_validate(told)
    elif "jobs" in told:
        # YAML 1.1 reads the key `on` as true.
        assert {"name", True, "permissions", "jobs"} == set(told)
        for job in told["jobs"].values():
            assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    else:
        assert all({"script"} <= set(job) for job in told.values())
        assert told["evaluate"]["artifacts"]["reports"] == {"junit": "gate.xml"}


def test_the_experiment_on_its_page_is_one(tmp_path: Path) -> None:
    layout = Layout.find(init_workspace(tmp_path / "team").root)
    [block] = [block for block in blocks("experiments.md") if block.language == "yaml"]
    (tmp_path / "triage.yaml").write_text(block.text)
    experiment = read_experiment(layout, tmp_path / "triage.yaml")
    assert list(experiment.variants) == ["zero-shot", "few-shot"]
    assert len(experiment.variants["few-shot"].prompt.examples) == 8
    assert len(experiment.rows) == 6


@pytest.mark.parametrize(
    ("file", "title"), [("github.yml", ".github/workflows/evaluate.yml"), ("gitlab-ci.yml", ".gitlab-ci.yml")]
)
def test_the_pipelines_on_the_page_are_the_files_beside_it(file: str, title: str) -> None:
    [block] = [block for block in blocks("guides/ci.md") if block.file == title]
    assert block.text == (DOCS / "guides" / "ci" / file).read_text("utf-8")


def test_every_extra_that_is_named_exists() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    files = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(path for path in DOCS.rglob("*.*") if path.suffix != ".png"),
    ]
    named = {
        extra.strip()
        for path in files
        for found in re.findall(r"llmops-workbench\[([^\]]+)\]", path.read_text("utf-8"))
        for extra in found.split(",")
    }
    # The README's list of extras names each of them alone.
    [sentence] = re.findall(r"^Install only what a machine needs:.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    named |= set(re.findall(r"`\[([a-z]+)\]`", sentence))
    assert len(named) > 10
    assert named <= declared


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
