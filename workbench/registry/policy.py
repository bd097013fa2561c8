"""Policy: what a variant must show before it is promoted, as a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workbench.errors import DataError, NotFoundError
from workbench.files import digest_json
from workbench.validation import first_fault
from workbench.workspace import Layout

Minimum = Literal["better", "equivalent", "non_inferior", "none"]
Statistic = Literal["mean", "p50", "p95", "max"]
EvidenceName = Literal[
    "dataset_digest",
    "experiment_digest",
    "model_digest",
    "pipeline_digest",
    "notebook_digest",
    "git_commit",
    "environment",
]

RATES = ("error_rate", "invalid_output_rate")
TIMES = ("latency_s", "ttft_s")
COUNTS = ("tokens_in", "tokens_out", "cost_usd")

DEFAULT_FILE = "default.toml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DecisionPolicy(_Part):
    """`[decision]`: what the comparison with the baseline must conclude.

    A policy without this section asks for it all the same, by the defaults; one that is to ask nothing says so:
    `minimum = "none"` and `min_rows = 1`.

    Attributes:
        scorer: the scorer that decides; the run's primary one by default.
        minimum: `better`; `equivalent` (or better); `non_inferior` (or either of these); `none`.
        min_rows: rows that both variants answered and the scorer scored; asked for whatever the minimum.
        margin: the difference that does not matter, in the scorer's units. Equivalence and non-inferiority need it.
        level: of the intervals and of the test.
        against: what to compare with: the `baseline` that is named, or what the `alias` points at now, which the run must
            then have asked too.
    """

    scorer: str | None = None
    minimum: Minimum = "better"
    min_rows: int = Field(default=50, ge=1)
    margin: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    against: Literal["baseline", "alias"] = "baseline"

    @model_validator(mode="after")
    def _check(self) -> DecisionPolicy:
        if self.minimum in ("equivalent", "non_inferior") and self.margin is None:
            raise ValueError(f"minimum = {self.minimum!r} needs a margin")
        return self


class Guard(_Part):
    """`[[guard]]`: a bound on one metric of the variant.

    Attributes:
        metric: `latency_s`, `ttft_s`, `tokens_in`, `tokens_out`, `cost_usd`, `error_rate`, `invalid_output_rate`, or
            the name of a scorer of the run.
        statistic: of the metric over calls; quantiles are interpolated linearly. A rate has only its `mean`.
        max, min: bounds in the metric's units.
        max_ratio: bound as a multiple of the baseline's value.
    """

    metric: str
    statistic: Statistic = "mean"
    max: float | None = Field(default=None, allow_inf_nan=False)
    min: float | None = Field(default=None, allow_inf_nan=False)
    max_ratio: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Guard:
        if self.max is None and self.min is None and self.max_ratio is None:
            raise ValueError(f"the guard of {self.metric} has no bound; give max, min or max_ratio")
        if self.metric in RATES and self.statistic != "mean":
            raise ValueError(f"{self.metric} has no {self.statistic}, only a mean")
        return self

    @property
    def name(self) -> str:
        return self.metric if self.metric in RATES else f"{self.metric} {self.statistic}"


class EvidencePolicy(_Part):
    """`[evidence]`: what must be on record. `complete` can only be true: part of a run is not evidence.

    Attributes:
        allow_dirty: whether tracked files may have differed from the commit, or sources have been in no commit.
        max_age_days: how long ago the run may have ended.
    """

    required: tuple[EvidenceName, ...] = ()
    complete: Literal[True] = True
    allow_dirty: bool = True
    max_age_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class ApprovalPolicy(_Part):
    """`[[approval]]`: people who must have approved the version. Roles are in `[roles]` of `workbench.toml`."""

    role: str = Field(min_length=1)
    count: int = Field(default=1, ge=1)


class TestPolicy(_Part):
    """`[[test]]`: a command that must end with 0, run in the workspace's folder.

    Attributes:
        command: the program and its arguments, without a shell. WORKBENCH_ARTIFACT names the version in question.
    """

    __test__ = False
    name: str = Field(min_length=1)
    command: tuple[str, ...] = Field(min_length=1)
    timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)


class Identity(_Part):
    """Somebody who signs without a key, and the OpenID Connect provider that says who it is.

    Attributes:
        identity: an e-mail address, or a URI such as a CI workflow's, exactly as the certificate has it.
        issuer: the provider's address.
    """

    identity: str = Field(min_length=1)
    issuer: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


class SignaturePolicy(_Part):
    """`[signature]`: who may sign, of whom so many must have signed the version.

    Attributes:
        keys: public keys, files relative to the workspace.
        identities: who signs without a key.
        count: of both together.
    """

    keys: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    count: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> SignaturePolicy:
        if not self.keys and not self.identities:
            raise ValueError("give keys, identities or both")
        if self.count > len(set(self.keys)) + len(set(self.identities)):
            raise ValueError(
                f"count = {self.count} is more than there are keys{' and identities' * bool(self.identities)}"
            )
        return self


class Policy(_Part):
    """A policy file. Unknown keys are refused, so a typing mistake cannot switch a check off."""

    format_version: Literal[1] = 1
    decision: DecisionPolicy = DecisionPolicy()
    guard: tuple[Guard, ...] = ()
    evidence: EvidencePolicy = EvidencePolicy()
    approval: tuple[ApprovalPolicy, ...] = ()
    test: tuple[TestPolicy, ...] = ()
    signature: SignaturePolicy | None = None

    @property
    def digest(self) -> str:
        return digest_json(self.to_json())

    @property
    def judges(self) -> bool:
        """Whether it holds a variant to anything that the variant shows: a decision, or a bound on a metric."""
        return self.decision.minimum != "none" or bool(self.guard)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_file(cls, path: str | Path) -> Policy:
        """Read a policy.

        Raises:
            NotFoundError: no such file.
            DataError: not TOML, an unknown key, or a value that is not allowed; names the file and the key.
        """
        path = Path(path)
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"no policy file {path}", hint="Policies lie in policies/.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"not TOML: {error}", path=str(path), hint="Mend the file.") from None
        except ValidationError as error:
            raise DataError(first_fault(error), path=str(path), hint="Mend or remove that key.") from None


# What `policies/default.toml` says, for a workspace that has no such file.
DEFAULT_POLICY = Policy(
    decision=DecisionPolicy(minimum="better", min_rows=50),
    guard=(
        Guard(metric="error_rate", max=0.01),
        Guard(metric="invalid_output_rate", max=0.05),
        Guard(metric="latency_s", statistic="p95", max_ratio=1.5),
    ),
    evidence=EvidencePolicy(required=("dataset_digest", "model_digest", "pipeline_digest")),
)


def alias_policy(layout: Layout, alias: str) -> Policy | None:
    """What an alias asks of a version before it points there: `policies/ALIAS.toml`; None where there is no such file.

    Raises:
        DataError: the file is malformed.
    """
    path = layout.policies / f"{alias}.toml"
    return Policy.from_file(path) if path.exists() else None


def find_policy(layout: Layout, policy: Policy | str | Path | None = None) -> Policy:
    """The policy given, or its file; else the workspace's `policies/default.toml`, else the built-in one.

    Raises:
        NotFoundError: no such file.
        DataError: the file is malformed.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is not None:
        return Policy.from_file(policy)
    default = layout.policies / DEFAULT_FILE
    return Policy.from_file(default) if default.exists() else DEFAULT_POLICY
