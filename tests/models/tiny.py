"""A random Llama of a few kilobytes with a tokenizer of bytes, and LoRA adapters for it, for tests of what lies around."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from workbench.models.adapters import AdapterFolder, publish_adapter
from workbench.models.peft_files import CONFIG, WEIGHTS
from workbench.models.store import find_model
from workbench.workspace import Layout

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_tiny_model(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Two layers of width 64 whose weights are large enough for its answers to differ from one question to another."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.25,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**fields, **config}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(
    layout: Layout,
    base: Path | str,
    name: str = "tuned",
    *,
    seed: int = 0,
    scale: float = 0.1,
    base_digest: str | None = None,
    **lora: Any,
) -> AdapterFolder:
    """A published adapter with random weights; `scale` 0 leaves it as peft begins it, without any effect."""
    source = save_adapter(layout.root / f"peft-{name}-{seed}", base, seed=seed, scale=scale, **lora)
    found = find_model(base)
    try:
        return publish_adapter(
            layout,
            source,
            name=name,
            base=found.name,
            base_digest=base_digest or found.digest,
            recipe_digest="sha256:" + "0" * 64,
            quantization="none",
            metrics={"dev_loss": 0.25},
        )
    finally:
        shutil.rmtree(source)


def save_adapter(folder: Path, base: Path | str, *, seed: int = 0, scale: float = 0.1, **lora: Any) -> Path:
    """What peft saves of a LoRA adapter whose second matrices are drawn with the deviation `scale`."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(find_model(base).path, dtype=torch.float32, local_files_only=True)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **lora}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            # peft asks this version of transformers for an attribute that it calls by another name now.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
        with torch.no_grad():
            for part, parameter in adapted.named_parameters():
                if scale and "lora_B" in part:
                    parameter.normal_(std=scale)
    adapted.save_pretrained(str(folder))
    return folder


def hollow_adapter(layout: Layout, name: str = "tuned", *, rank: int = 4) -> AdapterFolder:
    """A published adapter of zeros for no model at all, for tests in which none is asked."""
    import numpy as np
    from safetensors.numpy import save_file

    source = layout.root / f"peft-{name}-{rank}"
    source.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"]}
    (source / CONFIG).write_text(json.dumps(config))
    parts = {"lora_A": (rank, 8), "lora_B": (8, rank)}
    tensors = {f"base_model.model.q_proj.{part}.weight": np.zeros(shape, np.float32) for part, shape in parts.items()}
    save_file(tensors, source / WEIGHTS)
    try:
        return publish_adapter(
            layout,
            source,
            name=name,
            base="none",
            base_digest="sha256:" + "1" * 64,
            recipe_digest="sha256:" + "0" * 64,
            quantization="none",
            metrics={},
        )
    finally:
        shutil.rmtree(source)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast
