"""What peft saves of an adapter: its settings, read and checked, and what its weights belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ModelError, require

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SAVED_BY_PEFT = f"Name a folder with {CONFIG} and {WEIGHTS}, as peft's save_pretrained writes it."

# Ways to begin a training that leave the base as it is; the others (PiSSA, OLoRA, …) change its weights when they load.
_INITIAL = (True, False, None, "gaussian")
# What plain LoRA does without: weights beside its own, which would stay when it is switched off, and other arithmetic.
_MORE = (
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "target_parameters",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)


def read_config(path: Path, base: str) -> dict[str, Any]:
    """The settings that peft saved, without what differs from one run or machine to the next.

    Raises:
        ModelError: there are none, or they are not those of plain LoRA.
    """
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"no {path}", hint=SAVED_BY_PEFT) from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", hint=SAVED_BY_PEFT)
    check_plain(config, str(path))
    # A set in peft, so that its order is another one in each process.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    # A path on this machine, where the base was loaded from one.
    return config | {"base_model_name_or_path": base, "inference_mode": True}


def target_names(target: Any) -> Any:
    """The last part of each name, so that a module of every layer is one; a pattern is left as it is."""
    return sorted({str(name).rpartition(".")[2] for name in target}) if isinstance(target, list) else (target,)


def count_modules(weights: Path) -> int:
    """How many modules have weights in the file.

    Raises:
        ModelError: it is missing or malformed.
    """
    safetensors = require("safetensors", extra="local")
    try:
        with safetensors.safe_open(weights, framework="np") as file:
            names = list(file.keys())
    except FileNotFoundError:
        raise ModelError(f"no {weights}", hint=SAVED_BY_PEFT) from None
    except safetensors.SafetensorError as error:
        raise ModelError(f"{weights} cannot be read: {error}", hint=SAVED_BY_PEFT) from None
    return len({name.rpartition(".lora_")[0] for name in names if ".lora_" in name})


def check_plain(config: Mapping[str, Any], where: str) -> None:
    """Refuse settings of peft that are not those of plain LoRA, which alone gives the base back when it is switched off.

    Raises:
        ModelError: names the setting.
    """
    settings = {"peft_type": config.get("peft_type") != "LORA", "bias": config.get("bias", "none") != "none"}
    settings |= {"init_lora_weights": config.get("init_lora_weights", True) not in _INITIAL}
    settings |= {name: bool(config.get(name)) for name in _MORE}
    if faults := [name for name, fault in settings.items() if fault]:
        raise ModelError(
            f"{where} is no plain LoRA adapter: {faults[0]} is {config.get(faults[0])!r}",
            hint="Train it without that setting; only plain LoRA can be switched off again.",
        )
