"""What the pages of the documentation take for granted: files, a registry that holds something, a model that is quick.

Pages that train and search do so on a few rows and topics, and those in `TINY` with the tests' own random model under the
starter's name: what they say of answers is measured elsewhere, and here their commands run.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.documentation import blocks
from tests.documentation_run import Place
from tests.finetune import convert_hf_to_gguf
from tests.finetune.small import COLOURS, PROMPT, make_layout, make_recipe
from tests.finetune.test_preference import rows
from tests.models.tiny import save_tiny_model
from workbench import access
from workbench.finetune.gguf import VARIABLE
from workbench.init.init import init_workspace
from workbench.models.store import STARTER, models_folder, publish

TINY = {"experiments.md", "finetuning.md", "index.md", "retrieval.md"}
_TOPICS = "else while global return truth booleans"
_LAMPS = "Alder Birch Cedar Dogwood Elm Fir Ginkgo Hazel Ivy Juniper Larch Maple Oak Pine Rowan Willow"


def tiny_models(cache: Path) -> Path:
    """A folder of models in which the starter is a random one of a few kilobytes."""
    partial = models_folder(cache) / "partial"
    save_tiny_model(partial, max_position_embeddings=8192)
    publish(partial, models_folder(cache) / STARTER, name=STARTER, source="tests")
    return cache


def give(page: str, place: Place) -> None:
    """Put in place what a page takes for granted."""
    if given := _GIVEN.get(page):
        given(place)


def _data(place: Place) -> None:
    lines = [f"message {n},{'ham' if n % 2 else 'spam'}" for n in range(12)]
    (place.folder / "my.csv").write_text("\n".join(["text,label", *lines, ""]))


def _artifacts(place: Place) -> None:
    (place.folder / "workbench.toml").write_text(f'format_version = 1\n[roles]\nreviewer = ["{access.local_user()}"]\n')


def _curation(place: Place) -> None:
    rows = place.folder / "datasets" / "support-tickets" / "data.jsonl"
    rows.write_text("".join(rows.read_text("utf-8").splitlines(keepends=True)[:60]), "utf-8")


def _index(place: Place) -> None:
    """Nothing: the page makes its own workspace."""
    shutil.rmtree(place.folder)
    place.folder.mkdir()


def _prompts(place: Place) -> None:
    """A history of the prompts, and the database that an MLflow server would keep, in its place."""
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.com")
    for words in (("init", "-q"), ("add", "prompts"), (*who, "commit", "-q", "-m", "prompts")):
        subprocess.run(["git", *words], cwd=place.folder, check=True)
    place.names["http://localhost:5000"] = f"sqlite:///{place.folder / 'mlflow.db'}"


def _ci(place: Place) -> None:
    """The team's key, and a new workspace with the two notebooks that take least."""
    runner = place.folder.parent / "runner"
    place.surroundings["RUNNER_TEMP"] = str(runner)
    place.workbench("artifact", "keygen", str(runner / "team.pem"))
    for path in (init_workspace(place.elsewhere).root / "notebooks").iterdir():
        if path.name not in ("registry.py", "prompt_ab.ipynb"):
            path.unlink()


def _deployer(place: Place) -> None:
    """A version in the registry, signed by somebody else, whose public key is on the other machine."""
    if not place.registry:
        return
    maker = Place(place.folder.parent / "maker")
    shutil.copytree(place.folder, maker.folder, symlinks=True)
    maker.workbench("artifact", "keygen", "keys/team.pem")
    maker.workbench("artifact", "sign", "triage@1", "--key", "keys/team.pem")
    maker.workbench("artifact", "push", "triage@1", f"{place.registry}/team/triage:v3")
    keys = init_workspace(place.elsewhere).root / "keys"
    keys.mkdir()
    shutil.copy(maker.folder / "keys" / "team.pem.pub", keys)


def _finetuning(place: Place) -> None:
    """Colours for the tickets, sixty of them; pairs; llama.cpp's converter; and two processes where GPUs are meant."""
    layout = make_layout(place.folder.parent / "colours")
    tickets, adapters, launch = (place.folder / name for name in ("datasets/support-tickets", "adapters", "launch"))
    shutil.rmtree(tickets)
    shutil.copytree(layout.root / "datasets" / "colours", tickets)
    settings = (tickets / "dataset.toml").read_text().replace('"colours"', '"support-tickets"')
    (tickets / "dataset.toml").write_text(settings)
    (place.folder / "prompts" / "triage.md").write_text(PROMPT)
    recipe = make_recipe(layout, epochs=20, max_steps=80, eval_every=80).settings.model_dump(mode="json")
    fields = yaml.safe_load((adapters / "triage.yaml").read_text())
    (adapters / "triage.yaml").write_text(yaml.safe_dump({**fields, "settings": recipe}))
    [preferred] = [block.text for block in blocks("finetuning.md") if "kind: dpo" in block.text]
    (adapters / "triage-preferred.yaml").write_text(preferred)
    pairs = [{name: row[name] for name in ("text", "chosen", "rejected")} for row in rows()]
    (place.folder / "reviewed.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    shutil.copy(launch / "two-processes.yaml", launch / "ddp.yaml")
    place.names["/srv/"] = f"{place.folder.parent / 'srv'}/"
    place.surroundings[VARIABLE] = str(Path(convert_hf_to_gguf.__file__).parent)


def _retrieval(place: Place) -> None:
    """A Python whose reference has a few topics, and twelve lamps in each form that a corpus and questions have."""
    from pydoc_data.topics import topics

    python = place.folder.parent / "python" / "pydoc_data"
    python.mkdir(parents=True)
    (python / "__init__.py").touch()
    (python / "topics.py").write_text(f"topics = { {name: topics[name] for name in _TOPICS.split()}!r}\n")
    place.surroundings["PYTHONPATH"] = str(python.parent)

    here = place.folder
    (here / "texts").mkdir()
    documents, queries, judgements, places, paragraphs = [], [], ["query-id\tcorpus-id\tscore"], [], []
    for number, lamp in enumerate(_LAMPS.split()):
        shade = f"a shade of {COLOURS[number % 3]} glass"
        text, question = (
            f"The lamp {lamp} has {shade}. It takes {number + 3} watts.",
            f"Which shade has the lamp {lamp}?",
        )
        start = text.index(shade)
        documents.append({"id": lamp, "text": text})
        queries.append({"_id": f"q{number}", "text": question})
        judgements.append(f"q{number}\t{lamp}\t1")
        (here / "texts" / f"{lamp}.txt").write_text(text)
        evidence = {"content": shade, "start_index": start, "end_index": start + len(shade)}
        places.append([question, f"{lamp}.txt", json.dumps([evidence])])
        answer = {"text": shade, "answer_start": start}
        paragraphs.append({"context": text, "qas": [{"id": f"q{number}", "question": question, "answers": [answer]}]})
    for name, lines in (("corpus", documents), ("queries", queries)):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (here / "qrels.tsv").write_text("\n".join(judgements) + "\n")
    with (here / "places.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "corpus_id", "references"], *places])
    (here / "squad.json").write_text(json.dumps({"data": [{"title": "Lamps", "paragraphs": paragraphs}]}))


_GIVEN: dict[str, Callable[[Place], None]] = {
    "artifacts.md": _artifacts,
    "data-curation.md": _curation,
    "data.md": _data,
    "finetuning.md": _finetuning,
    "guides/ci.md": _ci,
    "guides/deployer.md": _deployer,
    "index.md": _index,
    "prompts.md": _prompts,
    "retrieval.md": _retrieval,
}
