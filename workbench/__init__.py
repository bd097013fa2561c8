"""LLMOps workbench: compare prompts, decide on evidence, promote what won.

The public names, and nothing else, are importable from here; heavy modules load when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.api import Workspace, open
    from workbench.data.dataset import Dataset
    from workbench.errors import GateRefused, IntegrityError, WorkbenchError
    from workbench.experiments import scorers
    from workbench.experiments.experiment import Experiment
    from workbench.experiments.run import Run
    from workbench.experiments.starting_point import starting_point
    from workbench.models.engine import Generation, Message
    from workbench.pipeline import steps
    from workbench.pipeline.pipeline import Answer, Pipeline
    from workbench.pipeline.prompt import Example, Prompt

__version__ = "0.1.0"

_HOMES = {
    "Answer": "workbench.pipeline.pipeline",
    "Dataset": "workbench.data.dataset",
    "Example": "workbench.pipeline.prompt",
    "Experiment": "workbench.experiments.experiment",
    "GateRefused": "workbench.errors",
    "Generation": "workbench.models.engine",
    "IntegrityError": "workbench.errors",
    "Message": "workbench.models.engine",
    "Pipeline": "workbench.pipeline.pipeline",
    "Prompt": "workbench.pipeline.prompt",
    "Run": "workbench.experiments.run",
    "WorkbenchError": "workbench.errors",
    "Workspace": "workbench.api",
    "open": "workbench.api",
    "starting_point": "workbench.experiments.starting_point",
}
_MODULES = {"scorers": "workbench.experiments.scorers", "steps": "workbench.pipeline.steps"}

__all__ = [
    "Answer",
    "Dataset",
    "Example",
    "Experiment",
    "GateRefused",
    "Generation",
    "IntegrityError",
    "Message",
    "Pipeline",
    "Prompt",
    "Run",
    "WorkbenchError",
    "Workspace",
    "open",
    "scorers",
    "starting_point",
    "steps",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
