"""A starting point for any data set: a pipeline whose answers have the form of the targets, and scorers that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import DataError, UsageError
from workbench.experiments import scorers as scoring
from workbench.models.engine import Generation, Message
from workbench.pipeline import steps
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset
    from workbench.experiments.scorers.base import Scorer

# Target columns of questions that are answered from passages.
ANSWER, EVIDENCE = "answer", "evidence"
# A column with more distinct values than this is free text, not a set of labels.
MOST_LABELS = 50
NEW_TOKENS = 64


def starting_point(
    dataset: Dataset, model: str, prompt: Prompt | None = None, *, constrain: bool = True
) -> tuple[Pipeline, list[Scorer]]:
    """A pipeline and scorers for `dataset`, the primary scorer first.

    Several target columns make a JSON object with one field a column, limited to the labels that the train split has.
    One column with few values makes one of these labels; one with many, free text. The columns `answer` and `evidence`
    make an answer in text, judged by `answer_scorers`.

    Args:
        prompt: the prompt; without one, `plain_prompt`.
        constrain: keep JSON answers to the schema while generating.

    Raises:
        UsageError: the data set names no target.
    """
    columns = dataset.spec.target
    if not columns:
        raise UsageError(f"{dataset.name} names no target column", hint="Import it with --target COLUMN.")
    prompt = prompt or plain_prompt(dataset)
    if _has_evidence(dataset):
        pipeline = Pipeline(model=model, prompt=prompt, generation=Generation(max_new_tokens=NEW_TOKENS))
        return pipeline, answer_scorers()
    labels = {column: label_values(dataset, column) for column in columns}
    resources: list[Scorer] = [scoring.latency(), scoring.tokens()]
    if len(columns) > 1:
        schema = {
            "type": "object",
            "properties": {
                name: {"enum": list(found)} if found else {"type": "string"} for name, found in labels.items()
            },
            "required": list(columns),
            "additionalProperties": False,
        }
        pipeline = Pipeline(
            model=model,
            prompt=prompt,
            response_schema=schema,
            generation=Generation(max_new_tokens=NEW_TOKENS, constrain=constrain),
        )
        fields: list[Scorer] = [scoring.json_field(column) for column in columns]
        # A constrained answer always has the form of the schema: asking again would only cost power.
        form: list[Scorer] = [] if constrain else [scoring.json_schema(schema)]
        return pipeline, [scoring.json_fields(), *fields, *form, *resources]
    found = labels[columns[0]]
    if found and all(isinstance(value, str) for value in found):
        return (
            Pipeline(
                model=model,
                prompt=prompt,
                generation=Generation(max_new_tokens=16, stop=("\n",)),
                postprocess=(steps.Strip(), steps.Labels(labels=tuple(map(str, found)))),
            ),
            [scoring.exact(), *resources],
        )
    pipeline = Pipeline(model=model, prompt=prompt, generation=Generation(max_new_tokens=NEW_TOKENS))
    return pipeline, [scoring.normalized(), scoring.token_f1(), *resources]


def answer_scorers(*, answers: bool = True, evidence: bool = True, answerable: str = ANSWER) -> list[Scorer]:
    """Scorers of answers that rest on passages, the primary one first.

    A question without an answer counts for `abstention` alone; the others do not score it.

    Args:
        answers: targets have the field `answer`, for token F1 and SQuAD's exact match. evidence: they have `evidence`.
        answerable: the field that is empty or false where there is nothing to answer.
    """
    against: list[Scorer] = [
        scoring.token_f1(field=ANSWER, ignore_citations=True),
        scoring.normalized(form="squad", field=ANSWER, ignore_citations=True, name="exact_match"),
    ]
    shown: list[Scorer] = [scoring.evidence_recall(field=EVIDENCE)]
    said: list[Scorer] = [scoring.groundedness(), scoring.citations(), scoring.abstention(field=answerable)]
    return [*(against if answers else []), *(shown if evidence else []), *said, scoring.latency(), scoring.tokens()]


def _has_evidence(dataset: Dataset) -> bool:
    return {ANSWER, EVIDENCE} <= set(dataset.spec.target)


def label_values(dataset: Dataset, column: str) -> tuple[Any, ...]:
    """Distinct values of a target column in the train split (in all rows, where there is none), sorted; empty for free text."""
    rows = (dataset.split("train") if dataset.splits().get("train") else dataset).rows()
    targets = [row.target for row in rows if row.target is not None]
    several = len(dataset.spec.target) > 1
    found = [value for target in targets if (value := target[column] if several else target) is not None]
    if not all(isinstance(value, (str, int, bool)) for value in found):
        return ()
    values = set(found)
    return tuple(sorted(values, key=str)) if 0 < len(values) <= MOST_LABELS else ()


def plain_prompt(dataset: Dataset) -> Prompt:
    """A zero-shot prompt that says which fields and labels are wanted.

    Raises:
        DataError: the data set has no input column.
    """
    inputs = tuple(dataset.head(1).rows()[0].inputs)
    if not inputs:
        raise DataError(f"{dataset.name} names no input column", hint="Import it with --input COLUMN.")
    body = "{{ " + inputs[0] + " }}" if len(inputs) == 1 else "\n".join(f"{name}: {{{{ {name} }}}}" for name in inputs)
    if _has_evidence(dataset):
        return _prompt("Answer in one or two sentences. If you do not know, say: I cannot answer that.", body, inputs)
    labels = {column: label_values(dataset, column) for column in dataset.spec.target}
    asked = [
        f"{column} (one of: {', '.join(map(str, values))})" if values else column for column, values in labels.items()
    ]
    form = "JSON with the fields " if len(asked) > 1 else "only the "
    return _prompt(f"Answer with {form}{'; '.join(asked)}.", body, inputs)


def _prompt(task: str, body: str, variables: tuple[str, ...]) -> Prompt:
    return Prompt.from_messages(
        [Message(role="system", content=task), Message(role="user", content=body)], variables=variables
    )
