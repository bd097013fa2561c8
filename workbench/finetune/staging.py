"""A place beside the target where something large is made, so that the target is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import RunError, UsageError
from workbench.files import fsync_directory

# How writers that are no Python code put "no space left on device".
_FULL = ("No space left on device", "os error 28", "Errno 28")


@contextlib.contextmanager
def staging(target: Path, *, needed: int) -> Iterator[Path]:
    """A folder on the disk of `target`, gone afterwards, whatever happens.

    Args:
        needed: bytes that are going to be written.

    Raises:
        UsageError: `target` exists already, and is no empty folder.
        RunError: the disk has no room, now or when something is written inside.
    """
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise RunError(
            f"the disk of {target.parent} has {free / 2**20:,.0f} MB free, and {needed / 2**20:,.0f} MB are needed",
            hint="Make room, or name a folder on another disk.",
        )
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    except Exception as error:
        if not says_full(error):
            raise
        raise RunError(
            f"the disk of {target.parent} is full; nothing was kept", hint="Make room, or name another folder."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_free(target: Path) -> None:
    """Refuse to write over something.

    Raises:
        UsageError: `target` exists already, and is no empty folder.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise UsageError(f"{target} exists already", hint="Name another place, or remove it first.")


def put(made: Path, target: Path) -> None:
    """Rename what was made to `target`, which an empty folder may hold.

    Raises:
        UsageError: somebody else was first.
    """
    check_free(target)
    if target.is_dir() and not made.is_dir():
        target.rmdir()
    try:
        os.rename(made, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        check_free(target)
        raise
    fsync_directory(target.parent)


def says_full(error: BaseException | str) -> bool:
    """Whether an error, or what a program printed, says that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(words in str(error) for words in _FULL)
