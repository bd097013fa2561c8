"""Recipes of a workspace by name, and with other settings than their file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workbench.errors import NotFoundError, UsageError
from workbench.finetune.recipe import FinetuneRecipe, read_recipe
from workbench.validation import first_fault
from workbench.workspace import Layout

FOLDER = "adapters"


def list_recipes(layout: Layout) -> list[str]:
    """Names of the files in `adapters/`, sorted."""
    return sorted(path.stem for path in (layout.root / FOLDER).glob("*.yaml"))


def find_recipe(layout: Layout, name: str | Path) -> FinetuneRecipe:
    """A recipe of `adapters/` (`triage` or `adapters/triage.yaml`), or of any path.

    Raises:
        NotFoundError: there is none, or its prompt file is missing.
        UsageError: the file is malformed; names the field.
    """
    for path in (Path(name), layout.root / name, layout.root / FOLDER / f"{name}.yaml"):
        if path.is_file():
            return read_recipe(layout, path)
    known = ", ".join(list_recipes(layout))
    raise NotFoundError(
        f"no fine-tuning recipe {str(name)!r}",
        hint=f"Those in {FOLDER}/: {known}." if known else f"Write one: {FOLDER}/{Path(name).stem}.yaml",
    )


def changed(recipe: FinetuneRecipe, settings: Mapping[str, Any]) -> FinetuneRecipe:
    """The recipe with other training settings.

    Raises:
        UsageError: one that there is not, or a value that does not fit; names it.
    """
    if not settings:
        return recipe
    try:
        return recipe.with_settings(**settings)
    except ValidationError as error:
        raise UsageError(f"{recipe.name}: {first_fault(error)}", hint="Correct that setting.") from None
