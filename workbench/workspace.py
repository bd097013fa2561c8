"""Workspace: where the settings, the data sets, the prompts and the three stores of one project lie."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.errors import WorkspaceError
from workbench.validation import is_key

SETTINGS_FILE = "workbench.toml"
OPENAI_URL = "https://api.openai.com/v1"

# A model of a server is called SERVER:MODEL, so no server's name can hold a colon, a slash or a dot.
SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class EventsSettings(BaseModel):
    """`[events]`: calls, scores and runs, as JSON Lines journals and Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str = ".workbench/events"


class StateSettings(BaseModel):
    """`[state]`: names, versions, aliases and events. `url` is for SQLAlchemy; empty means SQLite in the workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = ""


class BlobsSettings(BaseModel):
    """`[blobs]`: the OCI image layout that holds artifacts. Snapshots of data sets are in `.workbench/datasets`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str = ".workbench/blobs"


class CacheSettings(BaseModel):
    """`[cache]`: answers that models gave, kept for the next time the same is asked; `responses = false` keeps none.

    Attributes:
        max_mb: of answers, and embeddings_mb: of vectors, from where on the oldest are dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    responses: bool = True
    max_mb: int = Field(default=1024, ge=1)
    embeddings_mb: int = Field(default=4096, ge=1)


class ServerSettings(BaseModel):
    """`[servers.NAME]`: a server that speaks OpenAI's chat completions. Nothing in here is a secret.

    Attributes:
        base_url: http or https, up to and without `/chat/completions`.
        key_env: the name of the environment variable that holds the key; None sends none.
        concurrency: most requests under way at once.
        timeout_s: seconds that one attempt may take.
        patience_s: seconds for which a request is tried again because of rate limits.
        tries: attempts at a request that fails in other ways.
        max_tokens_field: what the server calls the limit of an answer's length.
        input_usd_per_mtok: dollars for a million prompt tokens; both prices or neither.
        output_usd_per_mtok: dollars for a million generated tokens.
        structured: send a pipeline's `response_schema` as `response_format`.
        omit: fields left out of every request, such as `temperature` for models that take only their own.
    """

    # Whatever is refused may be a key that was put in the wrong place, so errors do not show it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    base_url: str
    key_env: str | None = None
    concurrency: int = Field(default=64, ge=1, le=4096)
    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    patience_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)
    tries: int = Field(default=5, ge=1, le=100)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    input_usd_per_mtok: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    output_usd_per_mtok: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    structured: bool = True
    omit: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if misplaced := {"key", "api_key", "apikey", "token", "secret"} & data.keys():
            raise ValueError(f"{min(misplaced)}: put the key in an environment variable and its name in key_env")
        if re.match(r"https://api\.openai\.com(/|$)", str(data.get("base_url"))):
            return {"max_tokens_field": "max_completion_tokens", **data}
        return data

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not _is_address(url):
            raise ValueError("must be an address such as http://localhost:8000/v1")
        if re.search(r"//[^/]*@|[?#]", url):
            raise ValueError("must hold no user, password, query or fragment; name the key's variable in key_env")
        return url.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _check_key_env(cls, name: str | None) -> str | None:
        if name is not None and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or is_key(name)):
            raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY, never a key itself")
        return name

    @model_validator(mode="after")
    def _check_prices(self) -> ServerSettings:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("input_usd_per_mtok and output_usd_per_mtok go together")
        return self


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
        )
    except ValueError:
        return False


def _openai() -> dict[str, str]:
    return {"base_url": os.environ.get("OPENAI_BASE_URL") or OPENAI_URL, "key_env": "OPENAI_API_KEY"}


class OidcSettings(BaseModel):
    """`[apps.oidc]`: a provider of OpenID Connect that people sign in with. Nothing in here is a secret.

    Attributes:
        issuer: its address, under which `/.well-known/openid-configuration` is.
        client_secret_env: the name of the environment variable that holds the client's secret.
        name_claim: what a person is called by: unique and lasting with that provider.
        roles_claim: the claim that lists a person's groups; role_map: which role a group gives. Others give none.
        tenants_claim: the claim that lists the tenants whose rows a person may see; None lets them see all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    issuer: str
    client_id: str
    client_secret_env: str
    name_claim: str = "email"
    roles_claim: str = "groups"
    role_map: dict[str, str]
    tenants_claim: str | None = None

    @field_validator("issuer")
    @classmethod
    def _check_issuer(cls, url: str) -> str:
        if not _is_address(url):
            raise ValueError("must be an address such as https://login.example.org")
        return url.rstrip("/")

    @field_validator("client_secret_env")
    @classmethod
    def _check_secret(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or is_key(name):
            raise ValueError("must be the name of an environment variable, never a secret itself")
        return name


class AppsSettings(BaseModel):
    """`[apps]`: what `workbench apps` serves, and to whom.

    Attributes:
        roles: the role that an app takes, by its file's name without `.py`; the app's own metadata says it otherwise.
        session_hours: after which a person signs in again.
        max_sessions: most app pages open at once; one more is turned away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    roles: dict[str, str] = {}
    session_hours: float = Field(default=12.0, gt=0, allow_inf_nan=False)
    max_sessions: int = Field(default=100, ge=1)
    oidc: OidcSettings | None = None


class SigstoreSettings(BaseModel):
    """`[sigstore]`: whom signatures without a key are trusted from.

    Attributes:
        trust_config: a file with Sigstore's client trust config or trusted root, relative to the workspace; empty means
            the public Sigstore.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    trust_config: str = ""


class ServeSettings(BaseModel):
    """`[serve]`: what `workbench serve` records of the questions that it answers.

    Attributes:
        record: a row a question, among the events of the workspace; `--no-record` switches it off for one server.
        content: also keep inputs, answers and the words of errors; without it a row holds digests, tokens, times and cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    record: bool = True
    content: bool = True


class Settings(BaseModel):
    """`workbench.toml`. Unknown keys are refused, so a typing mistake cannot pass as a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    format_version: int = Field(default=1, ge=1, le=1)
    name: str = "workspace"
    model: str = "smollm2-135m"
    events: EventsSettings = EventsSettings()
    state: StateSettings = StateSettings()
    blobs: BlobsSettings = BlobsSettings()
    cache: CacheSettings = CacheSettings()
    servers: dict[str, ServerSettings] = {}
    roles: dict[str, tuple[str, ...]] = {}
    apps: AppsSettings = AppsSettings()
    serve: ServeSettings = ServeSettings()
    sigstore: SigstoreSettings = SigstoreSettings()

    @field_validator("servers", mode="before")
    @classmethod
    def _prepare_servers(cls, servers: Any) -> Any:
        if not isinstance(servers, dict):
            return servers
        for name in servers:
            if not SERVER_NAME.fullmatch(str(name)):
                raise ValueError(f"{name!r}: a server's name is small letters, digits, - and _")
        # A table for `openai` need only say what differs from the defaults.
        openai = servers.get("openai")
        return servers | {"openai": _openai() | openai} if isinstance(openai, dict) else servers

    def server(self, name: str) -> ServerSettings | None:
        """The server called `name`; `openai` is there without a table, its address from `OPENAI_BASE_URL` if set.

        Raises:
            WorkspaceError: `OPENAI_BASE_URL` is no usable address.
        """
        if name in self.servers or name != "openai":
            return self.servers.get(name)
        try:
            return ServerSettings.model_validate(_openai())
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise WorkspaceError(f"OPENAI_BASE_URL: {reason}", hint="Correct or unset that variable.") from None


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
        start = _start(path)
        folder = _folder(start, above=not path)
        if folder is None:
            raise WorkspaceError(
                f"no {SETTINGS_FILE} in {start}" + ("" if path else " or above it"),
                hint="Make a workspace with: workbench init DIR",
            )
        return cls(folder, read_settings(folder / SETTINGS_FILE))

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
    def events(self) -> Path:
        return self.root / self.settings.events.path

    @property
    def runs(self) -> Path:
        return self.events / "runs"

    @property
    def trainings(self) -> Path:
        return self.events / "trainings"

    @property
    def blobs(self) -> Path:
        return self.root / self.settings.blobs.path

    @property
    def built_indexes(self) -> Path:
        return self.root / ".workbench" / "indexes"

    @property
    def adapters(self) -> Path:
        return self.root / ".workbench" / "adapters"

    @property
    def finetunes(self) -> Path:
        return self.root / ".workbench" / "finetunes"

    @property
    def responses(self) -> Path:
        return self.root / ".workbench" / "cache" / "responses.sqlite"

    @property
    def embeddings(self) -> Path:
        return self.root / ".workbench" / "cache" / "embeddings.sqlite"

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
        reason = first["msg"].removeprefix("Value error, ")
        raise WorkspaceError(f"{path}: {place}: {reason}", hint="Mend or remove that key.") from None


def _start(path: str | Path | None) -> Path:
    return Path(path or os.environ.get("WORKBENCH_WORKSPACE") or Path.cwd()).resolve()


def _folder(start: Path, *, above: bool) -> Path | None:
    candidates = [start, *start.parents] if above else [start]
    return next((folder for folder in candidates if (folder / SETTINGS_FILE).is_file()), None)


_opened: Layout | None = None


def use(layout: Layout) -> None:
    """Let `layout` be this process's workspace, whose settings count where none are given."""
    global _opened
    _opened = layout


def current_layout() -> Layout:
    """The workspace last opened in this process, else the nearest one.

    Raises:
        WorkspaceError: there is none, or its `workbench.toml` is malformed.
    """
    return _opened or Layout.find()


def current_settings() -> Settings:
    """Settings of the workspace last opened in this process, else of the nearest one, else the defaults.

    Raises:
        WorkspaceError: the nearest workspace's `workbench.toml` is malformed.
    """
    if _opened is not None:
        return _opened.settings
    folder = _folder(_start(None), above=True)
    return read_settings(folder / SETTINGS_FILE) if folder else Settings()


def cache_folder() -> Path:
    """Where models and other things that can be made again lie: `WORKBENCH_CACHE`, else the user's cache folder."""
    override = os.environ.get("WORKBENCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("llmops-workbench"))
