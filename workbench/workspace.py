"""Workspace: where the settings, the data sets, the prompts and the three stores of one project lie."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkspaceError

SETTINGS_FILE = "workbench.toml"


class EventsSettings(BaseModel):
    """`[events]`: calls, scores and runs, as JSON Lines journals and Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str = ".workbench/events"


class StateSettings(BaseModel):
    """`[state]`: names, versions, aliases and events. `url` is for SQLAlchemy; empty means SQLite in the workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = ""


class BlobsSettings(BaseModel):
    """`[blobs]`: the OCI image layout that holds artifacts and snapshots of data sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str = ".workbench/blobs"


class Settings(BaseModel):
    """`workbench.toml`. Unknown keys are refused, so a typing mistake cannot pass as a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = Field(default=1, ge=1, le=1)
    name: str = "workspace"
    model: str = "smollm2-135m"
    events: EventsSettings = EventsSettings()
    state: StateSettings = StateSettings()
    blobs: BlobsSettings = BlobsSettings()


@dataclass(frozen=True)
class Layout:
    """The paths of one workspace. Nothing is created until something is written."""

    root: Path
    settings: Settings

    @classmethod
    def find(cls, path: str | Path | None = None) -> Layout:
        """The workspace at `path`, or the nearest one at or above the current folder.

        The environment variable `WORKBENCH_WORKSPACE` stands in for `path` where that is not given.

        Raises:
            WorkspaceError: there is none, or its `workbench.toml` is malformed.
        """
        start = Path(path or os.environ.get("WORKBENCH_WORKSPACE") or Path.cwd()).resolve()
        candidates = [start] if path else [start, *start.parents]
        for folder in candidates:
            if (folder / SETTINGS_FILE).is_file():
                return cls(folder, read_settings(folder / SETTINGS_FILE))
        raise WorkspaceError(
            f"no {SETTINGS_FILE} in {start}" + ("" if path else " or above it"),
            hint="Make a workspace with: workbench init DIR",
        )

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def policies(self) -> Path:
        return self.root / "policies"

    @property
    def runs(self) -> Path:
        return self.root / self.settings.events.path / "runs"

    @property
    def blobs(self) -> Path:
        return self.root / self.settings.blobs.path

    @property
    def state_url(self) -> str:
        return self.settings.state.url or f"sqlite:///{self.root / '.workbench' / 'state.sqlite'}"


def read_settings(path: Path) -> Settings:
    """Read and check a `workbench.toml`.

    Raises:
        WorkspaceError: not TOML, an unknown key or a value of the wrong type.
    """
    try:
        return Settings.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path}: {error}", hint="Mend the file; it must be TOML.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WorkspaceError(f"{path}: {place}: {first['msg']}", hint="Mend or remove that key.") from None


def cache_folder() -> Path:
    """Where models and other things that can be made again lie: `WORKBENCH_CACHE`, else the user's cache folder."""
    override = os.environ.get("WORKBENCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("llmops-workbench"))
