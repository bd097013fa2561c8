"""What is trained: a base model, quantized or not, and the LoRA adapter on it."""

from __future__ import annotations

from typing import Any

from workbench.errors import ModelError, UsageError, require
from workbench.finetune import processes
from workbench.finetune.quiet import versions_apart
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.adapter_switch import check_base
from workbench.models.adapters import AdapterFolder, find_adapter, verify_adapter
from workbench.models.engine import Quantization
from workbench.models.peft_files import WEIGHTS
from workbench.models.store import ModelFolder, find_model
from workbench.models.transformers_engine import TransformersEngine
from workbench.workspace import Layout


def load_base(recipe: FinetuneRecipe, device: str | None = None) -> tuple[Any, Any, ModelFolder, Any, Quantization]:
    """The base as the engine loads it: model, tokenizer, folder, torch dtype, and the quantization that `auto` came to.

    Raises:
        ModelError: no such model here, or its files cannot be loaded.
        MissingExtraError: torch, transformers or bitsandbytes is not installed.
    """
    folder = find_model(recipe.model)
    engine = TransformersEngine.load(
        recipe.model, quantization=recipe.settings.quantization, device=device, sharded=processes.is_sharded()
    )
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


def lora_config(recipe: FinetuneRecipe, start: AdapterFolder | None = None) -> Any:
    """peft's description of the adapter; that of `start` where training starts from one."""
    peft = require("peft", extra="finetune")
    if start is not None:
        config = peft.LoraConfig.from_pretrained(start.path)
        # What is kept is for asking, and what peft reads takes precedence over what it is told.
        config.inference_mode = False
        return config
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


def start_of(layout: Layout, recipe: FinetuneRecipe) -> AdapterFolder | None:
    """The adapter that training starts from, its bytes verified; None where it starts from the bare base.

    Raises:
        NotFoundError: it is not here.
        IntegrityError: a byte of it has changed.
        ModelError: it is an adapter of another base.
    """
    if recipe.adapter is None:
        return None
    start = find_adapter(layout, recipe.adapter)
    verify_adapter(start)
    check_base(start, find_model(recipe.model))
    return start


def with_adapter(model: Any, recipe: FinetuneRecipe, start: AdapterFolder | None = None) -> Any:
    """The base, frozen, with the adapter that is trained: that of `start`, or a fresh one drawn by the recipe's seed.

    Adapter weights are fp32 except under bf16 on CUDA with a quantized base, as in QLoRA (Dettmers et al. 2023).

    Raises:
        UsageError: `target_modules` names nothing that the model has.
    """
    peft = require("peft", extra="finetune")
    transformers = require("transformers", extra="finetune")
    if (
        getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False)
    ) and not processes.is_sharded():
        # FSDP wants one type for all weights that it shards, so there the rest of the base stays in 16 bits.
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=recipe.settings.gradient_checkpointing
        )
    transformers.set_seed(recipe.settings.seed)
    try:
        with versions_apart():
            adapted = peft.get_peft_model(model, lora_config(recipe, start))
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UsageError(
            f"target_modules {recipe.settings.target_modules!r} names no module of {recipe.model}",
            hint="Use all-linear, or names such as q_proj and v_proj.",
        ) from error
    if start is not None and next(adapted.parameters()).device.type != "meta":
        import safetensors.torch

        weights = safetensors.torch.load(start.files()[WEIGHTS])
        missing = peft.set_peft_model_state_dict(adapted, weights)
        if missing.unexpected_keys or any("lora_" in key for key in missing.missing_keys):
            raise ModelError(f"{start} does not fit {recipe.model}", hint="Start from an adapter of the same base.")
    return adapted
