"""Puts the repository's own workspace into the wheel, where `workbench init` finds it.

An editable install gets no copy: there `workbench init` reads the repository itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = (
    "adapters",
    "datasets/support-tickets",
    "datasets/python-reference-qa",
    "experiments",
    "launch",
    "notebooks",
    "policies",
    "prompts",
)


class TemplateHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for folder in FOLDERS:
            for path in sorted((root / folder).rglob("*")):
                name = path.relative_to(root)
                if path.is_file() and not any(part.startswith((".", "__")) for part in name.parts):
                    build_data["force_include"][str(path)] = f"workbench/init/template/{name.as_posix()}"
