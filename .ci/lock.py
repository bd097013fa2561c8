"""Write requirements.lock: every extra of pyproject.toml, resolved together by pip-compile. Run by `make lock`.

The project's references to itself are expanded first, and local version labels are dropped (`2.13.0+cpu` is `2.13.0`),
so that the lock holds nothing but names and versions and installs from any index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The version whose CPU build the tests run on.
PINS = ("torch==2.13.0",)
# A virtual environment brings its own.
LEFT_OUT = ("pip",)
HEADER = """\
# Every package that the workbench, its tests and its notebooks use, at the version they were tested with (Python 3.11).
# Made from pyproject.toml by `make lock`; do not edit. `make setup` installs it:
#
#     pip install -r requirements.lock
#
# On Linux the default index has a CUDA build of torch. For the CPU build, set
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu before `make setup`.
"""


def expand(project: dict[str, object], extra: str) -> set[str]:
    """The requirements of an extra, with `llmops-workbench[…]` replaced by what those extras hold."""
    extras: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    found: set[str] = set()
    for requirement in extras[extra]:
        own = re.fullmatch(r"llmops-workbench\[(.+)\]", requirement)
        if own:
            for name in own[1].split(","):
                found |= expand(project, name.strip())
        else:
            found.add(requirement)
    return found


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = sorted({*project["dependencies"], *expand(project, "all")})
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "pyproject.in", Path(folder) / "lock"
        source.write_text("\n".join(requirements) + "\n", "utf-8")
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--allow-unsafe"]
        command += ["--no-header", "--no-emit-options", "--annotation-style=line", "--output-file", str(output)]
        for pin in PINS:
            command += ["--upgrade-package", pin]
        code = subprocess.run([*command, str(source)], check=False).returncode
        if code:
            return code
        lines = [line for line in output.read_text("utf-8").splitlines() if re.match(r"[A-Za-z0-9]", line)]
    kept: list[str] = []
    for line in lines:
        requirement, _, origin = line.partition("#")
        requirement = re.sub(r"\+[A-Za-z0-9.]+$", "", requirement.strip())
        if requirement.partition("==")[0] in LEFT_OUT:
            continue
        origin = re.sub(r"-r [^,\s]+", "pyproject.toml", origin.strip())
        kept.append(f"{requirement:<36}  # {origin}")
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(sorted(kept)) + "\n", "utf-8")
    print(f"requirements.lock: {len(kept)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
