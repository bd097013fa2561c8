"""Training by several processes at once, as accelerate's launcher starts them: which one this is, and waiting for the others."""

from __future__ import annotations

import os
from collections.abc import Mapping

from workbench.errors import require


def count(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes train together; 1 where none was launched."""
    return int(environment.get("WORLD_SIZE", "1"))


def is_main(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that writes what all share."""
    return int(environment.get("RANK", "0")) == 0


def is_sharded(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether each process keeps only a part of the weights (FSDP)."""
    return environment.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def join(cpu: bool) -> None:
    """Meet the other processes, so that `wait` works from here on; on GPUs each takes its own."""
    if count() > 1:
        require("accelerate", extra="finetune").PartialState(cpu=cpu)


def wait() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        import torch

        torch.distributed.barrier()


def leave() -> None:
    """Part from the other processes."""
    if count() > 1:
        import torch

        torch.distributed.destroy_process_group()
