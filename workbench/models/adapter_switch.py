"""Adapters on a loaded model: several at once, one of them switched on at a time, none where the base is asked."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.errors import IntegrityError, ModelError, require
from workbench.files import short
from workbench.models.adapters import AdapterFolder
from workbench.models.engine import ModelInfo
from workbench.models.peft_files import CONFIG, WEIGHTS, check_plain

if TYPE_CHECKING:
    import torch

    from workbench.models.store import ModelFolder

# Adapters that stay on a model; the one used longest ago makes room for the next.
MOST_ATTACHED = 8
# Tokens that an adapter must answer otherwise than its base.
PROBE = 24
# Bytes of an fp32 base's adapted weights up to which sums of weights and adapters are kept, and of all that are kept.
SUM_BYTES, SUMS_BYTES = 512 << 20, 1 << 30
_AGAIN = "Train the adapter again."


class AdapterSwitch:
    """The adapters of one model.

    peft puts its layers into the model itself, so that whoever calls the model gets the adapter that is switched on. The
    base's weights are never written to, whatever their type. A small base in fp32 gets, while an adapter is on, the sums
    of weights and adapter in the place of its weights: they cost memory, and no time for each token. On any other base,
    where sums would be rounded or are too large, the adapter is computed apart.

    Args:
        most: how many adapters stay attached.
    """

    def __init__(self, model: Any, info: ModelInfo, *, most: int = MOST_ATTACHED) -> None:
        self._model = model
        self._info = info
        self._most = most
        self._lora: Any = None
        self._layers: list[Any] = []
        # Names in the model, by the digest of the adapter; the last used comes last.
        self._names: OrderedDict[str, str] = OrderedDict()
        # Of each adapter the weights it changes, as they are and with it added; the last used comes last.
        self._sums: OrderedDict[str, list[tuple[Any, torch.Tensor, torch.Tensor]]] = OrderedDict()

    @property
    def attached(self) -> tuple[str, ...]:
        """Digests of the adapters on the model, the one used last at the end."""
        return tuple(self._names)

    @contextlib.contextmanager
    def using(self, adapter: AdapterFolder) -> Iterator[None]:
        """Let the model answer with `adapter` inside; outside it is the base, bit for bit.

        Raises: as `attach`.
        """
        self.attach(adapter)
        self._names.move_to_end(adapter.digest)
        with self._on(self._names[adapter.digest]):
            yield

    def attach(self, adapter: AdapterFolder) -> None:
        """Load an adapter, once, and make sure that it does something.

        Raises:
            IntegrityError: a byte of it has changed, or its weights are not those of the modules it names.
            ModelError: it was trained on another base, or it changes nothing.
            MissingExtraError: peft is not installed.
        """
        if adapter.digest in self._names:
            return
        check_base(adapter, self._info)
        files = adapter.files()
        peft = require("peft", extra="adapters")
        import safetensors.torch

        settings = json.loads(files[CONFIG])
        check_plain(settings, str(adapter))
        weights = safetensors.torch.load(files[WEIGHTS])
        while len(self._names) >= self._most:
            self._delete(self._names.popitem(last=False)[1])
        name = adapter.digest.removeprefix("sha256:")
        try:
            self._add(peft, name, peft.LoraConfig.from_peft_type(**settings), adapter)
            self._load(name, weights, adapter)
            self._probe(name, adapter)
        except BaseException:
            self._delete(name)
            raise
        self._names[adapter.digest] = name

    def _add(self, peft: Any, name: str, config: Any, adapter: AdapterFolder) -> None:
        import torch

        # New weights are drawn at random before the stored ones take their place: nobody's random numbers change by it.
        with torch.random.fork_rng(devices=[]):
            try:
                if self._lora is None:
                    self._lora = peft.LoraModel(self._model, config, name)
                else:
                    self._lora.peft_config[name] = config
                    self._lora.inject_adapter(self._model, name)
            except ValueError as error:
                reason = " ".join(str(error).split())[:200]
                raise ModelError(f"{adapter} does not fit {self._info.name}: {reason}", hint=_AGAIN) from None
        self._layers = [module for module in self._model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
        self._activate([])
        # peft's new layers begin in training mode, dropout and all.
        self._model.eval()

    def _load(self, name: str, weights: dict[str, torch.Tensor], adapter: AdapterFolder) -> None:
        import torch

        layers = self._adapted(name)
        if len(layers) != adapter.manifest.modules:
            raise _misfit(adapter, f"it adapts {len(layers)} modules, and its manifest says {adapter.manifest.modules}")
        dtype = getattr(torch, self._info.dtype)
        # By hand, since peft's own function asks the model for its whole state, and for that bitsandbytes repacks weights
        # of 4 bits, by which a base on a CPU loses digits.
        for path, layer in layers.items():
            device = layer.get_base_layer().weight.device
            for part, parameter in layer.named_parameters():
                if f".{name}." not in f"{part}.":
                    continue
                stored = weights.pop(f"base_model.model.{path}.{part.replace(f'.{name}', '')}", None)
                if stored is None or stored.shape != parameter.shape:
                    found = "is missing" if stored is None else f"has the shape {tuple(stored.shape)}"
                    raise _misfit(adapter, f"{path}: {part.partition('.')[0]} {found}")
                parameter.data = stored.to(device=device, dtype=dtype)
        if weights:
            raise _misfit(adapter, f"{next(iter(weights))} belongs nowhere")

    def _probe(self, name: str, adapter: AdapterFolder) -> None:
        """Ask base and adapter the same thing: an adapter that has no effect is a mistake that nothing else would show."""
        import torch

        size = int(self._model.get_input_embeddings().weight.shape[0])
        ids = torch.linspace(1, size - 1, min(PROBE, size - 1)).long()[None].to(self._model.device)
        with torch.inference_mode():
            # Twice, for there are machines on which one sum does not always give the same number.
            base, again = (self._model(input_ids=ids, use_cache=False).logits for _ in range(2))
            with self._on(name):
                adapted = self._model(input_ids=ids, use_cache=False).logits
        if not torch.isfinite(adapted).all():
            raise ModelError(f"{adapter}: with it the model computes no numbers", hint="Train it again.")
        if (adapted - base).abs().max() <= (again - base).abs().max():
            raise ModelError(
                f"{adapter} changes nothing: {self._info.name} answers the same with it and without",
                hint="Train it for more steps, or leave it out.",
            )

    @contextlib.contextmanager
    def _on(self, name: str) -> Iterator[None]:
        sums = self._summed(name)
        try:
            if sums is None:
                self._activate([name])
            else:
                for weight, _, added in sums:
                    weight.data = added
            yield
        finally:
            if sums is None:
                self._activate([])
            else:
                for weight, plain, _ in sums:
                    weight.data = plain

    def _summed(self, name: str) -> list[tuple[Any, torch.Tensor, torch.Tensor]] | None:
        """The weights that an adapter changes, as they are and with it added; None where it is computed apart."""
        import torch

        if name in self._sums:
            self._sums.move_to_end(name)
            return self._sums[name]
        layers = list(self._adapted(name).values())
        weights = [layer.get_base_layer().weight for layer in layers]
        size = sum(weight.nbytes for weight in weights)
        # Two modules may share a weight, which then has two sums.
        shared = len({weight.data_ptr() for weight in weights}) < len(weights)
        if (
            shared
            or size > SUM_BYTES
            or any(type(w) is not torch.nn.Parameter or w.dtype != torch.float32 for w in weights)
        ):
            return None
        while self._sums and size + sum(_bytes(kept) for kept in self._sums.values()) > SUMS_BYTES:
            self._sums.popitem(last=False)
        with torch.no_grad():
            self._sums[name] = [
                (weight, weight.data, weight.data + layer.get_delta_weight(name))
                for layer, weight in zip(layers, weights, strict=True)
            ]
        return self._sums[name]

    def _activate(self, names: list[str]) -> None:
        # Layer by layer, since peft's own way goes through every module of the model, which takes a token's time.
        for layer in self._layers:
            layer.set_adapter(names, inference_mode=True)

    def _delete(self, name: str) -> None:
        self._sums.pop(name, None)
        if self._lora is not None and name in self._lora.peft_config:
            self._lora.delete_adapter(name)

    def _adapted(self, name: str) -> dict[str, Any]:
        """The modules that have weights of an adapter, by their place in the model."""
        ours = {id(layer) for layer in self._layers if name in layer.lora_A or name in layer.lora_embedding_A}
        return {path: module for path, module in self._model.named_modules() if id(module) in ours}


def _bytes(sums: list[tuple[Any, torch.Tensor, torch.Tensor]]) -> int:
    return sum(added.nbytes for _, _, added in sums)


def check_base(adapter: AdapterFolder, model: ModelInfo | ModelFolder) -> None:
    """Refuse an adapter of another model.

    Raises:
        ModelError: names both.
    """
    manifest = adapter.manifest
    if manifest.base_digest != model.digest:
        raise ModelError(
            f"{adapter} was trained on {manifest.base} ({short(manifest.base_digest)}), "
            f"and this is {model.name} ({short(model.digest)})",
            hint="Use the model that it was trained on, or train it on this one.",
        )


def _misfit(adapter: AdapterFolder, what: str) -> IntegrityError:
    return IntegrityError(f"{adapter.path / WEIGHTS} does not fit {CONFIG}: {what}", hint=_AGAIN)
