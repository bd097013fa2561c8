"""What a stranger does: install the wheel, make a workspace anywhere, bring data, compare prompts on it.

The third-party packages are those of the environment that runs the tests; the workbench itself comes from the wheel.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

REVIEWS = [
    ("The soup arrived cold and the waiter shrugged.", "bad"),
    ("Best dumplings I have had outside of Xi'an!", "good"),
    ("We waited fifty minutes for a salad.", "bad"),
    ("Lovely terrace, kind people, we will be back.", "good"),
    ("My steak was raw and they charged for the bread.", "bad"),
    ("A quiet room and the finest pie in town.", "good"),
    ("Dirty cutlery, sticky table, loud music.", "bad"),
    ("They made my daughter a birthday cake for free.", "good"),
    ("The fish smelled a week old.", "bad"),
    ("Fresh bread, warm welcome, fair bill.", "good"),
    ("Rude on the phone and ruder at the door.", "bad"),
    ("Every plate came out perfect.", "good"),
    ("Never again: half of us were ill the next day.", "bad"),
    ("The chef came out to ask how we liked it, and we loved it.", "good"),
    ("Overpriced and underseasoned.", "bad"),
    ("I still dream of that lemon tart.", "good"),
    ("They lost our booking and blamed us.", "bad"),
    ("Worth the two trains it took to get there.", "good"),
    ("The rice was burnt and so was the mood.", "bad"),
    ("Generous portions and a view of the harbour.", "good"),
    ("Plastic cheese on a soggy bun.", "bad"),
    ("The staff remembered our names after a year.", "good"),
    ("A hair in the soup, and no apology.", "bad"),
    ("Simple, honest, delicious.", "good"),
]


@pytest.mark.slow
@pytest.mark.model
def test_from_a_wheel_to_a_comparison_of_ones_own_data(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, ROOT], ROOT)
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    [site] = (home / "lib").glob("python*/site-packages")
    wheel = next(dist.glob("*.whl"))
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel], tmp_path)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    workbench = home / "bin" / "workbench"
    where = _run([python, "-c", "import workbench; print(workbench.__file__)"], tmp_path)
    assert str(home) in where

    _run([workbench, "init", "mine"], tmp_path)
    project = tmp_path / "mine"
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *REVIEWS])
    _run(
        [
            workbench,
            "data",
            "import",
            tmp_path / "reviews.csv",
            "--name",
            "reviews",
            "--input",
            "text",
            "--target",
            "label",
        ],
        project,
    )
    shown = json.loads(_run([workbench, "data", "show", "reviews", "--json"], project))
    assert shown["rows"] == len(REVIEWS)

    said = _run([python, "notebooks/prompt_ab.py", "--dataset", "reviews", "--shots", "4"], project)
    assert "exact" in said
    runs = json.loads(_run([workbench, "run", "--list", "--json"], project))
    assert [(run["dataset"], run["failed"]) for run in runs] == [("reviews", 0)]
    assert runs[0]["calls"] == runs[0]["expected"] > 0


def _run(command: list[object], folder: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
