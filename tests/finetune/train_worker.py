"""Trains in a process of its own that can be killed: `python -m tests.finetune.train_worker FOLDER SETTINGS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.finetune.small import make_recipe
from workbench.finetune.train import train
from workbench.workspace import Layout


def main() -> None:
    layout = Layout.find(Path(sys.argv[1]))
    print("started", flush=True)
    result = train(layout, make_recipe(layout, **json.loads(sys.argv[2])), show_progress=False)
    print(result.adapter.digest, flush=True)


if __name__ == "__main__":
    main()
