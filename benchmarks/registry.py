"""The registry: promoting, rolling back, resolving an alias, listing versions, and verifying against `sha256sum`.

Promoting is measured with the gate's comparison, which is then timed alone and taken off; each promotion is the first of
a new workspace.

Verifying is what loading does: every byte of the manifest and of all layers is read and hashed. The peer hashes the same
files, which both find in the system's cache.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import harness, results
from benchmarks.harness import Part

RESOLVE_GOAL_MS, LIST_GOAL_S, VERIFY_GOAL, PROMOTE_GOAL_S, ROLLBACK_GOAL_S = 1.0, 0.3, 0.7, 1.0, 1.0
NAME = "large"


def make_versions(folder: Path, count: int) -> None:
    """A workspace with `count` versions of one name, `prod` at the middle one."""
    from workbench.registry import names
    from workbench.state.db import ArtifactVersion, timestamp, writing
    from workbench.workspace import Layout

    (folder / "workbench.toml").write_text("format_version = 1\n")
    layout = Layout.find(folder)
    with writing(layout.state_url) as session:
        # In one transaction, since making them is not what is measured.
        session.add_all(
            ArtifactVersion(name=NAME, version=number, digest=f"sha256:{number:064x}", created_at=timestamp())
            for number in range(1, count + 1)
        )
    names.set_alias(layout, NAME, "prod", count // 2)


def make_artifact(folder: Path, megabytes: int) -> list[Path]:
    """Register an artifact with layers of random bytes under another name; returns the files of its blobs."""
    from workbench.registry import build, names
    from workbench.registry.artifact import REQUIRED
    from workbench.registry.oci import MANIFEST_TYPE, TITLE, OciLayout
    from workbench.workspace import Layout

    layout = Layout.find(folder)
    store = OciLayout(layout.blobs)
    contents = {title: title.encode() for title in REQUIRED}
    contents |= {f"adapter/{place}": os.urandom(megabytes << 18) for place in range(4)}
    layers = [store.put_blob(data, "application/octet-stream", annotations={TITLE: t}) for t, data in contents.items()]
    config = store.put_blob(b"{}", build.CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": build.ARTIFACT_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    names.register(layout, "artifact", store.add_manifest(manifest).digest)
    return [store.blob_path(layer.digest) for layer in layers]


def promoting(folder: Path, rows: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds that a promotion of a run of two variants takes beside the gate, and that a rollback takes.

    Raises:
        BenchmarkError: a rollback left the alias where it was.
    """
    from workbench.experiments.run import Run
    from workbench.registry import names
    from workbench.registry.aliases import roll_back
    from workbench.registry.gate import judge
    from workbench.registry.policy import DecisionPolicy, Policy
    from workbench.registry.promote import promote
    from workbench.workspace import Layout

    policy = Policy(decision=DecisionPolicy(minimum="none"))
    took, back = [], []
    for repeat in range(repeats + 1):
        place = folder / f"promote-{repeat}"
        place.mkdir()
        (place / "workbench.toml").write_text("format_version = 1\n")
        layout = Layout.find(place)
        results.write_run(layout.runs / "drawn", rows)
        run = Run(layout.runs / "drawn")
        run.calls()
        gate = harness.seconds(lambda run=run: judge(run, policy, "other"))  # type: ignore[misc]
        promotion = partial(promote, layout, run, NAME, policy=policy, alias="prod")
        took.append(harness.seconds(lambda p=promotion: p("other")) - gate)  # type: ignore[misc]
        promotion("base")
        back.append(harness.seconds(partial(roll_back, layout, NAME, "prod")))
        if names.resolve(layout, f"{NAME}@prod").version != 1:
            raise harness.BenchmarkError("the alias was not rolled back")
    return took[1:], back[1:]


def resolving(folder: Path, repeats: int) -> list[float]:
    """Milliseconds to resolve an alias, one after another."""
    from workbench.registry import names
    from workbench.workspace import Layout

    layout = Layout.find(folder)
    names.resolve(layout, f"{NAME}@prod")
    return [1000 * harness.seconds(lambda: names.resolve(layout, f"{NAME}@prod")) for _ in range(repeats)]


def listing(folder: Path, repeats: int, count: int) -> list[float]:
    """Seconds to list all versions.

    Raises:
        BenchmarkError: not all are there.
    """
    from workbench.registry import names
    from workbench.workspace import Layout

    layout = Layout.find(folder)
    if len(names.ls(layout, NAME)) != count:
        raise harness.BenchmarkError(f"{count} versions were made, and others are listed")
    return [harness.seconds(lambda: names.ls(layout, NAME)) for _ in range(repeats)]


def verifying(folder: Path, files: Sequence[Path], repeats: int) -> tuple[list[float], list[float]]:
    """Megabytes a second that are verified, and that `sha256sum` hashes of the same files, in turn."""
    from workbench.registry.artifact import Artifact
    from workbench.workspace import Layout

    layout = Layout.find(folder)
    size = sum(path.stat().st_size for path in files) / 2**20
    command = ["sha256sum", *map(str, files)]
    ours, peer = [], []
    for _ in range(repeats + 1):
        ours.append(size / harness.seconds(lambda: Artifact.open(layout, "artifact").verify()))
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        peer.append(size / (time.perf_counter() - begun))
    # The first of each warms up.
    return ours[1:], peer[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    import statistics

    parser = harness.parser(__doc__)
    parser.add_argument("--versions", type=int, default=10_000, help="versions of one name")
    parser.add_argument("--megabytes", type=int, default=256, help="of the artifact that is verified")
    parser.add_argument("--rows", type=int, default=1_000, help="of the run that is promoted; it has two variants")
    parser.add_argument("--repeats", type=int, default=5, help="of all but resolving")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_versions(folder, options.versions)
        files = make_artifact(folder, options.megabytes)
        resolved = resolving(folder, 200)
        listed = listing(folder, options.repeats, options.versions)
        promoted, rolled_back = promoting(folder, options.rows, options.repeats)
        ours, peer = verifying(folder, files, options.repeats)
    middle = statistics.median
    ratio = middle(ours) / middle(peer)
    parts = [
        Part(name="verify", ours=middle(ours), peer=middle(peer), ratio=ratio, unit="MiB/s"),
        Part(name="resolve an alias, median", ours=middle(resolved), unit="ms"),
        Part(name=f"list {options.versions:,} versions", ours=middle(listed), unit="s"),
        Part(name=f"promote {2 * options.rows:,} calls, without the gate", ours=middle(promoted), unit="s"),
        Part(name="roll back", ours=middle(rolled_back), unit="s"),
    ]
    goals = (
        (f"at least {VERIFY_GOAL:g} of sha256sum", ratio >= VERIFY_GOAL),
        (f"at most {RESOLVE_GOAL_MS:g} ms", middle(resolved) <= RESOLVE_GOAL_MS),
        (f"at most {LIST_GOAL_S:g} s", middle(listed) <= LIST_GOAL_S),
        (f"at most {PROMOTE_GOAL_S:g} s", middle(promoted) <= PROMOTE_GOAL_S),
        (f"under {ROLLBACK_GOAL_S:g} s", middle(rolled_back) < ROLLBACK_GOAL_S),
    )
    parts = [part | Part(goal=goal, met=met) for part, (goal, met) in zip(parts, goals, strict=True)]
    harness.report(
        "registry",
        ours=middle(ours),
        peer=middle(peer),
        ratio=ratio,
        goal="; ".join(goal for goal, _ in goals),
        met=all(met for _, met in goals),
        unit="MiB/s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "sqlalchemy"],
        runs={"ours, MiB/s": ours, "peer, MiB/s": peer, "listed, s": listed, "promoted, s": promoted},
        notes=[f"{options.megabytes} MiB in four layers, in the system's cache; SQLite"],
    )


if __name__ == "__main__":
    main()
