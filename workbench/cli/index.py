"""`workbench index`: build, tune, answer, list, show, compare and search indexes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from workbench.cli.common import current_workspace, print_json
from workbench.errors import UsageError
from workbench.validation import first_fault
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.types import Question

index_app = typer.Typer(no_args_is_help=True, help="Indexes: build, tune, list, show, compare and search them.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CorpusPath = Annotated[
    str, typer.Option("--corpus", help="A folder, a .jsonl file, a BEIR folder, SQuAD's .json, or python-reference.")
]
Reference = Annotated[str, typer.Argument(help="An index by name, or a beginning of its digest.")]


def _corpus(path: str, quiet: bool = False) -> Corpus:
    from workbench.retrieval.corpus import open_corpus

    corpus = open_corpus(path)
    if not quiet:
        for entry in corpus.rejected:
            typer.echo(f"left out {entry.id}: {entry.reason}", err=True)
    return corpus


@index_app.command("build")
def build(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    corpus: CorpusPath,
    kind: Annotated[str, typer.Option(help="auto, fixed, recursive, markdown, code or semantic.")] = "auto",
    size: Annotated[int, typer.Option(help="Most tokens of a chunk.")] = 200,
    overlap: Annotated[int, typer.Option(help="Tokens that a chunk repeats of the one before.")] = 0,
    embedder: Annotated[str, typer.Option(help="minilm, a folder, or SERVER:MODEL.")] = "minilm",
    as_json: Json = False,
) -> None:
    """Chunk and embed a corpus. What was embedded before is not embedded again."""
    from pydantic import ValidationError

    from workbench.retrieval.chunking import ChunkerSettings
    from workbench.retrieval.index import Index, describe
    from workbench.retrieval.recipe import IndexRecipe

    try:
        chunker = ChunkerSettings.model_validate({"kind": kind, "size": size, "overlap": overlap})
    except ValidationError as error:
        raise UsageError(first_fault(error, "chunker")) from None
    found = Index.build(
        current_workspace(), _corpus(corpus, as_json), IndexRecipe(chunker=chunker, embedder=embedder), name=name
    )
    if as_json:
        print_json(describe(found))
    else:
        typer.echo(str(found))


@index_app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the indexes that are built."""
    from workbench.files import short
    from workbench.retrieval.index import describe, list_indexes

    records = [describe(index) for index in list_indexes(current_workspace())]
    if as_json:
        print_json(records)
        return
    table = Table("index", "digest", "corpus", "documents", "chunks", "embedder", "MB", box=None, pad_edge=False)
    for record in records:
        table.add_row(
            record["name"],
            short(record["digest"]),
            record["corpus"],
            str(record["documents"]),
            str(record["chunks"]),
            record["embedder"],
            str(record["megabytes"]),
        )
    Console().print(table)


@index_app.command("show")
def show(name: Reference, as_json: Json = False) -> None:
    """Show what an index is and was made from; its bytes are verified."""
    from workbench.retrieval.index import Index, describe

    index = Index.open(current_workspace(), name)
    facts = {**describe(index), "left_out": index.manifest.rejected}
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        typer.echo(f"{key:<16} {json.dumps(value) if isinstance(value, dict) else value}")


@index_app.command("diff")
def diff(before: Reference, after: Reference, as_json: Json = False) -> None:
    """Compare two indexes: settings, and documents added, removed and changed."""
    from workbench.retrieval.index import diff_indexes, find_index

    layout = current_workspace()
    found = diff_indexes(find_index(layout, before), find_index(layout, after))
    if as_json:
        print_json(found)
        return
    for key, (old, new) in found["settings"].items():
        typer.echo(f"{key}: {old} → {new}")
    for what in ("added", "removed", "changed"):
        ids = found[what]
        typer.echo(f"{what}: {len(ids)}" + (f" ({', '.join(ids[:5])}{', …' if len(ids) > 5 else ''})" if ids else ""))


@index_app.command("search")
def search(
    name: Reference,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", help="How many passages.")] = 5,
    mode: Annotated[str, typer.Option(help="dense, sparse or hybrid.")] = "hybrid",
    access: Annotated[list[str] | None, typer.Option(help="A label that you hold (repeatable).")] = None,
    as_json: Json = False,
) -> None:
    """Search an index."""
    from pydantic import ValidationError

    from workbench.retrieval.index import Index
    from workbench.retrieval.search_settings import SearchSettings

    try:
        settings = SearchSettings.model_validate({"k": k, "mode": mode, "candidates": max(50, k)})
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None
    hits = Index.open(current_workspace(), name).search(query, settings=settings, access=access or ())
    if as_json:
        print_json([{"id": h.chunk.id, "score": h.score, "ranks": dict(h.ranks), "text": h.chunk.text} for h in hits])
        return
    console = Console(highlight=False)
    for number, hit in enumerate(hits, 1):
        ranks = ", ".join(f"{side} {rank}" for side, rank in hit.ranks.items())
        console.print(f"[bold]{number}. {hit.chunk.id}[/]  [dim]{hit.score:.4f} ({ranks})[/]")
        console.print(" ".join(hit.chunk.text.split())[:300], markup=False)


@index_app.command("tune")
def tune(
    corpus: CorpusPath,
    questions: Annotated[
        str | None,
        typer.Option(help="A data set of questions with evidence, SQuAD's .json, or a .csv with places of evidence."),
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="BEIR: queries.jsonl.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="BEIR: the judgements, a .tsv file.")] = None,
    space: Annotated[Path | None, typer.Option(help="The space to search, in YAML; a first sweep by default.")] = None,
    measure: Annotated[str, typer.Option(help="What is maximized.")] = "ndcg_at_k",
    strategy: Annotated[str, typer.Option(help="auto, grid, halving or optuna.")] = "auto",
    name: Annotated[str, typer.Option(help="What the run is called.")] = "",
    as_json: Json = False,
) -> None:
    """Search over chunkers, embedders and ways of searching; decide between the leader and the baseline on other questions."""
    from workbench.tuning.space import read_space
    from workbench.tuning.tune import tune as run_tune

    layout = current_workspace()
    found = _corpus(corpus, as_json)
    dev, test = _questions(layout, found, questions, queries, qrels)
    if strategy not in ("auto", "grid", "halving", "optuna"):
        raise UsageError(f"no strategy {strategy!r}", hint="Known: auto, grid, halving, optuna.")
    result = run_tune(
        layout,
        found,
        dev,
        test,
        read_space(space) if space else None,
        name=name,
        measure=measure,
        strategy=strategy,  # type: ignore[arg-type]
        show_progress=not as_json,
    )
    if as_json:
        print_json(result.to_json())
        return
    typer.echo(str(result))
    typer.echo(
        f"run {result.run.id}; workbench compare {result.run.id} shows every measure, "
        f"workbench index answer {result.run.id} lets the finalists answer"
    )


@index_app.command("answer")
def answer(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A tuning's run: its id, or a unique beginning of it.")],
    limit: Annotated[int | None, typer.Option(help="Ask so many of the test questions.")] = None,
    stop_early: Annotated[bool, typer.Option("--stop-early", help="Stop when the decision is certain.")] = False,
    as_json: Json = False,
) -> None:
    """Let the finalists of a tuning answer its test questions, and compare the answers; goes on where it stopped."""
    from workbench.experiments.run import open_run
    from workbench.tuning.answers import answer_experiment

    layout = current_workspace()
    experiment = answer_experiment(layout, open_run(layout, run), limit=limit)
    answered = experiment.run(stop_early=stop_early, show_progress=not as_json)
    comparison = answered.compare() if len(experiment.variants) > 1 else None
    if as_json:
        summary = answered.summary().to_dicts()
        shown = comparison.to_json() if comparison else None
        print_json({"run_id": answered.id, "failed": answered.failed, "summary": summary, "comparison": shown})
        return
    typer.echo(f"run {answered.id}: {len(answered.calls())} calls, {answered.failed} failed")
    if comparison is None:
        Console().print(answered.summary())
    else:
        typer.echo(str(comparison))


def _questions(
    layout: Layout, corpus: Corpus, name: str | None, queries: Path | None, qrels: Path | None
) -> tuple[list[Question], list[Question]]:
    """The dev and the test questions."""
    from workbench.retrieval.questions import load_questions, read_beir_questions, read_question_file
    from workbench.tuning.tune import halves

    if name is not None and "@" not in name and Path(name).suffix.lower() in (".csv", ".json"):
        parts = [read_question_file(name, corpus)]
    elif name is not None:
        parts = [load_questions(layout, corpus, name, split=split) for split in ("dev", "test")]
    elif queries is not None and qrels is not None:
        parts = [read_beir_questions(queries, qrels, corpus)]
    else:
        raise UsageError("no questions given", hint="Give --questions NAME, or --queries FILE and --qrels FILE.")
    for part in parts:
        for entry in part.missing:
            typer.echo(f"left out {entry.question}: {entry.reason}", err=True)
    if len(parts) == 1:
        return halves(parts[0].questions)
    return list(parts[0].questions), list(parts[1].questions)
