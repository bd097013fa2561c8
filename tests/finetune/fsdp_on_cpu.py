"""A training process under FSDP without a GPU: accelerate deals weights out over GPUs alone, and is talked into it here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from workbench.errors import require
from workbench.finetune.trainer import TrainerParts
from workbench.finetune.worker import main

accelerate = require("accelerate", extra="finetune")
made = accelerate.state.AcceleratorState.__init__
loss = TrainerParts.compute_loss


def sharded(self: Any, *args: Any, **kwargs: Any) -> None:
    made(self, *args, **kwargs)
    if self.distributed_type == accelerate.DistributedType.MULTI_CPU:
        self.distributed_type = accelerate.DistributedType.FSDP
        self.fsdp_plugin = kwargs.get("fsdp_plugin") or accelerate.FullyShardedDataParallelPlugin()


def checked(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    assert any(type(weights).__name__ == "DTensor" for weights in model.parameters())
    return loss(self, model, *args, **kwargs)


if __name__ == "__main__":
    accelerate.state.AcceleratorState.__init__ = sharded
    TrainerParts.compute_loss = checked  # type: ignore[method-assign]
    sys.exit(main(Path(sys.argv[1])))
