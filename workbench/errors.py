"""Every error the workbench raises, as one tree.

WorkbenchError                 exit code 1
├── UsageError                 the call or command is wrong; exit code 2
├── WorkspaceError             no workspace here, or its settings are malformed
├── NotFoundError              no such data set, prompt, run, artifact, version or alias
├── DataError                  a data file or row is malformed; names the file and the line
├── PromptError                a template that does not parse; a missing or unknown variable
├── PipelineError              a pipeline that cannot be built
│   └── PostprocessError       a model's output that a post-processing step rejects (a wrong answer, kept as a row)
├── ModelError                 a model that cannot be found, loaded or run
│   └── OutOfMemoryError       no batch is small enough
├── RunError                   a run that cannot start, go on or be read
│   └── RunLockedError         another process is writing this run
├── ComparisonError            rows or scores that cannot be compared
├── IntegrityError             stored bytes do not match their digest
├── EventsError                rows that cannot be written or read
├── AccessDenied               the person has not the role that it takes
├── GateRefused                a gate said no, with its reasons; exit code 100
└── MissingExtraError          an optional dependency is not installed; says which extra brings it
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import ClassVar


class WorkbenchError(Exception):
    """Base of all errors raised on purpose. `message` says what is wrong, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class WorkbenchWarning(UserWarning):
    """Something went wrong that does not stop the work, such as a cache that cannot be written."""


class UsageError(WorkbenchError):
    exit_code = 2


class WorkspaceError(WorkbenchError):
    pass


class NotFoundError(WorkbenchError):
    pass


class DataError(WorkbenchError):
    """A malformed data file. `path` and `line` (1-based) locate the fault where they are known."""

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, hint: str | None = None
    ) -> None:
        where = path if path and line is None else f"{path}:{line}" if path else None
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.path = path
        self.line = line


class PromptError(WorkbenchError):
    pass


class PipelineError(WorkbenchError):
    pass


class PostprocessError(PipelineError):
    """A step rejected a model's output. `step` is the name of the step."""

    def __init__(self, message: str, *, step: str) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step


class ModelError(WorkbenchError):
    pass


class OutOfMemoryError(ModelError):
    pass


class RunError(WorkbenchError):
    pass


class RunLockedError(RunError):
    pass


class ComparisonError(WorkbenchError):
    pass


class IntegrityError(WorkbenchError):
    pass


class EventsError(WorkbenchError):
    pass


class AccessDenied(WorkbenchError):
    pass


class GateRefused(WorkbenchError):
    """A policy refused. `reasons` holds one sentence for each check that failed."""

    exit_code = 100

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("the gate refused: " + "; ".join(reason.rstrip(".") for reason in reasons))
        self.reasons = reasons


class MissingExtraError(WorkbenchError):
    pass


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: it is not installed; the hint names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.split('.')[0]} is not installed", hint=f"Run: pip install 'llmops-workbench[{extra}]'"
        ) from None
