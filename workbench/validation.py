"""What a file or a setting that does not fit its model is told: the first field at fault, in one line. And what no file
may hold: an API key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from workbench.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)

# The prefixes are those of well-known providers.
_PROVIDERS = "sk|rk|gsk|hf|xai|pplx|nvapi|r8|fw|tgp"
# What a random key looks like, whoever gave it.
_RANDOM = "(?=[^\\s]*[a-z])(?=[^\\s]*[A-Z])(?=[^\\s]*[0-9])"
# Keys that are valid names of variables all the same.
_KEY_AS_NAME = re.compile(rf"({_PROVIDERS})_.+|AIza.+|{_RANDOM}.{{24,}}")
# Keys wherever they stand in a text: with a long run without separators, which words joined by them do not have.
_KEY_IN_TEXT = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_PROVIDERS})[-_](?=[A-Za-z0-9_-]*[A-Za-z0-9]{{12}})(?=[A-Za-z_-]*(?:[0-9]|[a-z][A-Za-z]*[A-Z]))"
    r"[A-Za-z0-9_-]{16,}|(?<![A-Za-z0-9])(?:AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}|gh[opsu]_[A-Za-z0-9]{30,}"
    r"|github_pat_[A-Za-z0-9_]{30,}|xox[abp]-[A-Za-z0-9-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Where a line speaks of a secret, any text in quotes that looks random is taken for one.
_SECRET = re.compile(r"(?i)api[-_]?key|secret|passw|bearer|authori[sz]ation|token(?![si])|_key\b")
_QUOTED = re.compile(rf"[\"'](?:Bearer )?({_RANDOM}[A-Za-z0-9_+/=-]{{24,}})[\"']")


def is_key(name: str) -> bool:
    """Whether what should be the name of a variable looks like an API key."""
    return _KEY_AS_NAME.fullmatch(name) is not None


def line_with_key(text: str) -> int | None:
    """The first line, from 1, that holds what looks like an API key; None where no line does."""
    for number, line in enumerate(text.splitlines(), 1):
        if _KEY_IN_TEXT.search(line) or (_SECRET.search(line) and _QUOTED.search(line)):
            return number
    return None


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
