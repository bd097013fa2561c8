"""Where code runs: terminal, marimo or Jupyter; which notebook; which commit; which versions."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.files import digest_file

Place = Literal["marimo", "jupyter", "terminal"]

# What a process that runs a notebook is told by the one that starts it: which, and with which arguments (as JSON).
NOTEBOOK_VARIABLE = "WORKBENCH_NOTEBOOK"
ARGUMENTS_VARIABLE = "WORKBENCH_ARGUMENTS"


def place() -> Place:
    """Which kind of front end shows what this process prints."""
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return "marimo"
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "jupyter" if shell is not None and "IPKernelApp" in shell.config else "terminal"


def runs_as_script() -> bool:
    """Whether this is a marimo notebook that runs from the command line, where nobody sees what a cell shows."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and marimo.app_meta().mode == "script"


@dataclass(frozen=True)
class Notebook:
    """The notebook file that runs, with the digest of what it holds now."""

    path: str
    digest: str


def notebook(path: str | Path | None = None) -> Notebook | None:
    """The notebook at `path`, or the one this code runs in where the front end says which; else None."""
    found = Path(path) if path else _current_notebook()
    return Notebook(str(found), digest_file(found)) if found is not None and found.is_file() else None


def _current_notebook() -> Path | None:
    if place() == "marimo":
        import marimo

        folder = marimo.notebook_dir()
        context = sys.modules["__main__"].__dict__.get("__file__")
        if context and str(context).endswith(".py"):
            return Path(context)
        location = os.environ.get(NOTEBOOK_VARIABLE)
        return folder / location if folder and location else None
    if place() == "jupyter":
        for name in ("JPY_SESSION_NAME", NOTEBOOK_VARIABLE):
            if value := os.environ.get(name):
                return Path(value)
    # A plain script that `workbench run` started.
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    location = os.environ.get(NOTEBOOK_VARIABLE)
    return Path(main) if main and location and Path(main).resolve() == Path(location).resolve() else None


def arguments() -> list[str]:
    """What the notebook or script that runs was given: the words after its name."""
    if place() == "jupyter":
        given = os.environ.get(ARGUMENTS_VARIABLE)
        return [str(word) for word in json.loads(given)] if given else []
    if place() == "marimo" and not runs_as_script():
        import marimo

        told = marimo.cli_args().to_dict()
        values = {name: value if isinstance(value, list) else [value] for name, value in told.items()}
        return [f"--{name}={value}" for name, several in values.items() for value in several]
    return sys.argv[1:]


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out, and whether what a run reads differs from it.

    Attributes:
        dirty: a tracked file differs, or a file that a run may read, one of `SOURCES`, is neither tracked nor ignored.
    """

    commit: str
    dirty: bool


# What runs read, in a workspace, as git's pathspecs: these folders, and such files beside `workbench.toml`. What commands
# write elsewhere, such as a report, makes no difference to a run.
SOURCES = (
    *("adapters", "datasets", "experiments", "indexes", "notebooks", "policies", "prompts", "steps"),
    *(f":(glob)*.{ending}" for ending in ("csv", "ipynb", "jsonl", "md", "py", "toml", "yaml", "yml")),
)


def git_state(folder: Path) -> GitState | None:
    """The state of the git repository around a workspace; None outside of one, before its first commit, or without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        # In these folders only: to look through all of a large tree takes seconds.
        new = changed or _git(
            folder, "ls-files", "--others", "--exclude-standard", "--directory", "--no-empty-directory", "--", *SOURCES
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit, bool(new))


def _git(folder: Path, *arguments: str) -> str:
    # Whoever reads takes no locks: somebody may be committing.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, timeout=30, check=True)
    return done.stdout.decode(errors="replace").strip()


@functools.cache
def environment() -> dict[str, str]:
    """Python, platform and the version of every installed distribution, by name; read once a process."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    for distribution in distributions():
        name, version = _name_and_version(
            distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        )
        if name and version:
            versions.setdefault(name.lower().replace("_", "-"), version)
    return {"python": platform.python_version(), "platform": platform.platform(), **dict(sorted(versions.items()))}


def _name_and_version(metadata: str) -> tuple[str, str]:
    """Two headers of a distribution's metadata; parsing all of them as a message costs a quarter of a second in all."""
    found = {"name": "", "version": ""}
    for line in metadata.splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break
        if key.lower() in found:
            found[key.lower()] = value.strip()
            if all(found.values()):
                break
    return found["name"], found["version"]


def peak_memory() -> int:
    """The most bytes of memory that this process held at once."""
    import resource

    # Not getrusage's on Linux, which begins with what the process had that started this one.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
