"""What the documentation does with a bundle where no test can go (a container, a cluster, systemd), held against a bundle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

KEY = "WORKBENCH_API_KEY"


def check_bundle(folder: Path, container: str, cluster: str, service: str) -> None:
    """Fail where one of the three blocks names what the bundle in `folder` does not have, or calls otherwise."""
    _container(folder, container)
    _cluster(folder, cluster)
    _service(folder, service)


def _container(folder: Path, text: str) -> None:
    lines = (folder / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            assert all((folder / name).exists() for name in line.split()[1:-1]), line
    built, run = re.findall(r"\S+/(\w+:\d+)(?= |$)", text, re.MULTILINE)
    assert lines[0].endswith(f"docker build -t {built} .")
    assert run == built
    [(_, inside)] = re.findall(r"-p (\d+):(\d+)", text)
    assert f"EXPOSE {inside}" in lines
    assert any(line.startswith("CMD ") and f'"{inside}"' in line for line in lines)
    assert f"-e {KEY}=" in text


def _cluster(folder: Path, text: str) -> None:
    [(secret, key)] = re.findall(r"create secret generic (\S+) --from-literal=(\w+)=", text)
    [applied] = re.findall(r"apply -k (\S+)", text)
    [deployment] = re.findall(r"deployment/(\S+)", text)
    base = folder / applied
    resources = [_yaml(base / name) for name in _yaml(base / "kustomization.yaml")["resources"]]
    [found] = [each for each in resources if each["kind"] == "Deployment"]
    assert found["metadata"]["name"] == deployment
    [asked] = found["spec"]["template"]["spec"]["containers"][0]["env"]
    assert asked == {"name": KEY, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _service(folder: Path, text: str) -> None:
    [(bundle, there)] = re.findall(r"cp -r (\S+) (\S+)", text)
    assert (folder.parent / Path(bundle).name) == folder
    [unit] = re.findall(r"cp (systemd/\S+) /etc/systemd/system/", text)
    [environment] = re.findall(r"/dev/stdin (\S+)", text)
    [enabled] = re.findall(r"enable --now (\S+)", text)
    assert Path(unit).name == f"{enabled}.service"
    told = (folder / unit).read_text()
    assert f"WorkingDirectory={there}\n" in told
    assert f"EnvironmentFile={environment}\n" in told
    assert f"ExecStart={there}/.venv/bin/workbench serve ." in told
    assert (folder / "requirements.lock").is_file()
    if shutil.which("systemd-analyze"):
        _verify(folder, unit, there)


def _verify(folder: Path, unit: str, there: str) -> None:
    """Let systemd read the unit, as if the bundle lay where it says and its program were installed."""
    program = folder / ".venv" / "bin" / "workbench"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = folder / Path(unit).name
    copy.write_text((folder / unit).read_text().replace(there, str(folder)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    # Other units of this machine are none of the documentation's.
    faults = [line for line in (done.stdout + done.stderr).splitlines() if copy.name in line]
    assert not faults, faults


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
