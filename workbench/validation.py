"""What a file or a setting that does not fit its model is told: the first field at fault, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from workbench.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


def first_fault(error: ValidationError, whole: str = "") -> str:
    """`FIELD.OF.FIELD: what is wrong`; `whole` stands for the field, if it is given, where all of it is at fault."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or whole
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def read_yaml(path: Path, model: type[Model], what: str = "file") -> Model:
    """What a YAML file says.

    Args:
        what: what kind of file it is, for the message where there is none.

    Raises:
        UsageError: no such file, not YAML, or a field that does not fit; names the file and the field.
    """
    import yaml

    try:
        return model.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no {what} {path}", hint="Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}", hint="Mend the file.") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error, 'the file')}", hint="Correct that field.") from None
