"""State databases to test on: SQLite, and a PostgreSQL server of this test process where Debian's package is installed."""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.ending import at_end
from tests.ports import free_port

_numbers = itertools.count()


def new_url(backend: str, folder: Path) -> str:
    """The URL of an empty database; skips where the server cannot be had."""
    if backend == "sqlite":
        return f"sqlite:///{folder / 'sub' / 'state.sqlite'}"
    pytest.importorskip("psycopg")
    port = _server()
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "workbench", name)
    return f"postgresql+psycopg://workbench@127.0.0.1:{port}/{name}"


@functools.cache
def _server() -> int:
    """The port of a server that ends with this process."""
    if not _programs():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="workbench-postgres-"))
    port = free_port()
    if os.getuid() == 0:
        # The server refuses to run as root.
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = folder / "data"
    _run("initdb", "-D", str(data), "-U", "workbench", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
    _run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")

    def stop() -> None:
        _run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)

    at_end(stop)
    return port


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


def _run(program: str, *arguments: str) -> None:
    folder = _programs()
    assert folder is not None
    user = "postgres" if os.getuid() == 0 else None
    subprocess.run(
        [str(folder / program), *arguments],
        check=True,
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
