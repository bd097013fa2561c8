"""What is trained: a base model, quantized or not, and the LoRA adapter on it."""

from __future__ import annotations

from typing import Any

from workbench.errors import UsageError, require
from workbench.finetune.quiet import versions_apart
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.engine import Quantization
from workbench.models.store import ModelFolder, find_model
from workbench.models.transformers_engine import TransformersEngine


def load_base(recipe: FinetuneRecipe, device: str | None = None) -> tuple[Any, Any, ModelFolder, Any, Quantization]:
    """The base as the engine loads it: model, tokenizer, folder, torch dtype, and the quantization that `auto` came to.

    Raises:
        ModelError: no such model here, or its files cannot be loaded.
        MissingExtraError: torch, transformers or bitsandbytes is not installed.
    """
    folder = find_model(recipe.model)
    engine = TransformersEngine.load(recipe.model, quantization=recipe.settings.quantization, device=device)
    torch = require("torch", extra="finetune")
    model = engine.model
    if engine.info.device == "mps":
        # Gradients overflow in fp16 without a scale for the loss, which MPS has no use for.
        model = model.float()
    if engine.tokenizer.pad_token_id is None:
        engine.tokenizer.pad_token = engine.tokenizer.eos_token
    quantization: Any = engine.info.quantization
    dtype = torch.float32 if engine.info.device == "mps" else getattr(torch, engine.info.dtype)
    return model, engine.tokenizer, folder, dtype, quantization


def lora_config(recipe: FinetuneRecipe) -> Any:
    """peft's description of the adapter."""
    peft = require("peft", extra="finetune")
    settings = recipe.settings
    target = settings.target_modules
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target if isinstance(target, str) else list(target),
        bias="none",
    )


def with_adapter(model: Any, recipe: FinetuneRecipe) -> Any:
    """The base, frozen, with a fresh adapter whose first weights come from the recipe's seed.

    Adapter weights are fp32 except under bf16 on CUDA with a quantized base, as in QLoRA (Dettmers et al. 2023).

    Raises:
        UsageError: `target_modules` names nothing that the model has.
    """
    peft = require("peft", extra="finetune")
    transformers = require("transformers", extra="finetune")
    if getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False):
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=recipe.settings.gradient_checkpointing
        )
    transformers.set_seed(recipe.settings.seed)
    try:
        with versions_apart():
            return peft.get_peft_model(model, lora_config(recipe))
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UsageError(
            f"target_modules {recipe.settings.target_modules!r} names no module of {recipe.model}",
            hint="Use all-linear, or names such as q_proj and v_proj.",
        ) from error
