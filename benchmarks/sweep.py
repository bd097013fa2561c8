"""A sweep of 48 index configurations, against a plain loop that embeds and builds Chroma anew for each.

3 chunkings × 4 ways of searching × 4 settings of k, over 1.5 MB of text that Python carries, from an empty cache to the
decision on the test questions. Two things are measured beside it: how long the embedding of all distinct chunks takes by
itself, and the plain loop, `SentenceTransformer.encode` and a new Chroma collection a configuration. The loop does the same
for all configurations of a chunking, so it is measured once for each chunking and counted once for each configuration.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part
from benchmarks.texts import library_corpus

SIZES, KS, CHARACTERS = (96, 192, 384), (3, 5, 10, 20), 1_500_000
OVERHEAD, GOAL = 1.3, 10.0
# Read by the loop for its questions; one after the other, as a loop in a notebook asks them.
DATASET = "python-reference-qa"


def measure(characters: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Seconds of the sweep, of the embedding alone, and of the loop for each chunking."""
    from workbench.data.dataset import Dataset
    from workbench.data.store import open_dataset
    from workbench.retrieval.chunking import ChunkerSettings, chunk_corpus
    from workbench.retrieval.embedding import get_embedder
    from workbench.retrieval.questions import load_questions
    from workbench.tuning.space import TuneSpace
    from workbench.tuning.tune import tune
    from workbench.workspace import Layout, Settings

    corpus = library_corpus(characters)
    dataset: Dataset = open_dataset(Layout(harness.ROOT, Settings()), DATASET)
    dev, test = (load_questions(dataset, corpus, split=split).questions for split in ("dev", "test"))
    embedder = get_embedder()
    embedder.encode(["The model is loaded, and warm."] * 8)
    chunkers = [ChunkerSettings(kind="auto", size=size) for size in sizes]
    space = TuneSpace(chunkers=tuple(chunkers), modes=("dense", "sparse", "hybrid"), fusions=("rrf", "weighted"), ks=KS)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder), Settings())
        swept: list[Any] = []
        sweep_s = harness.seconds(lambda: swept.append(tune(layout, corpus, dev, test, space, show_progress=False)))
    texts = [
        [chunk.text for chunk in chunk_corpus(corpus, chunker, tokenizer=embedder.tokenizer)] for chunker in chunkers
    ]
    distinct = list(dict.fromkeys(text for part in texts for text in part))
    embedding_s = harness.seconds(lambda: embedder.encode(distinct))
    loop = [plain(part, [question.text for question in dev]) for part in texts]
    return {
        "sweep": sweep_s,
        "embedding": embedding_s,
        "loop": loop,
        "configurations": len(swept[0].trials),
        "distinct": len(distinct),
        "characters": corpus.characters,
        "dev": len(dev),
        "test": len(test),
        "sentence": swept[0].sentence,
    }


def plain(texts: Sequence[str], questions: Sequence[str]) -> float:
    """Seconds of one round of the loop: embed the chunks, fill a collection, ask each question."""
    import chromadb
    from chromadb.config import Settings
    from sentence_transformers import SentenceTransformer

    from workbench.retrieval.embedding_models import find_embedding_model

    model = SentenceTransformer(str(find_embedding_model("minilm").path), device="cpu", local_files_only=True)

    def loop() -> None:
        client = chromadb.EphemeralClient(settings=Settings(anonymized_telemetry=False))
        collection: Any = client.get_or_create_collection("plain", embedding_function=None)
        vectors = model.encode(list(texts), show_progress_bar=False)
        step = client.get_max_batch_size()
        for start in range(0, len(texts), step):
            part = slice(start, start + step)
            ids = [str(place) for place in range(*part.indices(len(texts)))]
            collection.add(ids=ids, embeddings=vectors[part], documents=list(texts[part]))
        for question in questions:
            collection.query(query_embeddings=model.encode([question], show_progress_bar=False), n_results=max(KS))
        client.delete_collection("plain")

    return harness.seconds(loop)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--characters", type=int, default=CHARACTERS, help="of the corpus")
    options = parser.parse_args(arguments)
    found = measure(options.characters, SIZES)
    rounds = found["configurations"] // len(SIZES)
    loop_s = rounds * sum(found["loop"])
    faster, overhead = loop_s / found["sweep"], found["sweep"] / found["embedding"]
    part = Part(
        name="the distinct chunks alone",
        ours=found["sweep"],
        peer=found["embedding"],
        ratio=1 / overhead,
        unit="s",
        goal=f"at most {OVERHEAD:g}× as long",
        met=overhead <= OVERHEAD,
    )
    harness.report(
        "sweep",
        ours=found["sweep"],
        peer=loop_s,
        ratio=faster,
        goal=f"at least {GOAL:g}×",
        met=faster >= GOAL and overhead <= OVERHEAD,
        unit="s",
        parts=[part],
        json_output=options.json,
        packages=["llmops-workbench", "chromadb", "sentence-transformers", "bm25s", "torch"],
        runs={"loop, one configuration of each chunking, s": found["loop"]},
        notes=[
            (
                f"{found['configurations']} configurations, {found['characters']:,} characters, "
                f"{found['distinct']:,} distinct chunks, {found['dev']} dev and {found['test']} test questions"
            ),
            f"the loop was measured for {len(SIZES)} configurations and counted {rounds} times each",
            f"the sweep takes {overhead:.2f} times the embedding of its chunks; it includes the test questions",
            found["sentence"],
        ],
    )


if __name__ == "__main__":
    main()
