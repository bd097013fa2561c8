"""Sparse search: BM25 over chunks, with bm25s. Saved as numpy arrays and JSON; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.errors import IntegrityError, UsageError, require
from workbench.files import canonical_json, digest_json, short, write_atomic
from workbench.retrieval.ranking import reach
from workbench.retrieval.words import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
SETTINGS_FILE, TERMS_FILE = "sparse.json", "terms.json"
ARRAYS = ("data", "indices", "indptr")
ABSENT = "nonoccurrence"

Method = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]


class SparseSettings(BaseModel):
    """How chunks are scored.

    Attributes:
        k1: how much a repeated term adds, at least 0.
        b: how much long chunks are held back, 0..1.
        method: a variant of BM25, as Kamphuis et al. 2020 ("Which BM25 do you mean?") tell them apart.
        delta: what a term adds at least, in BM25L and BM25+.
        language: whose Snowball stemmer takes endings off, such as "english"; None leaves words as they are.
        stopwords: leave the language's commonest words out. Names and keywords of programs are among them (`for`, `with`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    k1: float = Field(default=1.5, ge=0, allow_inf_nan=False)
    b: float = Field(default=0.75, ge=0, le=1)
    method: Method = "lucene"
    delta: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    language: str | None = "english"
    stopwords: bool = False

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str | None) -> str | None:
        known = require("Stemmer", extra="rag").algorithms() if language is not None else ()
        if language is not None and language not in known:
            raise ValueError(f"no stemmer for {language!r}; there is one for {', '.join(known)}")
        return language


class SparseIndex:
    """BM25 scores of a fixed list of texts, ready to be added up for a query."""

    def __init__(self, settings: SparseSettings, terms: dict[str, int], engine: Any, size: int) -> None:
        self.settings = settings
        self.size = size
        self._terms = terms
        self._engine = engine
        self._words = _words(settings)

    @classmethod
    def build(cls, texts: Sequence[str], settings: SparseSettings | None = None) -> SparseIndex:
        """An index of `texts`, whose places are the indices that searches return.

        Raises:
            MissingExtraError: bm25s or PyStemmer is not installed.
        """
        settings = settings or SparseSettings()
        words = _words(settings)
        terms: dict[str, int] = {}
        rows = [[terms.setdefault(term, len(terms)) for term in words(text)] for text in texts]
        engine = _engine(settings)
        if terms:
            engine.index((rows, terms), create_empty_token=False, show_progress=False)
        return cls(settings, terms, engine, len(rows))

    def scores(self, query: str) -> NDArray[np.float32]:
        """The BM25 score of every text, float32 (n,); 0 for one that holds no word of the query.

        A word that is twice in the query counts twice.
        """
        return self._score(query)[0]

    def search(
        self, query: str, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Up to `k` texts that hold a word of the query, best first, ties by index: indices (m,) and scores (m,).

        Args:
            allowed: (n,); others are as if they were not there, except that they count for how common a word is.

        Raises:
            UsageError: k is below 0, or `allowed` is not a truth value for each text.
        """
        import numpy as np

        if k < 0:
            raise UsageError(f"k of {k}", hint="Give a number of at least 0.")
        scores, matching = self._score(query)
        if allowed is not None:
            if allowed.shape != (self.size,) or allowed.dtype != np.bool_:
                raise UsageError(f"allowed of {allowed.dtype} {allowed.shape}", hint=f"Give {self.size} truth values.")
            matching = matching & allowed
        found = np.flatnonzero(matching)
        # All that reach the k-th best score, so that ties at the edge are decided by the sort below.
        found = found[reach(scores[found], k)]
        best = found[np.argsort(-scores[found], kind="stable")[:k]]
        return best, scores[best]

    def save(self, folder: Path) -> None:
        """Write the index to `folder`, which is made where it is not there."""
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        for name, values in self._arrays().items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
        write_atomic(folder / TERMS_FILE, json.dumps(list(self._terms), ensure_ascii=True))
        # Written last: a folder that holds it is complete.
        about = {"format_version": FORMAT, "size": self.size, "settings": self.settings.model_dump(mode="json")}
        write_atomic(folder / SETTINGS_FILE, canonical_json(about))

    @classmethod
    def load(cls, folder: Path) -> SparseIndex:
        """The index that was saved in `folder`; it finds the same with the same scores.

        Raises:
            IntegrityError: a file is missing, damaged, or of another format.
        """
        hint = "Build the index again."
        try:
            about = json.loads((folder / SETTINGS_FILE).read_bytes())
            if about["format_version"] != FORMAT:
                raise IntegrityError(f"{folder}: format {about['format_version']}, not {FORMAT}", hint=hint)
            settings = SparseSettings.model_validate(about["settings"])
            terms = json.loads((folder / TERMS_FILE).read_bytes())
            arrays = _load_arrays(folder, settings) if terms else {}
            size = int(about["size"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, ValidationError) as error:
            raise IntegrityError(f"{folder} holds no sparse index that can be read: {error}", hint=hint) from None
        if terms and not _fit(arrays, len(terms), size):
            raise IntegrityError(f"{folder}: the files of the sparse index do not fit together", hint=hint)
        engine = _engine(settings)
        if terms:
            engine.scores = {name: arrays[name] for name in ARRAYS} | {"num_docs": size}
            engine.nonoccurrence_array = arrays.get(ABSENT)
        return cls(settings, {term: place for place, term in enumerate(terms)}, engine, size)

    def __len__(self) -> int:
        return self.size

    def _score(self, query: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scores, and which texts hold a term of the query: a score alone does not tell, for common terms may score 0."""
        import numpy as np

        known = [self._terms[term] for term in self._words(query) if term in self._terms]
        if not known:
            return np.zeros(self.size, np.float32), np.zeros(self.size, np.bool_)
        scores = self._engine.get_scores_from_ids(known).astype(np.float32, copy=False)
        if self.settings.method == "lucene":
            # Every term adds something here, however common it is: log(1 + …) is above 0.
            return scores, scores > 0
        matching = np.zeros(self.size, np.bool_)
        starts, rows = self._engine.scores["indptr"], self._engine.scores["indices"]
        for term in set(known):
            matching[rows[starts[term] : starts[term + 1]]] = True
        # BM25L and BM25+ give even texts without any term a score, the same for all of them.
        return np.where(matching, scores, np.float32(0)), matching

    def _arrays(self) -> dict[str, NDArray[Any]]:
        if not self._terms:
            return {}
        arrays = {name: self._engine.scores[name] for name in ARRAYS}
        absent = self._engine.nonoccurrence_array
        return arrays if absent is None else arrays | {ABSENT: absent}


def sparse_folder(settings: SparseSettings) -> str:
    """The folder's name for an index of these settings; another form of the files, or other libraries, have their own."""
    from importlib.metadata import version

    require("bm25s", extra="rag")
    made_by = [version("bm25s"), version("PyStemmer") if settings.language is not None else None]
    return f"bm25-{FORMAT}-{short(digest_json([settings.model_dump(mode='json'), made_by]))}"


def _engine(settings: SparseSettings) -> Any:
    # The backend is named, for "auto" would take numba where it happens to be installed.
    return require("bm25s", extra="rag").BM25(
        k1=settings.k1, b=settings.b, delta=settings.delta, method=settings.method, backend="numpy"
    )


def _words(settings: SparseSettings) -> Words:
    stem = None
    if settings.language is not None:
        stem = require("Stemmer", extra="rag").Stemmer(settings.language).stemWord
    stopwords: Sequence[str] = ()
    if settings.stopwords and settings.language is not None:
        lists = require("bm25s.stopwords", extra="rag")
        name = {"english": "EN", "porter": "EN", "dutch_porter": "DUTCH"}.get(
            settings.language, settings.language.upper()
        )
        stopwords = getattr(lists, f"STOPWORDS_{name}", ())
    return Words(stem, frozenset(word.casefold() for word in stopwords))


def _load_arrays(folder: Path, settings: SparseSettings) -> dict[str, NDArray[Any]]:
    import numpy as np

    names = [*ARRAYS, *([ABSENT] if settings.method in ("bm25l", "bm25+") else [])]
    return {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}


def _fit(arrays: dict[str, NDArray[Any]], terms: int, size: int) -> bool:
    """Whether no search can reach past the ends of the arrays."""
    import numpy as np

    data, indices, indptr = (arrays[name] for name in ARRAYS)
    return bool(
        indptr.shape == (terms + 1,)
        and indptr[0] == 0
        and indptr[-1] == len(data) == len(indices)
        and (np.diff(indptr) >= 0).all()
        and (not len(indices) or (indices.min() >= 0 and indices.max() < size))
        and (ABSENT not in arrays or arrays[ABSENT].shape == (terms,))
    )
