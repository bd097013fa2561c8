"""Prompts to and from MLflow's prompt registry, on a server or in a database.

What MLflow shows and fills in is the text: one template of a prompt that is a single user message, else a list of
messages, with the examples as messages before the last. The whole prompt is in a tag, so an exported version comes back
with its digest; where its text is no longer the one exported, the text in MLflow counts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workbench.errors import NotFoundError, PromptError, UsageError
from workbench.registry.mlflow_client import Client, open_client, shown_uri
from workbench.registry.mlflow_text import PROMPT_TAG, mlflow_template, prompt_json, read_version, shots
from workbench.registry.names import check_alias, check_name
from workbench.registry.prompt_files import utc
from workbench.registry.prompt_import import ImportReport, Incoming, in_order, take_over
from workbench.registry.prompts import LATEST, SavedPrompt, kept_prompts
from workbench.state.db import timestamp
from workbench.workspace import Layout

VERSION_TAG = "workbench_version"
CREATED_TAG = "workbench_created_at"
_OWN = (PROMPT_TAG, VERSION_TAG, CREATED_TAG)
# Characters that MLflow takes as the value of a tag, a prompt's text being one.
LONGEST = 100_000


@dataclass(frozen=True)
class MlflowExport:
    """What became of each kept version: its version in MLflow; those in `created` were not there before."""

    uri: str
    prompts: Mapping[str, Mapping[int, int]]
    created: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        prompts = [
            {"name": name, "versions": {str(ours): theirs for ours, theirs in versions.items()}}
            | {"created": list(self.created[name])}
            for name, versions in self.prompts.items()
        ]
        return {"uri": self.uri, "prompts": prompts, "notes": list(self.notes)}


def export_to_mlflow(layout: Layout, uri: str, names: Iterable[str] = ()) -> MlflowExport:
    """Register every kept version of the named prompts, or of all, that MLflow does not have, and set the tags.

    A version that was deleted there stays deleted where a later one is there.

    Raises:
        NotFoundError: nothing was saved under a name.
        UsageError: not a URI of MLflow.
        MissingExtraError: `mlflow-skinny` is not installed.
        WorkbenchError: MLflow cannot be reached, or refuses.
    """
    kept = kept_prompts(layout, names)
    prompts: dict[str, dict[int, int]] = {}
    created: dict[str, tuple[int, ...]] = {}
    notes: list[str] = []
    with open_client(uri) as client:
        for name, versions in sorted(kept.items()):
            try:
                _check_length(versions)
                there = client.versions(name)
            except PromptError as error:
                notes.append(f"{name} was left out: {error.message}")
                continue
            if there is None:
                client.create(name)
            prompts[name], created[name] = _export(client, name, versions, there or [], notes)
    return MlflowExport(shown_uri(uri), prompts, created, tuple(notes))


def import_from_mlflow(
    layout: Layout,
    uri: str,
    names: Iterable[str] = (),
    *,
    actor: str | None = None,
    at: datetime | None = None,
) -> ImportReport:
    """Take over the versions of the named prompts in MLflow, or of all, that are not kept here, the oldest first.

    A version is left out, and the notes say why, if it cannot be a prompt here.

    Raises:
        NotFoundError: MLflow has no prompt of a name.
        UsageError: not a URI of MLflow.
        MissingExtraError: `mlflow-skinny` is not installed.
        WorkbenchError: MLflow cannot be reached, or refuses.
    """
    incoming: dict[str, Sequence[Incoming]] = {}
    notes: list[str] = []
    with open_client(uri, existing=True) as client:
        for name in list(dict.fromkeys(names)) or client.names():
            try:
                there = client.versions(name)
                if there is None:
                    raise NotFoundError(f"no prompt {name!r} in {shown_uri(uri)}", hint="Check the name.")
                check_name(name)
            except UsageError:
                notes.append(f"{name} was left out: a prompt here cannot have that name")
            except PromptError as error:
                notes.append(f"{name} was left out: {error.message}")
            else:
                if not there:
                    notes.append(f"{name} was left out: it has no version")
                aliases = client.aliases(name)
                found = [_incoming(name, one, aliases.get(int(one.version), []), notes) for one in there]
                if versions := [version for version in found if version is not None]:
                    incoming[name] = versions
    return take_over(layout, f"mlflow {shown_uri(uri)}", incoming, notes=notes, actor=actor, at=at)


def _check_length(versions: Sequence[SavedPrompt]) -> None:
    for saved in versions:
        longest = max(len(prompt_json(saved.prompt)), len(json.dumps(mlflow_template(saved.prompt))))
        if longest > LONGEST:
            raise PromptError(f"version {saved.version} has {longest:,} characters, and MLflow takes {LONGEST:,}")


def _export(
    client: Client, name: str, versions: Sequence[SavedPrompt], there: Sequence[Any], notes: list[str]
) -> tuple[dict[int, int], tuple[int, ...]]:
    digests = [_digest(one) for one in there]
    ours = {saved.version: saved.prompt.digest for saved in versions}
    exported: dict[int, int] = {}  # our versions, and where in `there` they are
    for place, one in enumerate(there):
        number = _number(one)
        if number is not None and ours.get(number) == digests[place]:
            exported.setdefault(number, place)
    newest = max(exported, default=0)
    pending = [saved for saved in versions if saved.version > newest]
    start = exported[newest] if newest else 0
    places = in_order(digests, [saved.prompt.digest for saved in pending], start)
    exported |= {saved.version: place for saved, place in zip(pending, places, strict=True) if place is not None}
    numbers: dict[int, int] = {}
    created: list[int] = []
    for saved in versions:
        if saved.version in exported:
            one = there[exported[saved.version]]
            numbers[saved.version] = int(one.version)
            _set_tags(client, name, one, saved, notes)
        elif saved.version < newest:
            notes.append(f"{name}: version {saved.version} was deleted in MLflow, and stays so")
        else:
            numbers[saved.version] = client.add(name, mlflow_template(saved.prompt), saved.message, _tags(saved))
            created.append(saved.version)
            if saved.prompt.examples and not shots(saved.prompt):
                notes.append(f"{name}: the examples of version {saved.version} hold braces, so they are in a tag alone")
    return numbers, tuple(created)


def _tags(saved: SavedPrompt) -> dict[str, str]:
    return {
        **dict.fromkeys(saved.tags, "true"),
        PROMPT_TAG: prompt_json(saved.prompt),
        VERSION_TAG: str(saved.version),
        CREATED_TAG: saved.created_at,
    }


def _set_tags(client: Client, name: str, one: Any, saved: SavedPrompt, notes: list[str]) -> None:
    for tag in saved.tags:
        value = one.tags.get(tag)
        if value is None:
            client.tag(name, int(one.version), tag, "true")
        elif value != "true":
            notes.append(f"{name}: {tag} is {value!r} on version {one.version} in MLflow, and stays so")


def _number(one: Any) -> int | None:
    value = one.tags.get(VERSION_TAG, "")
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _digest(one: Any) -> str | None:
    with contextlib.suppress(PromptError):
        return read_version(one)[0].digest
    return None


def _incoming(name: str, one: Any, pointing: Sequence[str], notes: list[str]) -> Incoming | None:
    try:
        prompt, edited = read_version(one)
    except PromptError as error:
        notes.append(f"{name}: version {one.version} in MLflow was left out: {error.message}")
        return None
    if edited:
        notes.append(f"{name}: version {one.version} was changed in MLflow, and its text there was taken")
    tags, aliases = list(_words(tag for tag, value in one.tags.items() if value == "true")), list(_words(pointing))
    foreign = {tag for tag in one.tags if tag not in (*tags, *_OWN) and not tag.startswith(("mlflow.", "_mlflow"))}
    beside = sorted(foreign | (set(pointing) - set(aliases)))
    beside += [what for what in ("response_format", "model_config") if getattr(one, what)]
    if beside:
        notes.append(f"{name}: of version {one.version} in MLflow was left out: {', '.join(beside)}")
    return Incoming(prompt, _time(one), one.commit_message or "", tuple(tags), None, tuple(aliases))


def _words(found: Iterable[str]) -> Iterator[str]:
    for word in found:
        with contextlib.suppress(UsageError):
            check_alias(word)
            if word != LATEST:
                yield word


def _time(one: Any) -> str:
    with contextlib.suppress(ValueError):
        return utc(one.tags.get(CREATED_TAG, ""))
    return timestamp(datetime.fromtimestamp((one.creation_timestamp or 0) / 1000, UTC))
