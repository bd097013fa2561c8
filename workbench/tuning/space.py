"""The space a tuner searches: what may vary, and every configuration it makes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workbench.files import digest_json
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.recipe import HnswSettings, IndexRecipe
from workbench.retrieval.search_settings import Mode, SearchSettings
from workbench.retrieval.sparse import SparseSettings
from workbench.validation import read_yaml


class Configuration(BaseModel):
    """One way to build an index and to search it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: IndexRecipe = IndexRecipe()
    search: SearchSettings = SearchSettings()

    @property
    def digest(self) -> str:
        return digest_json(self.model_dump(mode="json"))

    @property
    def label(self) -> str:
        """What people call it: chunker and size, embedder, mode and what sets it apart; unlike settings have unlike ones.

        The graph's settings are not part of it: they are tuned for each finalist, and change what is found next to nothing.
        """
        search = self.search
        parts = [_chunker_label(self.recipe.chunker)]
        # Words alone are found the same whatever embedder stands beside them, unless that has a say in something else.
        if search.mode != "sparse" or search.mmr is not None or self.recipe.chunker.kind == "semantic":
            parts.append(last_part(self.recipe.embedder))
        how: str = search.mode
        if how == "hybrid":
            kind = search.fusion if search.fusion == "weighted" else f"rrf{search.rrf_k}"
            how = f"hybrid-{kind}-{search.dense_weight:g}"
        if search.mode != "dense":
            how += _changed(self.recipe.sparse, SparseSettings())
        if search.mmr is not None:
            how += f"-mmr{search.mmr:g}"
        if search.reranker:
            how += f"-{last_part(search.reranker)}"
        if search.candidates != max(search.k, 50):
            how += f"-of{search.candidates}"
        return " ".join([*parts, how, f"k{search.k}"])


def last_part(name: str) -> str:
    """What a folder or a model is called in labels."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def _chunker_label(chunker: ChunkerSettings) -> str:
    unit = "" if chunker.unit == "tokens" else "c"
    label = f"{chunker.kind}-{chunker.size}{unit}" + (f"+{chunker.overlap}" if chunker.overlap else "")
    if chunker.kind != "semantic":
        return label
    return label + _changed(chunker, ChunkerSettings(size=chunker.size), ("percentile", "minimum"))


def _changed(settings: BaseModel, default: BaseModel, names: Sequence[str] = ()) -> str:
    """The settings that differ from the default, as `-name=value`."""
    return "".join(
        f"-{name}={value:g}" if isinstance(value, float) else f"-{name}={value}"
        for name in names or type(settings).model_fields
        if (value := getattr(settings, name)) != getattr(default, name)
    )


class TuneSpace(BaseModel):
    """Values that are tried of each setting; every combination that makes sense is a configuration.

    Attributes:
        dense_weights, fusions, rrf_ks: of hybrid search. mmr: None is without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    chunkers: tuple[ChunkerSettings, ...] = (ChunkerSettings(),)
    embedders: tuple[str, ...] = ("minilm",)
    sparse: tuple[SparseSettings, ...] = (SparseSettings(),)
    hnsw: HnswSettings = HnswSettings()
    modes: tuple[Mode, ...] = ("dense", "sparse", "hybrid")
    fusions: tuple[Literal["rrf", "weighted"], ...] = ("rrf",)
    rrf_ks: tuple[int, ...] = (60,)
    dense_weights: tuple[float, ...] = (0.5,)
    mmr: tuple[float | None, ...] = (None,)
    rerankers: tuple[str | None, ...] = (None,)
    ks: tuple[int, ...] = (5,)
    candidates: int = Field(default=50, ge=1)

    @field_validator("embedders", "rerankers")
    @classmethod
    def _named_apart(cls, names: tuple[str | None, ...]) -> tuple[str | None, ...]:
        labels = [last_part(name) for name in dict.fromkeys(names) if name is not None]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two of them are called {twice!r}; give one folder another name")
        return names

    def configurations(self) -> list[Configuration]:
        """Every configuration once, in a fixed order; settings that a mode does not use do not multiply it."""
        found: dict[str, Configuration] = {}
        for chunker, embedder, sparse, mode, mmr, reranker, k in itertools.product(
            self.chunkers, self.embedders, self.sparse, self.modes, self.mmr, self.rerankers, self.ks
        ):
            recipe = IndexRecipe(chunker=chunker, embedder=embedder, sparse=sparse, hnsw=self.hnsw)
            for joined in self._fusions(mode):
                search = SearchSettings(
                    k=k, mode=mode, candidates=max(k, self.candidates), mmr=mmr, reranker=reranker, **joined
                )
                configuration = Configuration(recipe=recipe, search=search)
                found.setdefault(configuration.label, configuration)
        return list(found.values())

    def _fusions(self, mode: Mode) -> list[dict[str, object]]:
        if mode != "hybrid":
            return [{}]
        joined: list[dict[str, object]] = []
        for fusion, weight in itertools.product(self.fusions, self.dense_weights):
            if fusion == "rrf":
                joined += [{"fusion": "rrf", "rrf_k": k, "dense_weight": weight} for k in self.rrf_ks]
            else:
                joined.append({"fusion": "weighted", "dense_weight": weight})
        return joined


def default_space() -> TuneSpace:
    """A first sweep that a laptop finishes: three chunk sizes by three modes, and two weights of the hybrid."""
    return TuneSpace(
        chunkers=tuple(ChunkerSettings(kind="auto", size=size) for size in (96, 192, 384)),
        modes=("dense", "sparse", "hybrid"),
        dense_weights=(0.5, 0.7),
    )


def read_space(path: Path) -> TuneSpace:
    """A space written in YAML.

    Raises:
        UsageError: no such file, not YAML, or a field that does not fit.
    """
    return read_yaml(path, TuneSpace)
