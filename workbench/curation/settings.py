"""CurationSettings: which checks run, what each does with a row it finds, and where its limits are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.errors import UsageError
from workbench.retrieval.embedding import MINILM
from workbench.validation import first_fault

Check = Literal[
    "empty",
    "personal-data",
    "leakage",
    "exact-duplicates",
    "near-duplicates",
    "length-outliers",
    "label-noise",
    "class-balance",
]
Action = Literal["drop", "flag", "skip"]
CHECKS: tuple[Check, ...] = get_args(Check)

# What names or reaches a person. Places and dates are left out: on their own they point at nobody.
ENTITIES = (
    "PERSON",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "US_SSN",
    "US_ITIN",
    "US_PASSPORT",
    "US_BANK_NUMBER",
    "UK_NHS",
)


class CurationSettings(BaseModel):
    """What is looked for and what becomes of it. The defaults drop only copies within a split and leaks.

    Attributes:
        exact_duplicates, near_duplicates, leakage, personal_data, length_outliers, empty, label_noise, class_balance: what
            the check of that name does: `drop` leaves a row out, `flag` only reports it, `skip` does not look. Personal
            data can also be `mask`ed. Suspected labels are never dropped, and class balance is about no single row.
        splits: the data set's splits, those whose rows go first before those whose rows stay; empty tells them by name
            (train, then dev, then test).
        jaccard: share of word shingles from which two texts are near duplicates (Broder 1997). shingle: words in one.
            permutations: of MinHash; more of them miss fewer pairs.
        cosine: of two embeddings, from which two texts are near duplicates.
        embedder: name of an embedder; None leaves out what needs one.
        entities: kinds of personal data, by Presidio's names. min_confidence: below it a find does not count.
        length_z: robust z-score of the logarithm of a length from which it is an outlier (Iglewicz and Hoaglin 1993).
        label_margin: by how much the probability of another label must exceed that of the given one.
        folds: of the cross-validation that gives those probabilities. seed: of its folds.
        smallest_class: a class with fewer rows is too small.
        most_classes: a target with more values is not a set of classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    exact_duplicates: Action = "drop"
    near_duplicates: Action = "flag"
    leakage: Action = "drop"
    personal_data: Literal["drop", "mask", "flag", "skip"] = "flag"
    length_outliers: Action = "flag"
    empty: Action = "flag"
    label_noise: Literal["flag", "skip"] = "flag"
    class_balance: Literal["flag", "skip"] = "flag"
    splits: tuple[str, ...] = ()
    jaccard: float = Field(default=0.7, gt=0, le=1)
    shingle: int = Field(default=2, ge=1, le=10)
    permutations: int = Field(default=128, ge=16, le=1024)
    cosine: float = Field(default=0.95, gt=0, le=1)
    embedder: str | None = MINILM
    entities: tuple[str, ...] = ENTITIES
    min_confidence: float = Field(default=0.4, ge=0, le=1)
    length_z: float = Field(default=3.5, gt=0)
    label_margin: float = Field(default=0.2, ge=0, lt=1)
    folds: int = Field(default=5, ge=2, le=20)
    seed: int = Field(default=0, ge=0, lt=2**32)
    smallest_class: int = Field(default=10, ge=1)
    most_classes: int = Field(default=500, ge=2)

    @field_validator("splits", "entities")
    @classmethod
    def _no_name_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name is given twice")
        return names

    @model_validator(mode="after")
    def _something_to_find(self) -> Self:
        if self.personal_data != "skip" and not self.entities:
            raise ValueError("entities is empty: name what counts as personal data, or skip personal_data")
        return self

    def action(self, check: Check) -> str:
        """What `check` does."""
        return str(getattr(self, check.replace("-", "_")))


def make_settings(
    drop: Iterable[str] = (), flag: Iterable[str] = (), skip: Iterable[str] = (), **fields: Any
) -> CurationSettings:
    """Settings from the names of checks and from other fields of `CurationSettings`.

    Raises:
        UsageError: no such check, one with two actions, or a value that is not allowed.
    """
    chosen = dict(fields)
    for action, names in (("drop", drop), ("flag", flag), ("skip", skip)):
        for name in names:
            if name not in CHECKS:
                raise UsageError(f"there is no check {name!r}", hint=f"The checks are: {', '.join(CHECKS)}")
            field = name.replace("-", "_")
            if chosen.get(field, action) != action:
                raise UsageError(f"{name} is told to {chosen[field]} and to {action}", hint="Choose one")
            if action == "drop" and name in ("label-noise", "class-balance"):
                raise UsageError(f"{name} never drops rows", hint="Look at the rows it reports and correct them")
            chosen[field] = action
    try:
        return CurationSettings(**chosen)
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None
