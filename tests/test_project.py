"""The project's own files agree with one another."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "llmops-workbench"


@cache
def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def requirements(*extras: str) -> dict[str, Requirement]:
    """What the project and these extras ask for, by name, references of the project to itself followed."""
    by_extra = project()["optional-dependencies"]
    assert isinstance(by_extra, dict)
    lines = project()["dependencies"]
    assert isinstance(lines, list)
    found: dict[str, Requirement] = {}
    todo = [*lines, *(line for extra in extras for line in by_extra[extra])]
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name == DISTRIBUTION:
            todo += [line for extra in requirement.extras for line in by_extra[extra]]
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def lock() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line.partition("#")[0].strip().split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_the_lock_satisfies_every_requirement() -> None:
    locked = lock()
    for name, requirement in requirements("all").items():
        assert name in locked, f"{name} is not in requirements.lock; run: make lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} but {locked[name]}; run: make lock"


def test_all_is_all() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert requirements("all").keys() == requirements(*extras).keys()


def test_every_requirement_has_a_lower_bound() -> None:
    for requirement in requirements("all").values():
        assert any(part.operator in (">=", "==") for part in requirement.specifier), requirement


def test_the_lock_installs_from_any_index() -> None:
    """No local versions, links, paths, options or packages in place."""
    for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9._-]+==[0-9][0-9a-z.]*( +#.*)?", line), line
    assert str(lock()["torch"]) == "2.13.0"


def test_serving_needs_no_notebook_program() -> None:
    names = requirements("serve").keys()
    assert "torch" in names
    assert not names & {"marimo", "jupyterlab", "notebook", "ipywidgets", "ipykernel", "nbval", "nbclient", "altair"}


def test_conda_asks_for_what_the_project_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str) and entry != "pip"]
    (by_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert by_pip[-1] == "-e ."
    given: dict[str, SpecifierSet] = {
        canonicalize_name(found.name): found.specifier for found in map(Requirement, [*conda, *by_pip[:-1]])
    }
    python = given.pop("python")
    assert python.contains("3.11")
    assert not python.contains("3.10")
    given["torch"] = given.pop("pytorch-gpu")
    assert given == {name: requirement.specifier for name, requirement in requirements("all").items()}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, workbench, workbench.errors, workbench.workspace, workbench.files; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(result.stdout.split())
    assert "workbench" in loaded
    heavy = "torch transformers polars numpy scipy statsmodels pandas pyarrow duckdb sqlalchemy altair marimo IPython"
    assert not loaded & set(heavy.split())


def test_the_version_is_one() -> None:
    import workbench

    assert workbench.__version__ == project()["version"]


@pytest.mark.slow
def test_layers_are_kept() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_the_wheel_carries_the_starter_workspace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        prefix = "workbench/init/template/"
        carried = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        for path in carried:
            assert archive.read(prefix + path) == (ROOT / path).read_bytes()
    assert {"policies/default.toml", "notebooks/prompt_ab.py", "notebooks/prompt_ab.ipynb"} <= carried
    assert any(path.startswith("datasets/support-tickets/") for path in carried)
    assert any(path.startswith("prompts/") for path in carried)
    assert {"workbench/py.typed", "workbench/init/files/workbench.toml", "workbench/init/files/gitignore"} <= set(names)
    assert not any("tests/" in name or "__pycache__" in name or ".workbench/" in name for name in names)
