"""Engine: the one small protocol through which every model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from workbench.errors import ModelError
from workbench.files import short

if TYPE_CHECKING:
    from workbench.models.budget import Budget

Role = Literal["system", "user", "assistant"]
Quantization = Literal["auto", "none", "int8", "nf4"]
FinishReason = Literal["stop", "length"]


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Role
    content: str


class Generation(BaseModel):
    """How text is generated.

    Attributes:
        max_new_tokens: the answer is cut after this many tokens (finish reason `length`).
        temperature: 0 is greedy; above it tokens are sampled.
        top_p: sample from the smallest set of tokens with at least this probability.
        top_k: sample from this many most likely tokens; 0 is no limit.
        seed: with the row's id and the repeat it seeds sampling, so neither order nor batching changes an answer.
        stop: the answer ends before the first of these strings.
        quantization: `auto` is NF4 with double quantization and bf16 on CUDA, int8 on a CPU.
        constrain: keep the answer to the pipeline's `response_schema` while generating, where it has one.
        choices: the answer is the most probable of these texts and nothing is sampled, so that `max_new_tokens`, `stop`
            and `constrain` have no say. None, like an empty list, generates text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    seed: int = 0
    stop: tuple[str, ...] = ()
    quantization: Quantization = "none"
    constrain: bool = True
    # None rather than (), so that the digest of a pipeline without choices is what it was before there were any.
    choices: tuple[str, ...] | None = None

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not choices:
            return None
        if not all(choices) or len(set(choices)) < len(choices):
            raise ValueError("choices must be distinct texts, none of them empty")
        return choices

    @model_validator(mode="after")
    def _check_sampling(self) -> Generation:
        if self.choices and self.temperature > 0:
            raise ValueError("with choices the most probable one is the answer: leave temperature at 0")
        return self


@dataclass(frozen=True)
class ModelInfo:
    """What answers: enough to tell two models apart and to say where one ran."""

    name: str
    digest: str
    provider: str
    device: str
    dtype: str
    quantization: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """One question to an engine.

    Attributes:
        seed_key: row id and repeat, which make sampling independent of order.
        adapter: digest of the adapter that answers with the model; None is the model alone.
    """

    messages: tuple[Message, ...]
    generation: Generation = field(default_factory=Generation)
    response_schema: dict[str, Any] | None = None
    seed_key: str = ""
    adapter: str | None = None


@dataclass(frozen=True)
class Completion:
    """An engine's answer to one request.

    Attributes:
        text: the generated text, without stop strings and special tokens; None where `error_kind` is set.
        finish_reason: `stop` (the model ended, or a stop string came) or `length`.
        logprob: sum of the natural log-probabilities of the tokens that the model chose, its end token included, before
            any constraint; tokens that a schema forces were no choice and count 0.
        queue_s: seconds from the call of `generate` until this row's batch began.
        ttft_s: seconds from there to the row's first token.
        latency_s: seconds from there to the row's last token; rows of one batch share the machine, so compare latencies
            only between runs of like batches.
        cost_usd: dollars spent on this answer; None where the model's price is not known, 0 where it is `cached`.
        cached: it comes from the response cache; its times are those of the call that was cached.
        error_kind: None, or `engine`, `timeout`, `out_of_memory`, `too_long` (prompt and answer do not fit the model),
            `prompt` (the inputs do not fit the template) or `budget` (the run's budget is spent).
    """

    text: str | None
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    latency_s: float = 0.0
    cost_usd: float | None = 0.0
    cached: bool = False
    error_kind: str | None = None
    error: str | None = None


class Engine(Protocol):
    """A model that answers. Implementations need nothing else."""

    @property
    def info(self) -> ModelInfo: ...

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield `(index of the request, completion)`, each index once, in whatever order they are done.

        An engine whose calls cost money reserves each in `budget` first; one whose calls are free ignores it.

        A request that fails is a completion with `error_kind`; an exception ends the whole call.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens that `messages` take, chat template included."""
        ...

    def close(self) -> None:
        """Free what the engine holds. It may be called twice."""
        ...


def check_adapter(engine: Engine, adapter: str) -> None:
    """Refuse an adapter that `engine` would not answer with. An engine that takes adapters has a `check_adapter`.

    Raises:
        ModelError: the engine takes none, or not this one.
        NotFoundError: there is no such adapter here.
    """
    check = getattr(engine, "check_adapter", None)
    if check is None:
        raise ModelError(
            f"{engine.info.name} takes no adapter ({short(adapter)}): only models that run in this process do",
            hint="Use the model that it was trained on, or leave the adapter out.",
        )
    check(adapter)
