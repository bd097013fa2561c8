"""What a fine-tuning consists of, written down in YAML so that it can be reviewed, repeated and planned before it is run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workbench.experiments.spec import prompt_file
from workbench.files import digest_json
from workbench.models.adapters import find_adapter
from workbench.models.engine import Quantization
from workbench.pipeline.prompt import Prompt
from workbench.validation import read_yaml
from workbench.workspace import Layout

Preset = Literal["quick", "balanced", "thorough"]
TooLong = Literal["drop", "truncate", "refuse"]

# What a preset says where the file does not; preferences are learned in smaller steps.
PREFERENCE_STEP = 0.1
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"rank": 8, "alpha": 16, "epochs": 2.0, "learning_rate": 5e-4, "patience": 2},
    "balanced": {"rank": 16, "alpha": 32, "epochs": 3.0, "learning_rate": 3e-4, "patience": 3},
    "thorough": {"rank": 32, "alpha": 64, "epochs": 6.0, "learning_rate": 2e-4, "patience": 4},
}


class TrainSettings(BaseModel):
    """How an adapter is trained.

    Attributes:
        preset: fills in rank, alpha, epochs, learning rate and patience where they are not given.
        quantization: of the base while it is trained on; `auto` is NF4 with double quantization and bf16 on CUDA, int8 on
            a CPU.
        rank, alpha, dropout: of LoRA (Hu et al. 2021); the update is scaled by alpha / rank.
        target_modules: names of the modules that are adapted, or `all-linear`: every linear one but the output layer.
        batch_size: rows in one step of the optimizer. micro_batch: rows that go through the model at once; None begins with
            `batch_size`, and what does not fit memory halves it, the batch size unchanged.
        epochs: passes over the train split. max_steps: an upper bound, if any.
        max_length: most tokens of a row. too_long: what is done with rows above it, which are counted either way.
        packing: several short rows in one sequence, none seeing another.
        completion_only: the loss counts the tokens of the answer alone.
        warmup: share of the steps over which the learning rate rises; it then falls as a cosine.
        eval_every: steps between two looks at the dev split, which are also when a checkpoint is kept; None is about eight
            times a training, evenly.
        patience: looks without a better dev loss after which training stops; the best checkpoint is what is kept.
        beta: of preferences: how dearly it costs to move away from what training started from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    preset: Preset = "quick"
    quantization: Quantization = "auto"
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    batch_size: int = Field(default=8, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    epochs: float = Field(default=2.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    max_length: int = Field(default=1024, ge=8)
    too_long: TooLong = "drop"
    packing: bool = False
    completion_only: bool = True
    gradient_checkpointing: bool = False
    eval_every: int | None = Field(default=None, ge=1)
    patience: int = Field(default=2, ge=1)
    beta: float = Field(default=0.1, gt=0)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return PRESETS.get(str(data.get("preset", "quick")), {}) | data

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError("micro_batch must divide batch_size")
        return self


class FinetuneFields(BaseModel):
    """What a recipe and the file that describes it have in common.

    Attributes:
        kind: `sft` learns the targets; `dpo` learns preferences, from the columns `chosen` and `rejected`.
        train, dev: names of splits. The test split takes no part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))
    format_version: Literal[1] = 1
    name: str
    kind: Literal["sft", "dpo"] = "sft"
    dataset: str
    train: str = "train"
    dev: str = "dev"
    settings: TrainSettings = TrainSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        settings = data.get("settings", {}) if isinstance(data, dict) else None
        if isinstance(settings, dict) and data.get("kind") == "dpo":
            preset = PRESETS.get(str(settings.get("preset", "quick")), {})
            rate = {"learning_rate": preset["learning_rate"] * PREFERENCE_STEP} if preset else {}
            return data | {"settings": rate | settings}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "dpo" and self.settings.packing:
            raise ValueError("settings.packing: pairs are not packed")
        return self


class FinetuneRecipe(FinetuneFields):
    """Data, base model, prompt and settings: what decides an adapter.

    A training row is the prompt rendered with the row's inputs, as any pipeline asks it, and the row's target as the
    answer, as few-shot examples show it.

    Attributes:
        adapter: digest of the adapter that training starts from, with its rank and modules; for preferences also what is
            departed from. None starts from the bare base.
    """

    model: str
    prompt: Prompt
    adapter: str | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return digest_json(self.model_dump(mode="json"))

    def with_settings(self, **changes: Any) -> FinetuneRecipe:
        """A copy with some training settings replaced, checked like new ones; another preset fills in what the old one did."""
        known = self.settings.model_dump()
        if "preset" in changes:
            filled = type(self)(**self._others(), settings={"preset": self.settings.preset}).settings
            given = PRESETS[self.settings.preset]
            known = {
                name: value for name, value in known.items() if name not in given or value != getattr(filled, name)
            }
        return type(self)(**self._others(), settings=known | changes)

    def _others(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FinetuneRecipe.model_fields if name != "settings"}


class FinetuneSpec(FinetuneFields):
    """The YAML file; `prompt` is a file, relative to it or to the workspace, and `model` that of the workspace by default.

    Attributes:
        adapter: name or digest of the adapter to start from.
    """

    model: str | None = None
    prompt: str
    adapter: str | None = None


def read_recipe(layout: Layout, path: Path) -> FinetuneRecipe:
    """The recipe that a YAML file describes.

    Raises:
        UsageError: no such file, not YAML, or a field that does not fit; names the file and the field.
        NotFoundError: no such prompt file or adapter.
    """
    spec = read_yaml(path, FinetuneSpec, "fine-tuning file")
    fields = {name: getattr(spec, name) for name in FinetuneFields.model_fields}
    return FinetuneRecipe(
        **fields,
        model=spec.model or layout.settings.model,
        prompt=Prompt.from_file(prompt_file(spec.prompt, path, layout)),
        adapter=find_adapter(layout, spec.adapter).digest if spec.adapter else None,
    )
