"""Tensors without data, and a count of the memory that work on them would take."""

from __future__ import annotations

import weakref
from typing import Any


def without_data(model: Any, device: str) -> None:
    """Put fake tensors on a device in the place of those on meta, so that the kernels of that device are chosen."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Tokens and masks are real, so that what depends on them is decided as in training.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, Any] = {}
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    with fake:
                        blank = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    trained = kept is module._parameters
                    made[id(tensor)] = torch.nn.Parameter(blank, tensor.requires_grad) if trained else blank
                kept[name] = made[id(tensor)]


def counter() -> Any:
    """A mode of torch that counts the blocks alive and remembers the most there were, in bytes."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.peak = 0
            self._now = 0
            self._alive: dict[int, int] = {}
            self._known: set[int] = set()

        def know(self, tensor: Any) -> None:
            """Leave a tensor that was there before out of the count."""
            self._known.add(tensor.untyped_storage()._cdata)

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for value in tree_iter(result):
                if isinstance(value, Tensor):
                    self._count(value.untyped_storage())
            self.peak = max(self.peak, self._now)
            return result

        def _count(self, storage: Any) -> None:
            key = storage._cdata
            if key in self._alive or key in self._known:
                return
            self._alive[key] = storage.nbytes()
            self._now += self._alive[key]
            weakref.finalize(storage, self._freed, key)

        def _freed(self, key: int) -> None:
            self._now -= self._alive.pop(key, 0)

    return Counter()
