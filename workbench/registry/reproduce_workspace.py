"""A workspace of its own for running a notebook again: the recorded notebook and rows, and everything else as it was.

Its events, state, blobs and caches are its own. Files that are small are copied and large ones are links, so that the
workspace that it is made from stays as it is.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.store import open_dataset
from workbench.errors import IntegrityError, NotFoundError, WorkbenchError, WorkspaceError
from workbench.files import short, toml_value, write_atomic
from workbench.registry.reproduce_state import copy_names
from workbench.workspace import SETTINGS_FILE, Layout, read_settings

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset
    from workbench.experiments.notebook_source import NotebookData, NotebookSource
    from workbench.experiments.records import RunManifest

# What people write in a workspace; other folders are links as a whole.
_OWN = ("adapters", "datasets", "experiments", "indexes", "launch", "notebooks", "policies", "prompts")
# Larger files are links.
_COPIED_BYTES = 1 << 20
AS_NOW = "this workspace as it is now"


def make_workspace(folder: Path, layout: Layout, manifest: RunManifest, notebook: NotebookSource) -> tuple[Layout, str]:
    """Fill an empty folder; returns the workspace there, and where its other files are from.

    Raises:
        NotFoundError: the rows are not here.
        WorkspaceError: the settings are malformed.
        IntegrityError: what is kept of the rows is damaged.
    """
    record = notebook.record
    commit = _unpack_commit(layout, manifest, folder)
    _fill(folder, layout, Path(record.path).parts[0])
    scratch = _settings(folder, layout)
    _copy_built(scratch, layout, manifest)
    if copy_names(scratch, layout, manifest.started_at):
        _mirror(layout.blobs, scratch.blobs)
    _put_rows(scratch, layout, record.dataset)
    place = folder / record.path
    if notebook.source is None or not place.resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(f"{record.path} is no path in a workspace", hint="Promote the run again.")
    write_atomic(place, notebook.source)
    return scratch, f"commit {commit[:12]}" if commit else AS_NOW


def _unpack_commit(layout: Layout, manifest: RunManifest, folder: Path) -> str | None:
    """Put the files of the run's commit into `folder`, where they are what the run had: its commit is known, nothing
    differed from it, and it is in this repository. Returns the commit."""
    commit = manifest.git_commit
    if commit is None or manifest.git_dirty is not False or not re.fullmatch("[0-9a-f]{40,64}", commit):
        return None
    git = ["git", "-C", str(layout.root)]
    try:
        prefix = subprocess.run(
            [*git, "rev-parse", "--show-prefix"], capture_output=True, text=True, check=True
        ).stdout.strip()
        tree = f"{commit}:{prefix}" if prefix else f"{commit}^{{tree}}"
        # Of the whole, not of the part that git would choose by the folder it runs in.
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        found = subprocess.run(
            ["git", "-C", top.stdout.strip(), "archive", "--format=tar", tree], capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
            archive.extractall(folder, filter="data")
    except (OSError, subprocess.SubprocessError, tarfile.TarError):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return None
    return commit


def _fill(folder: Path, layout: Layout, own: str) -> None:
    """Add what is in the workspace and not in `folder`; hidden files and stores are left out."""
    settings = layout.settings
    stores = {Path(path).parts[0] for path in (settings.events.path, settings.blobs.path)}
    for path in layout.root.iterdir():
        place = folder / path.name
        if path.name.startswith(".") or path.name in stores:
            continue
        if path.is_dir() and path.name in (*_OWN, own):
            _mirror(path, place)
        elif not os.path.lexists(place):
            place.symlink_to(path)


def _mirror(source: Path, target: Path, *, link: bool = True) -> None:
    """Add the files of a folder that are not in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        place = target / path.name
        if path.name in ("__pycache__", ".git", ".venv"):
            continue
        if path.is_dir() and not path.is_symlink():
            _mirror(path, place, link=link)
        elif path.exists() and not os.path.lexists(place):
            _add(path, place, link=link)


def _settings(folder: Path, layout: Layout) -> Layout:
    """The settings that the run had, with stores inside of `folder` and no cache of answers."""
    settings = layout.settings
    path = folder / SETTINGS_FILE
    if path.is_file() and not path.is_symlink():
        with suppress(WorkspaceError):  # of another version of the workbench
            settings = read_settings(path)
    values = settings.model_dump(mode="json", exclude_none=True)
    for store in ("events", "state", "blobs"):
        values.pop(store)
    values["cache"]["responses"] = False
    write_atomic(path, "".join(f"{toml_value(key)} = {toml_value(value)}\n" for key, value in values.items()))
    return Layout(folder, read_settings(path))


def _copy_built(scratch: Layout, layout: Layout, manifest: RunManifest) -> None:
    """Indexes, adapters and the records of trainings; of the run's own indexes also what was computed from them."""
    needed = [(variant.get("retrieval") or {}).get("index") for variant in manifest.variants.values()]
    for folder in _folders(layout.built_indexes):
        place = scratch.built_indexes / folder.name
        for path in folder.iterdir():
            if path.is_dir():
                # Searching may write there.
                if any(index and folder.name.startswith(index.removeprefix("sha256:")[:40]) for index in needed):
                    _mirror(path, place / path.name, link=False)
            else:
                place.mkdir(parents=True, exist_ok=True)
                _add(path, place / path.name)
    for source, target in ((layout.adapters, scratch.adapters), (layout.trainings, scratch.trainings)):
        for folder in _folders(source):
            _mirror(folder, target / folder.name)


def _add(path: Path, place: Path, *, link: bool = True) -> None:
    if path.is_dir() or (link and path.stat().st_size > _COPIED_BYTES):
        place.symlink_to(path.resolve())
    else:
        shutil.copy2(path, place)


def _folders(parent: Path) -> Iterator[Path]:
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            yield path


def _put_rows(scratch: Layout, layout: Layout, data: NotebookData) -> None:
    """Put the recorded rows, in the order they had, where `ws.dataset(NAME)` finds them."""
    rows = _find_rows(scratch, layout, data)
    ids = sorted(rows.ids)
    if data.order is not None and len(data.order) == len(ids):
        ids = [ids[place] for place in data.order]
    folder = scratch.datasets / data.name
    shutil.rmtree(folder, ignore_errors=True)
    spec = data.spec.model_copy(update={"splits": dict(data.splits)})
    dataclasses.replace(rows.take(ids), spec=spec).save(folder)
    if open_dataset(scratch, data.name).digest != data.digest:
        raise IntegrityError(f"the rows of {data.name} do not survive being stored: their digest changes")


def _find_rows(scratch: Layout, layout: Layout, data: NotebookData) -> Dataset:
    for where in (layout, scratch):
        with suppress(WorkbenchError):  # what is there now need not be sound
            found = open_dataset(where, data.name)
            if found.digest == data.digest:
                return found
    with suppress(NotFoundError):
        return open_dataset(layout, f"{data.name}@{data.digest}")
    raise NotFoundError(
        f"the rows of {data.name} that it was evaluated on ({short(data.digest)}) are not here",
        hint=f"Import them: workbench data import FILE --name {data.name}. Their digest must be {data.digest}.",
    )
