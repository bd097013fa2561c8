"""Running a page of the documentation: its blocks as they are, and the programs and names that stand in for others.

Ports that pages name by their defaults are free ones here, `registry.example` is Debian's docker-registry on this machine,
and pip, which finds everything installed, installs nothing. Otherwise a command is what it is for who reads the page.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from tests.documentation import Block, blocks, unsaid
from tests.ending import at_end
from tests.ports import free_port
from tests.registry.registries import PASSWORD, USER, registry
from workbench.init.init import init_workspace

ROOT = Path(__file__).parents[1]
# What workbench serve, workbench apps and marimo listen on unless they are told otherwise.
_PORTS = (8000, 8080, 2718)
_REGISTRY = "registry.example"
# Programs that tests do without where they are absent, and what else a name in a block asks for.
_PROGRAMS = {"curl": "curl", "git": "git", "openssl": "openssl", _REGISTRY: "docker-registry"}
_ADDRESS = re.compile(rf"\b(127\.0\.0\.1|localhost):({'|'.join(map(str, _PORTS))})\b")
_RUN = re.compile(r"^run (\w\S*?)[;:]", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Says where the block ended, and ends what it left running.
_SETUP = """set -euo pipefail; trap 'pwd > "$WHERE"; kill $(jobs -p) 2>/dev/null || true' EXIT"""
# Seconds; a page that hangs is a failure, not a suite that never ends.
_PATIENCE = 300

_STAND_INS = {
    "workbench": """\
case "$1" in serve) set -- "$@" --port "$PORT_8000" ;; apps) set -- "$@" --port "$PORT_8080" ;; esac
exec {workbench} "$@"
""",
    "marimo": """\
[ "$1" = run ] && shift && set -- run --headless --port "$PORT_2718" "$@"
exec {folder}/marimo "$@"
""",
    "pip": """\
exec {python} -m pip "$@" --dry-run --no-index --no-deps --disable-pip-version-check
""",
    # What `docker login` leaves behind when the password was right.
    "docker": """\
[ "$1" = login ] || exit 127
mkdir -p "$DOCKER_CONFIG"
printf '{{"auths": {{"%s": {{"auth": "{auth}"}}}}}}' "$2" > "$DOCKER_CONFIG/config.json"
""",
}


@dataclass
class Place:
    """Where a page runs.

    Attributes:
        folder: the workspace of its first block.
        names: what stands for what in its commands.
        surroundings: environment variables.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    surroundings: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(page: str, folder: Path) -> Place:
        """For a page; where it asks a registry and one is installed, that is started."""
        place = Place(folder)
        shown = "".join(block.text for block in blocks(page) if block.runs)
        if _REGISTRY in shown and shutil.which(_PROGRAMS[_REGISTRY]):
            place.names[_REGISTRY] = registry(login="docker login" in shown).address
        return place

    @property
    def elsewhere(self) -> Path:
        """The workspace of the other machine."""
        return self.folder.parent / "elsewhere"

    @property
    def registry(self) -> str:
        """The registry of the page; empty where there is none."""
        return self.names.get(_REGISTRY, "")

    def workbench(self, *words: str) -> None:
        """Run a command of the workbench here, as a block does."""
        program = str(_stand_ins() / "workbench")
        subprocess.run([program, *words], cwd=self.folder, env=_surroundings(self, {}), check=True, capture_output=True)


def run_page(page: str, place: Place, monkeypatch: Any) -> list[str]:
    """Run a page, and fail at the first block that does not do what the page says.

    Returns: a line for each block that was left out because a program that it needs is not installed.
    """
    here, printed, left_out = place.folder, "", []
    with contextlib.ExitStack() as until_the_end, contextlib.ExitStack() as still_open:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="workbench-docs-")))
        place.surroundings.setdefault("DOCKER_CONFIG", str(folder / "docker"))
        ports = {port: free_port() for port in _PORTS}
        for block in blocks(page):
            if block.file:
                (here / block.file).parent.mkdir(parents=True, exist_ok=True)
                (here / block.file).write_text(block.text, "utf-8")
                continue
            if not block.runs:
                continue
            if absent := _absent(block.text):
                left_out.append(f"{block.place} needs {', '.join(absent)}")
                continue
            if block.elsewhere and not place.elsewhere.exists():
                init_workspace(place.elsewhere)
            if block.stays_open:
                still_open.close()
                ports = {port: free_port() for port in _PORTS}
            monkeypatch.chdir(place.elsewhere if block.elsewhere else here)
            if block.language == "python":
                said = _python(block)
            else:
                text = _here(block.text, place.names, ports, printed)
                surroundings = _surroundings(place, ports)
                if block.stays_open:
                    said = still_open.enter_context(_open(block, text, surroundings, folder / "said"))
                else:
                    said, ended = _bash(block, text, surroundings, folder / "where")
                    here = here if block.elsewhere else ended
            printed += said
            missing = unsaid(block.prints, said)
            assert missing is None, f"{block.place} does not print {missing!r}, but:\n{said}"
    return left_out


def _absent(text: str) -> list[str]:
    """Programs that a block needs and this machine does not have."""
    needed = [program for word, program in _PROGRAMS.items() if re.search(rf"\b{re.escape(word)}\b", text)]
    return [program for program in needed if not shutil.which(program)]


def _here(text: str, names: Mapping[str, str], ports: Mapping[int, int], printed: str) -> str:
    """The text of a block with this machine's names in it.

    RUN is the run, and a digest that ends in `…` the digest, that the page printed last.
    """
    for name, meant in names.items():
        text = text.replace(name, meant)
    text = _ADDRESS.sub(lambda found: f"{found[1]}:{ports[int(found[2])]}", text)
    if runs := _RUN.findall(printed):
        text = re.sub(r"\bRUN\b", runs[-1], text)
    if digests := _DIGEST.findall(printed):
        text = re.sub(r"sha256:[0-9a-f]*…", digests[-1], text)
    return text


def _surroundings(place: Place, ports: Mapping[int, int]) -> dict[str, str]:
    path = f"{_stand_ins()}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = {**os.environ, "PATH": path, "COLUMNS": "120", "NO_COLOR": "1"}
    found.pop("WORKBENCH_WORKSPACE", None)
    return found | {f"PORT_{port}": str(free) for port, free in ports.items()} | place.surroundings


def _python(block: Block) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.text, block.place, "exec"), {})
    return said.getvalue()


def _bash(block: Block, text: str, surroundings: Mapping[str, str], where: Path) -> tuple[str, Path]:
    done = subprocess.run(
        ["bash", "-c", f"{_SETUP}\n{text}"],
        env={**surroundings, "WHERE": str(where)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
    )
    assert done.returncode == block.code, f"{block.place} ends with {done.returncode}:\n{done.stdout}"
    return done.stdout, Path(where.read_text().strip())


@contextlib.contextmanager
def _open(block: Block, text: str, surroundings: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run a block that stays open until this is left; what it printed until its address answered."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{text}"],
            env=dict(surroundings),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    told = ""
    try:
        for _ in range(10 * _PATIENCE):
            told = log.read_text("utf-8", "replace")
            assert process.poll() is None, f"{block.place} ends with {process.returncode}:\n{told}"
            address = re.search(r"https?://\S+", told)
            if address and _answers(address[0].replace("0.0.0.0", "127.0.0.1")):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"{block.place} answers at no address, but says:\n{told}")
        yield told
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(_PATIENCE)


def _answers(address: str) -> bool:
    """Whether a page opens at an address, or something that is only posted to is there."""
    own = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar()))
    try:
        own.open(address, timeout=30).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 405
    except OSError:
        return False
    return True


@functools.cache
def _stand_ins() -> Path:
    """A folder of programs that come before others of the same name, until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-docs-"))
    at_end(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    python = sys.executable
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    fields = {"python": python, "folder": Path(python).parent, "auth": auth, "workbench": _quick_workbench(folder)}
    for name, text in _STAND_INS.items():
        (folder / name).write_text("#!/bin/sh\n" + text.format(**fields))
        (folder / name).chmod(0o755)
    return folder


def _quick_workbench(folder: Path) -> str:
    """The command that runs one of the workbench; on Linux, in a process that has imported everything already."""
    if sys.platform != "linux":
        return f"{Path(sys.executable).parent}/workbench"
    program, address, log = ROOT / "tests" / "quick_start.py", folder / "socket", folder / "log"
    with log.open("wb") as said:
        # Not the folder of the program, but that of the project, is where it may import from.
        process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(address)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
        )

    def stop() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    at_end(stop)
    while not address.exists():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return f"{sys.executable} -I -S {program} {address}"
