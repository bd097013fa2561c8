"""The notebook or experiment file that a run was made by, kept beside its manifest so that it can be run again.

`notebook.py`, `notebook.ipynb` or `experiment.yaml` is the source; `notebook.json` says what it is, with which arguments it
makes the run, and of which cells it consists. None of it is part of an experiment's identity.
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.data.spec import DatasetSpec
from workbench.errors import DataError, IntegrityError, WorkbenchWarning
from workbench.experiments.notebook_cells import NotebookShape, cell_text, marimo_shape, stripped_jupyter
from workbench.files import canonical_json, digest_bytes, write_atomic
from workbench.validation import first_fault, line_with_key

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset

Kind = Literal["marimo", "jupyter", "script", "experiment"]

RECORD = "notebook.json"
SOURCES: dict[Kind, str] = {
    "marimo": "notebook.py",
    "script": "notebook.py",
    "jupyter": "notebook.ipynb",
    "experiment": "experiment.yaml",
}
# The order of so many rows at most is written down.
MOST_ORDERED = 200_000


class NotebookData(BaseModel):
    """The data set whose rows a notebook was run on: all of it, also where the run used a part.

    Attributes:
        splits: the shares of the spec in their order, on which the splits depend and which JSON with sorted keys loses.
        order: where each row stands among the ids in order, in the order of storage, on which `head` depends; None where
            they stand in the order of the ids, and for data sets beyond `MOST_ORDERED` rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    digest: str
    spec: DatasetSpec
    splits: tuple[tuple[str, float], ...]
    order: tuple[int, ...] | None = None


class NotebookRecord(BaseModel):
    """`notebook.json`.

    Attributes:
        path: relative to the workspace.
        digest: of the source that is kept; None where none is.
        not_kept: why not.
        arguments: what the file must be given to make this very run.
        app, cells: as of `NotebookShape`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    kind: Kind
    path: str
    digest: str | None
    not_kept: str | None = None
    arguments: tuple[str, ...] = ()
    dataset: NotebookData
    app: dict[str, Any] = {}
    cells: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All but the order of the rows, as JSON."""
        return self.model_dump(mode="json", exclude={"dataset": {"order"}})


def call_text(path: str, arguments: Sequence[str]) -> str:
    """A file and its arguments in one short line."""
    words = " ".join(shlex.join(arguments).split())
    return path + (f" with {words if len(words) <= 100 else words[:99] + '…'}" if words else "")


@dataclass(frozen=True)
class NotebookSource:
    """A notebook or experiment file as a run kept it; `source` is None where it kept none, and `record.not_kept` says why."""

    record: NotebookRecord
    source: bytes | None

    @classmethod
    def read(cls, record: bytes, sources: dict[str, bytes], where: str) -> NotebookSource:
        """From the bytes of `notebook.json` and of the files beside it.

        Raises:
            IntegrityError: the record is malformed, or the source is missing or not the one it names.
        """
        try:
            found = NotebookRecord.model_validate_json(record)
        except (ValidationError, ValueError) as error:
            what = first_fault(error) if isinstance(error, ValidationError) else str(error)
            raise IntegrityError(f"{where}: {RECORD} is malformed: {what}", hint="Run the experiment again.") from None
        if found.digest is None:
            return cls(found, None)
        name = SOURCES[found.kind]
        if name not in sources or digest_bytes(sources[name]) != found.digest:
            state = "not the one that was kept" if name in sources else "missing"
            raise IntegrityError(f"{where}: {name} is {state}", hint="Restore it, or run the experiment again.")
        return cls(found, sources[name])

    def files(self) -> dict[str, bytes]:
        """The files that hold it, by name; the inverse of `read`."""
        found = {RECORD: canonical_json(self.record.model_dump(mode="json"))}
        return found if self.source is None else {**found, SOURCES[self.record.kind]: self.source}


def keep(
    folder: Path, file: Path, path: str, *, arguments: Sequence[str], dataset: Dataset, experiment: bool
) -> str | None:
    """Keep `file` as it is now in a run's folder, unless it or the arguments hold what looks like an API key.

    Args:
        path: how the file is called in the workspace.
        experiment: the file is no notebook but an experiment in YAML.

    Returns: the digest of the file as it is on disk; None where it cannot be read, and then nothing is kept.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return None
    source = make_source(data, path, arguments=arguments, dataset=dataset, experiment=experiment)
    if source.record.not_kept:
        warnings.warn(
            f"{path} is not kept with the run, which cannot be reproduced from it: {source.record.not_kept}",
            WorkbenchWarning,
            stacklevel=2,
        )
    for name, content in sorted(source.files().items(), reverse=True):
        write_atomic(folder / name, content)
    return digest_bytes(data)


def make_source(
    data: bytes, path: str, *, arguments: Sequence[str], dataset: Dataset, experiment: bool = False
) -> NotebookSource:
    """What is kept of a file with these bytes."""
    kind: Kind = "experiment" if experiment else "jupyter" if path.endswith(".ipynb") else "script"
    shape = NotebookShape()
    refused = None
    try:
        if kind == "jupyter":
            data, shape = stripped_jupyter(data)
        text = data.decode()
        if kind == "script" and (found := marimo_shape(text)) is not None:
            kind, shape = "marimo", found
        refused = _place_of_key(kind, text)
    except (UnicodeDecodeError, DataError) as error:
        refused = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.message
    given = tuple(arguments)
    if line_with_key("\n".join(given)) is not None:
        given, refused = (), refused or "its arguments hold what looks like an API key"
    record = NotebookRecord(
        kind=kind,
        path=path,
        digest=None if refused else digest_bytes(data),
        not_kept=refused,
        arguments=given,
        dataset=_data(dataset),
        app={} if refused else shape.app,
        cells=() if refused else tuple(shape.cells),
    )
    return NotebookSource(record, None if refused else data)


def _place_of_key(kind: Kind, text: str) -> str | None:
    if kind == "jupyter":
        for number, cell in enumerate(json.loads(text)["cells"], 1):
            if (line := line_with_key(cell_text(cell))) is not None:
                return f"line {line} of cell {number} holds what looks like an API key"
    line = line_with_key(text)
    return None if line is None else f"line {line} holds what looks like an API key"


def _data(dataset: Dataset) -> NotebookData:
    whole = dataset.whole or dataset
    ids = whole.ids
    order = None
    if len(ids) <= MOST_ORDERED and list(ids) != sorted(ids):
        place = {row_id: number for number, row_id in enumerate(sorted(ids))}
        order = tuple(place[row_id] for row_id in ids)
    splits = tuple(whole.spec.splits.items())
    return NotebookData(name=whole.name, digest=whole.digest, spec=whole.spec, splits=splits, order=order)


def kept_source(folder: Path, run_id: str) -> NotebookSource | None:
    """The notebook or experiment file in a run's folder; None where the run has none.

    Raises:
        IntegrityError: it is damaged.
    """
    if not (folder / RECORD).is_file():
        return None
    sources = {name: (folder / name).read_bytes() for name in {*SOURCES.values()} if (folder / name).is_file()}
    return NotebookSource.read((folder / RECORD).read_bytes(), sources, f"run {run_id}")
