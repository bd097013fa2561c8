"""What a bundle installs: the packages that its pipeline needs, at the versions that its evidence was made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workbench.errors import MissingExtraError
from workbench.pipeline.pipeline import Pipeline
from workbench.retrieval.recipe import IndexRecipe
from workbench.serving.own_wheel import DISTRIBUTION
from workbench.workspace import SERVER_NAME


def extras_of(pipeline: Pipeline, recipe: IndexRecipe | None) -> tuple[str, ...]:
    """The extras of the workbench that a pipeline needs to answer over HTTP, sorted.

    Args:
        recipe: of the index that it searches; None without retrieval.
    """
    extras = {"http", _extra_of_model(pipeline.model)}
    if pipeline.adapter is not None:
        extras.add("adapters")
    if recipe is not None:
        extras |= {"rag", "minilm" if recipe.embedder == "minilm" else _extra_of_model(recipe.embedder)}
        if "minilm" in extras:
            extras.add("local")
    return tuple(sorted(extras))


def is_remote(model: str) -> bool:
    """Whether a name means a model of a server (`SERVER:MODEL`)."""
    prefix, colon, _ = model.partition(":")
    return bool(colon) and SERVER_NAME.fullmatch(prefix) is not None


def pins(extras: Iterable[str], recorded: Mapping[str, str]) -> dict[str, str]:
    """Versions of every package that the workbench with these extras needs, itself left out, by name.

    What needs what is read from the packages that are installed here; a version is the recorded one, else the installed.

    Args:
        recorded: versions by package, as an artifact's environment has them.

    Raises:
        MissingExtraError: a package is not installed here, so that what it needs is not known.
    """
    versions = {canonicalize_name(name): version for name, version in recorded.items()}
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(DISTRIBUTION), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise MissingExtraError(
                f"{name} is not installed, so what a bundle needs is not known",
                hint=f"Run: pip install 'llmops-workbench[{','.join(sorted(extras))}]'",
            ) from None
        if name != DISTRIBUTION:
            found[name] = versions.get(name, package.version).partition("+")[0]
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return dict(sorted(found.items()))


def _extra_of_model(model: str) -> str:
    return "remote" if is_remote(model) else "local"
