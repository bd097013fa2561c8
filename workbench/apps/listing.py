"""Which notebooks are apps, what they are called, and who may open them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import NotFoundError, UsageError
from workbench.experiments.notebook_cells import marimo_shape
from workbench.notebook_check import script_metadata
from workbench.workspace import Layout

HOME = "home"
# A notebook that says nothing may spend money: it is for those who may.
DEFAULT_ROLE = "editor"


@dataclass(frozen=True)
class App:
    """A marimo notebook that is served.

    Attributes:
        slug: its file's name without `.py`; it is served under `/slug/`.
        role: what it takes to open it.
        summary: a sentence; empty where the notebook has none.
        order: its place in the gallery; those without one come last.
    """

    slug: str
    path: Path
    title: str
    role: str
    summary: str = ""
    order: int = 1_000


def find_apps(layout: Layout, paths: Sequence[Path] = ()) -> list[App]:
    """The apps among marimo notebooks: those of the workspace's `notebooks/` by default.

    `[tool.workbench.app]` in a notebook's script metadata says `summary`, `role` and `order`; `[apps.roles]` in
    workbench.toml says the role in its place.

    Raises:
        NotFoundError: there is none, or a path is not there.
        UsageError: a file is no marimo notebook, its metadata is malformed, or two have one name.
    """
    if paths:
        titled = [(Path(path), _title_of(Path(path))) for path in paths]
    else:
        files = [path for path in sorted(layout.notebooks.glob("*.py")) if not path.name.startswith((".", "_"))]
        titled = [(path, title) for path in files if (title := _title(path))]
    if not titled:
        raise NotFoundError(f"no marimo notebook in {layout.notebooks}", hint="Make one: marimo edit notebooks/mine.py")
    apps = [_app(path, title, layout) for path, title in titled]
    slugs = [app.slug for app in apps]
    if twice := sorted({slug for slug in slugs if slugs.count(slug) > 1}):
        raise UsageError(f"two notebooks are called {twice[0]}", hint="Rename one of them.")
    return sorted(apps, key=lambda app: (app.order, app.title))


def _title_of(path: Path) -> str:
    """The title of a notebook that was named, which must be one."""
    if not path.is_file():
        raise NotFoundError(f"no notebook {path}", hint="Check the path.")
    title = _title(path)
    if not title:
        raise UsageError(f"{path} is no marimo notebook", hint="Apps are marimo notebooks (.py).")
    return title


def _app(path: Path, title: str, layout: Layout) -> App:
    metadata = script_metadata(path).get("tool", {}).get("workbench", {}).get("app", {})
    if not isinstance(metadata, dict) or (unknown := sorted(set(metadata) - {"summary", "role", "order"})):
        wrong = unknown[0] if isinstance(metadata, dict) else "app"
        raise UsageError(f"the script metadata of {path}: {wrong}", hint="[tool.workbench.app]: summary, role, order.")
    role = layout.settings.apps.roles.get(path.stem, metadata.get("role", DEFAULT_ROLE))
    return App(path.stem, path, title, str(role), str(metadata.get("summary", "")), int(metadata.get("order", 1_000)))


def _title(path: Path) -> str:
    """What a marimo notebook calls itself; its file's name where it says nothing, empty where it is none."""
    try:
        shape = marimo_shape(path.read_text("utf-8"))
    except UnicodeDecodeError:
        return ""
    if shape is None:
        return ""
    return str(shape.app.get("app_title") or path.stem.replace("_", " ").capitalize())
