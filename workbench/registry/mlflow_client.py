"""The few calls of MLflow's prompt registry that the workbench makes, and their errors in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from workbench.errors import NotFoundError, PromptError, UsageError, WorkbenchError, require

_URI = re.compile(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?://\S+")
# As MLflow's own rule; a name is part of a query.
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_HINT = "Write http://HOST:PORT of an MLflow server, or the database's own URI, such as sqlite:////PATH/mlflow.db."
_USER = re.compile(r"//[^/\s]*@")
# A page of a search; the server's own limit for prompts is higher.
_PAGE = 100
# MLflow's own default, seven, goes on for minutes where nobody answers.
_RETRIES = "3"


def shown_uri(uri: str) -> str:
    """A URI without user, password and query, to be printed and recorded."""
    return _USER.sub("//", uri).partition("?")[0]


class Client:
    """MLflow's client, which this names in the workbench's words. A version is MLflow's own `PromptVersion`."""

    def __init__(self, client: Any, failure: type[Exception]) -> None:
        self._client = client
        self._failure = failure

    def names(self) -> list[str]:
        """Every prompt there, by name."""
        found = _pages(lambda token: self._client.search_prompts(max_results=_PAGE, page_token=token))
        return sorted(prompt.name for prompt in found)

    def versions(self, name: str) -> list[Any] | None:
        """The versions of a prompt, the oldest first; None where there is no such prompt.

        Raises:
            PromptError: it is a model, or not as MLflow writes prompts.
        """
        if not _NAME.fullmatch(name):
            return None
        try:
            found = list(_pages(lambda token: self._client.search_prompt_versions(name, _PAGE, token)))
        except ValueError as error:  # a list of messages that is none
            raise PromptError(f"MLflow cannot read it: {_line(error)}", hint="Delete it in MLflow.") from None
        except self._failure as error:
            code = getattr(error, "error_code", "")
            if code == "RESOURCE_DOES_NOT_EXIST":
                return None
            if code == "INVALID_PARAMETER_VALUE":
                raise PromptError(_line(error), hint="Choose another name.") from None
            raise
        return sorted(found, key=lambda one: int(one.version))

    def aliases(self, name: str) -> dict[int, list[str]]:
        """The aliases of a prompt, by the version that they point at."""
        # A search for versions leaves them out, and one request for each version would be many.
        query = f"name = '{name}' AND tags.`mlflow.prompt.is_prompt` = 'true'"
        by_version: dict[int, list[str]] = {}
        for found in self._client.search_registered_models(query, max_results=1):
            for alias, version in found.aliases.items():
                by_version.setdefault(int(version), []).append(alias)
        return by_version

    def create(self, name: str) -> None:
        """Make a prompt without versions."""
        self._client.create_prompt(name)

    def add(self, name: str, template: object, message: str, tags: Mapping[str, str]) -> int:
        """Add a version; returns its number in MLflow."""
        made = self._client.create_prompt_version(name, template, description=message or None, tags=dict(tags))
        return int(made.version)

    def tag(self, name: str, version: int, key: str, value: str) -> None:
        """Set a tag on a version."""
        self._client.set_prompt_version_tag(name, version, key, value)


@contextlib.contextmanager
def open_client(uri: str, *, existing: bool = False) -> Iterator[Client]:
    """A client of the registry at a URI, whose failures are the workbench's errors.

    Args:
        existing: refuse an SQLite file that is not there, rather than make it.

    Raises:
        UsageError: not a URI of MLflow.
        NotFoundError: there is no such file.
        MissingExtraError: `mlflow-skinny` is not installed.
        WorkbenchError: MLflow cannot be reached, or refuses.
    """
    if not _URI.fullmatch(uri):
        raise UsageError(f"{shown_uri(uri)!r} is not the URI of an MLflow registry", hint=_HINT)
    _check_file(uri, existing)
    # Before the import, which starts sending how it is used.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)
    with warnings.catch_warnings():
        # Of what its own libraries will call differently some day.
        warnings.simplefilter("ignore")
        mlflow = require("mlflow", extra="mlflow")
        exceptions = require("mlflow.exceptions", extra="mlflow")
        with _quiet():
            try:
                yield Client(mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri), exceptions.MlflowException)
            except (exceptions.MlflowException, SQLAlchemyError) as error:
                raise WorkbenchError(
                    f"MLflow at {shown_uri(uri)}: {_line(error)}",
                    hint="Check that it runs and lets you in (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_TOKEN).",
                ) from None


def _check_file(uri: str, existing: bool) -> None:
    if not uri.startswith("sqlite"):
        return
    path = Path(uri.partition("?")[0].partition(":///")[2])
    if not path.name:
        raise UsageError(f"{uri!r} names no file", hint=_HINT)
    if not path.parent.is_dir() or (existing and not path.is_file()):
        raise NotFoundError(f"no {path if path.parent.is_dir() else path.parent}", hint="Check the path.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("mlflow")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _line(error: Exception) -> str:
    """What an error says, in one line and without the password in a URI."""
    text = _USER.sub("//", " ".join(str(getattr(error, "orig", None) or error).split())).rstrip(".")
    if "Max retries exceeded" in text:
        return "nobody answers there"
    return text if len(text) <= 300 else text[:300] + "…"
