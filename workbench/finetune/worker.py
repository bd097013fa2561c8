"""One of several processes that train together: `python -m workbench.finetune.worker FOLDER`, started by accelerate."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workbench import errors
from workbench.errors import WorkbenchError, WorkbenchWarning
from workbench.files import write_atomic
from workbench.finetune import processes
from workbench.finetune.recipe import FinetuneRecipe
from workbench.workspace import Layout

JOB, OUTCOME = "job.json", "outcome.json"


class Job(BaseModel):
    """`job.json`: what the processes are to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    root: Path
    recipe: FinetuneRecipe
    resume: bool
    cpu: bool


class Fault(BaseModel):
    """An error of the workbench, to be raised again elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    message: str
    hint: str | None

    def rise(self) -> WorkbenchError:
        """The error again."""
        found: WorkbenchError = getattr(errors, self.kind)(self.message, hint=self.hint)
        return found


class Outcome(BaseModel):
    """`outcome.json`: what there is to say beside the training's own record."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    warnings: tuple[str, ...] = ()
    error: Fault | None = None

    @staticmethod
    def read(path: Path) -> Outcome:
        """What was written, or nothing."""
        return Outcome.model_validate_json(path.read_bytes()) if path.exists() else Outcome()


def main(folder: Path) -> int:
    """Do the job; returns the exit status."""
    from workbench.finetune.train import train

    job = Job.model_validate_json((folder / JOB).read_bytes())
    fault: Fault | None = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", WorkbenchWarning)
        try:
            train(
                Layout.find(job.root),
                job.recipe,
                resume=job.resume,
                show_progress=False,
                device="cpu" if job.cpu else None,
            )
        except WorkbenchError as error:
            fault = Fault(kind=type(error).__name__, message=error.message, hint=error.hint)
            print(f"error: {error}", file=sys.stderr)
    said = tuple(str(entry.message) for entry in caught if issubclass(entry.category, WorkbenchWarning))
    # The others are ended when one fails, so whoever fails first says why.
    if processes.is_main() or (fault is not None and not (folder / OUTCOME).exists()):
        write_atomic(folder / OUTCOME, Outcome(warnings=said, error=fault).model_dump_json())
    if fault is None:
        processes.leave()
        return 0
    # Without waiting for others that may hang in a call to this one.
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
