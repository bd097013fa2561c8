"""What runs on this machine, and what to install for what does not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from workbench.errors import IntegrityError, ModelError, WorkspaceError
from workbench.files import short
from workbench.models.store import STARTER, find_model, verify_model
from workbench.workspace import SERVER_NAME, Layout, cache_folder

Status = Literal["ok", "warn", "missing"]

DISTRIBUTION = "llmops-workbench"
# What each extra is for, in the order shown; those of contributors come last.
EXTRAS = {
    "local": "models in this process",
    "remote": "models on OpenAI-compatible servers",
    "rag": "documents, chunks and indexes",
    "minilm": "embeddings without a model hub",
    "charts": "charts",
    "marimo": "marimo notebooks and apps",
    "jupyter": "Jupyter notebooks",
    "datasets": "Hugging Face data sets, pandas frames",
    "test": "checking notebooks, running the tests",
    "dev": "work on the workbench itself",
}
GIB = 1 << 30
MIN_DISK = 2 * GIB
MIN_MEMORY = 4 * GIB


@dataclass(frozen=True)
class Check:
    """One thing looked at. `hint` says what to do where `status` is not `ok`; `essential` ones decide the exit code."""

    name: str
    status: Status
    detail: str
    hint: str = ""
    essential: bool = False


def checks(layout: Layout | None = None) -> list[Check]:
    """Look at everything; the order is the one to show. `layout` is the workspace, the current one where not given."""
    nowhere: list[Check] = []
    if layout is None:
        try:
            layout = Layout.find()
        except WorkspaceError as error:
            nowhere = [Check("workspace", "warn", error.message, error.hint or "")]
    return [
        check_python(sys.version_info[:3]),
        check_machine(),
        check_disk("cache", cache_folder()),
        check_torch(),
        *check_extras(),
        check_model(layout.settings.model if layout else STARTER),
        *([check_workspace(layout), *check_stores(layout), *check_servers(layout)] if layout else nowhere),
        check_program("git", ("git",), "runs record the commit they were made from"),
        check_program("chromium", ("chromium", "chromium-browser", "google-chrome"), "only the browser tests need it"),
    ]


def healthy(results: Sequence[Check]) -> bool:
    """Whether nothing essential is missing."""
    return not any(check.essential and check.status == "missing" for check in results)


def check_python(version: tuple[int, int, int]) -> Check:
    detail = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version >= (3, 11):
        return Check("python", "ok", detail, essential=True)
    return Check("python", "missing", detail, "Python 3.11 or newer is needed.", essential=True)


def check_machine() -> Check:
    """Cores that this process may use, and memory, within the limits of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, available = memory()
    detail = f"{cores} {'core' if cores == 1 else 'cores'}, {total / GIB:.1f} GiB memory"
    if available is not None:
        detail += f" ({available / GIB:.1f} free)"
    if total < MIN_MEMORY:
        return Check("machine", "warn", detail, "The starter model fits in 2 GiB; larger ones do not.")
    return Check("machine", "ok", detail)


def memory(root: Path = Path("/")) -> tuple[int, int | None]:
    """Total and available memory in bytes; available is None where the system does not say. `root` is for tests."""
    total: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = None
    with contextlib.suppress(OSError):
        lines = (root / "proc/meminfo").read_text("ascii")
        values = {key: int(kib) << 10 for key, kib in re.findall(r"^(\w+):\s+(\d+) kB", lines, re.MULTILINE)}
        total, available = values.get("MemTotal", total), values.get("MemAvailable")
    for limit in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int((root / limit).read_text("ascii")))
    return total, None if available is None else min(available, total)


def check_disk(name: str, folder: Path) -> Check:
    """Free space, and whether a file can be written, at `folder` or where it would be made."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    detail = f"{folder}: {free / GIB:.1f} GiB free"
    if not _writable(place):
        return Check(name, "missing", f"{folder} cannot be written", f"Mend the rights of {place}.", essential=True)
    if free < MIN_DISK:
        return Check(name, "warn", detail, "A model may not fit. WORKBENCH_CACHE names another folder for them.")
    return Check(name, "ok", detail, essential=True)


def check_torch() -> Check:
    """The version of torch, the device and the type of numbers that models run with."""
    try:
        import torch
    except ImportError as error:
        return Check("torch", "missing", str(error), _install("local"), essential=True)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device = f"cuda ({properties.name}, {properties.total_memory / GIB:.0f} GiB), bf16"
    elif torch.backends.mps.is_available():
        device = "mps, fp16"
    else:
        device = f"cpu ({torch.get_num_threads()} threads), fp32"
    return Check("torch", "ok", f"{torch.__version__} on {device}", essential=True)


def check_extras(requirements: Sequence[str] | None = None) -> list[Check]:
    """One check an extra: are its packages here, at versions in range? `requirements` are lines of `Requires-Dist`."""
    if requirements is None:
        try:
            requirements = importlib.metadata.requires(DISTRIBUTION) or []
        except importlib.metadata.PackageNotFoundError:
            return [Check("packages", "warn", f"{DISTRIBUTION} is not installed here", "Run: make setup")]
    parsed = [Requirement(line) for line in requirements]
    results = []
    for extra, purpose in EXTRAS.items():
        wrong = missing_packages(parsed, extra)
        if wrong:
            detail = f"{purpose}: lacks {', '.join(wrong)}"
            results.append(Check(f"[{extra}]", "missing", detail, _install(extra), essential=extra == "local"))
        else:
            results.append(Check(f"[{extra}]", "ok", purpose, essential=extra == "local"))
    return results


def missing_packages(requirements: Sequence[Requirement], extra: str) -> list[str]:
    """What an extra asks for that is absent or out of range, each with the installed version where there is one."""
    found: list[str] = []
    for requirement in requirements:
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            found += [line for own in sorted(requirement.extras) for line in missing_packages(requirements, own)]
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier} (here: {version})")
    return found


def check_model(name: str) -> Check:
    """The workspace's model, each file hashed again; one on a server is not asked."""
    if (prefix := name.partition(":")[0]) != name and SERVER_NAME.fullmatch(prefix):
        return Check("model", "ok", f"{name}, on a server", essential=True)
    try:
        model = find_model(name)
        verify_model(model)
    except (ModelError, IntegrityError) as error:
        return Check("model", "missing", error.message, error.hint or "", essential=True)
    return Check("model", "ok", f"{model.name} {short(model.digest)}, verified", essential=True)


def check_servers(layout: Layout) -> list[Check]:
    """One check a server of `workbench.toml`: is its key there? Nothing is sent."""
    results = []
    for name, server in layout.settings.servers.items():
        detail = server.base_url
        if server.key_env and not os.environ.get(server.key_env):
            hint = f"Its key is missing. Run: export {server.key_env}=…"
            results.append(Check(f"server {name}", "warn", detail, hint))
        else:
            results.append(Check(f"server {name}", "ok", detail + (" (key set)" if server.key_env else "")))
    return results


def check_workspace(layout: Layout) -> Check:
    return Check("workspace", "ok", f"{layout.settings.name} in {layout.root}")


def check_stores(layout: Layout) -> list[Check]:
    """Whether the three stores of a workspace can be written."""
    results = [check_disk("events", layout.runs), check_disk("blobs", layout.blobs)]
    if layout.state_url.startswith("sqlite:///"):
        results.append(check_disk("state", Path(layout.state_url.removeprefix("sqlite:///"))))
    else:
        results.append(Check("state", "ok", layout.state_url.partition(":")[0] + " server (not asked)"))
    return results


def check_program(name: str, commands: Sequence[str], purpose: str) -> Check:
    for command in commands:
        if path := shutil.which(command):
            return Check(name, "ok", path)
    return Check(name, "warn", f"not found; {purpose}", f"On Debian and Ubuntu: apt install {name}")


def _install(extra: str) -> str:
    return f"Run: pip install '{DISTRIBUTION}[{extra}]'"


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    while not path.is_dir():
        path = path.parent
    return path


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
