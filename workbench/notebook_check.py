"""Checking notebooks: what a marimo or Jupyter file must pass before it is shared."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import MissingExtraError, NotFoundError, UsageError

CELL_SECONDS = 600
# Metadata of a script, as PEP 723 finds it.
_METADATA = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


@dataclass(frozen=True)
class NotebookCheck:
    """One check of one notebook. `output` is what the program said, where it failed."""

    notebook: str
    check: str
    passed: bool
    seconds: float
    output: str = ""


def find_notebooks(paths: Iterable[Path]) -> list[Path]:
    """The notebooks among files and folders, sorted.

    Raises:
        NotFoundError: a path does not exist, or there is no notebook in any.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files = [*path.glob("*.py"), *path.glob("*.ipynb")]
            found |= {file for file in files if not file.name.startswith((".", "_")) and ".executed." not in file.name}
        elif path.is_file():
            found.add(path)
        else:
            raise NotFoundError(f"no notebook {path}", hint="Check the path.")
    if not found:
        raise NotFoundError("there is no notebook here", hint="Name a folder with .py or .ipynb files.")
    return sorted(found)


def check_notebook(path: Path) -> list[NotebookCheck]:
    """A marimo file must pass `marimo check --strict` and run to its end; a Jupyter one must pass nbval.

    What takes long is checked on a small part: see `check_arguments`.

    Raises:
        MissingExtraError: the program that checks is not installed.
        UsageError: as `check_arguments`.
    """
    if path.suffix == ".ipynb":
        _need("nbval", "test")
        command = [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--nbval-lax",
            f"--nbval-cell-timeout={CELL_SECONDS}",
        ]
        # The folder's own pytest settings are for other tests.
        return [_run(path, "nbval", [*command, "-c", "/dev/null", "--rootdir", str(path.parent), str(path)])]
    _need("marimo", "marimo")
    # As a script a marimo notebook runs every cell and exits with 1 where one fails.
    return [
        _run(path, "marimo check", ["-m", "marimo", "check", "--strict", str(path)]),
        _run(path, "runs to its end", [str(path), *check_arguments(path)]),
    ]


def check_arguments(path: Path) -> list[str]:
    """Arguments that a marimo notebook is checked with: `check` under `[tool.workbench]` in its script metadata.

    Raises:
        UsageError: the metadata is no TOML, or `check` is no list of text.
    """
    arguments = script_metadata(path).get("tool", {}).get("workbench", {}).get("check", [])
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise UsageError(f"check in the script metadata of {path} is no list of text", hint='Write: ["--limit", "8"]')
    return arguments


def script_metadata(path: Path) -> dict[str, Any]:
    """What the comment at the top of a script says of it (inline script metadata, PEP 723); empty where there is none.

    Raises:
        UsageError: it is no TOML.
    """
    found = _METADATA.search(path.read_text("utf-8"))
    lines = found["content"].splitlines() if found else []
    try:
        return tomllib.loads("\n".join(line[2:] for line in lines))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the script metadata of {path} is no TOML: {error}", hint="Mend its first lines.") from None


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed", hint=f"Run: pip install 'llmops-workbench[{extra}]'")


def _run(path: Path, check: str, command: list[str]) -> NotebookCheck:
    started = time.monotonic()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    passed = done.returncode == 0
    output = "" if passed else (done.stdout + done.stderr).strip()
    return NotebookCheck(str(path), check, passed, time.monotonic() - started, output)
