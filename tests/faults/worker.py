"""A process that runs an experiment, to be killed: python -m tests.faults.worker WORKSPACE [NAME]"""

from __future__ import annotations

import sys

from tests.instant import InstantEngine
from tests.workspaces import make_experiment
from workbench import api
from workbench.models.engines import register_engine


def main(folder: str, name: str = "quiet-or-loud") -> None:
    register_engine("instant", lambda name, quantization: InstantEngine(delay=0.01))
    experiment = make_experiment(api.open(folder), name=name)
    print("started", flush=True)
    run = experiment.run()
    print(run.id, run.complete, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
