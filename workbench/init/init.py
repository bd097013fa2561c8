"""`init_workspace`: a new workspace with the starter data, prompts, policy and notebooks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import workbench
from workbench.errors import WorkspaceError
from workbench.files import write_atomic
from workbench.workspace import SETTINGS_FILE, read_settings

FOLDERS = (
    "adapters",
    "datasets/support-tickets",
    "datasets/python-reference-qa",
    "experiments",
    "launch",
    "notebooks",
    "policies",
    "prompts",
)
# Where each file of files/ goes; the settings come last, because a folder that holds them is a finished workspace.
FILES = {
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/ci.yml",
    "workbench.toml": SETTINGS_FILE,
}


@dataclass(frozen=True)
class NewWorkspace:
    """What `init_workspace` did. `written` and `kept` are paths relative to `root`; `kept` were there before."""

    root: Path
    name: str
    written: tuple[str, ...]
    kept: tuple[str, ...]


def init_workspace(folder: Path, name: str | None = None) -> NewWorkspace:
    """Make `folder` a workspace called `name` (the folder's own name where that is not given).

    Files that exist are never overwritten. Interrupted, it can be called again: `workbench.toml` is written last.

    Raises:
        WorkspaceError: `folder` is a workspace already, or is a file, or cannot be written.
    """
    root = folder.expanduser().resolve()
    name = name or root.name or "workspace"
    if not name.isprintable():
        raise WorkspaceError(f"{name!r} cannot name a workspace", hint="Use printable characters.")
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"{root} is a file", hint="Name a folder that is new or empty.")
    if (root / SETTINGS_FILE).exists():
        raise WorkspaceError(
            f"{root} is a workspace already", hint=f"Name another folder, or edit {root / SETTINGS_FILE}."
        )
    written: list[str] = []
    kept: list[str] = []
    try:
        for path, data in _contents(name):
            target = root / path
            if target.exists():
                kept.append(path)
            else:
                write_atomic(target, data)
                written.append(path)
        for empty in ("datasets", "notebooks", "policies", "prompts"):
            (root / empty).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"{root} cannot be written: {error.strerror or error}", hint="Name a folder that you may write to."
        ) from error
    read_settings(root / SETTINGS_FILE)
    return NewWorkspace(root, name, tuple(written), tuple(kept))


def template_folder() -> Path:
    """The folder whose `datasets/`, `notebooks/`, `policies/` and `prompts/` a new workspace starts with.

    Inside an installed package this is a part of it; in a source checkout it is the root of the repository.

    Raises:
        WorkspaceError: the package was installed without its data.
    """
    packaged = Path(__file__).parent / "template"
    checkout = Path(__file__).parents[2]
    if packaged.is_dir():
        return packaged
    if (checkout / "hatch_build.py").is_file():
        return checkout
    raise WorkspaceError("this installation lacks the starter files", hint="Install the package again.")


def _contents(name: str) -> list[tuple[str, bytes]]:
    """Relative path and bytes of every file of a new workspace, in the order of writing."""
    source = template_folder()
    contents = []
    for folder in FOLDERS:
        for path in sorted((source / folder).rglob("*")):
            relative = path.relative_to(source)
            if path.is_file() and not any(part.startswith((".", "__")) for part in relative.parts):
                contents.append((relative.as_posix(), path.read_bytes()))
    for file, target in FILES.items():
        text = (Path(__file__).parent / "files" / file).read_text("utf-8")
        # A JSON string is a TOML string, with the same escapes.
        text = text.replace("@NAME@", json.dumps(name, ensure_ascii=False))
        text = text.replace("@TITLE@", name).replace("@VERSION@", workbench.__version__)
        contents.append((target, text.encode()))
    return contents
