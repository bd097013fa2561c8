"""What the A/B notebooks call: from the values of their controls to an experiment, and from a run to what they show."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.errors import UsageError, WorkbenchError
from workbench.experiments.starting_point import plain_prompt, starting_point
from workbench.html import callout, counted, escape, table
from workbench.pipeline.prompt import Prompt
from workbench.surroundings import runs_as_script

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.data.dataset import Dataset
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.experiment import Experiment

Value = TypeVar("Value")
SHOWN_ROWS = 15


@dataclass(frozen=True)
class Choices:
    """The settings of the A/B notebook, with the defaults it opens with.

    Attributes:
        limit: rows of the split that are used; 0 means all.
        a: a prompt by name or file; empty means the data set's plain prompt.
        stop_early: stop as soon as the decision is certain.
        b: another one; empty means A with `shots` examples of the train split.
        prompt_a_text, prompt_b_text: what was written in place of these prompts; empty leaves them.
    """

    dataset: str = "support-tickets"
    split: str = "test"
    limit: int = 40
    model: str = ""
    shots: int = 8
    seed: int = 1
    a: str = ""
    b: str = ""
    stop_early: bool = False
    prompt_a_text: str = ""
    prompt_b_text: str = ""

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Choices:
        """Choices from the arguments of a script, such as `--dataset mine --limit 20`; errors as in `from_arguments`."""
        return from_arguments(cls(), arguments)

    def to_arguments(self) -> list[str]:
        """The words that `from_arguments` makes these very choices of, whatever a notebook's own defaults; none for what
        is empty."""
        given = {name: value for name, value in vars(self).items() if value != "" and value is not False}
        return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def from_arguments(defaults: Value, arguments: Mapping[str, Any]) -> Value:
    """The dataclass `defaults` with what the arguments of a script say.

    Raises:
        UsageError: an argument that is not known, or that is no number, or neither true nor false, where one is needed.
        SystemExit: a script was asked for `--help`, and printed what there is.
    """
    if runs_as_script() and arguments.keys() & {"help", "h"}:
        print(_help(vars(defaults)))
        raise SystemExit(0)
    arguments = {name.replace("-", "_"): value for name, value in arguments.items()}
    known = {name: type(value) for name, value in vars(defaults).items()}
    if unknown := sorted(set(arguments) - set(known)):
        raise UsageError(
            f"unknown argument --{unknown[0].replace('_', '-')}",
            hint=f"Known: {', '.join('--' + name.replace('_', '-') for name in known)}",
        )
    try:
        given = {name: _converted(value, known[name]) for name, value in arguments.items()}
    except ValueError as error:
        raise UsageError(f"an argument does not fit: {error}", hint="Give a whole number, or true or false.") from None
    return replace(defaults, **given)  # type: ignore[type-var]


def wanted(name: str) -> str:
    """What the address of an app (`?run=…`), or the argument of a script (`--run …`), says of `name`; empty for nothing.

    Raises:
        UsageError, SystemExit: as `from_arguments`.
    """
    import marimo

    if runs_as_script():
        nothing = make_dataclass("Arguments", [(name, str)], frozen=True)("")
        return str(vars(from_arguments(nothing, marimo.cli_args().to_dict()))[name])
    return str(marimo.query_params().get(name) or marimo.cli_args().get(name) or "")


def _help(defaults: Mapping[str, Any]) -> str:
    kinds = {str: "TEXT", int: "NUMBER", float: "NUMBER", bool: "true|false"}
    words = {f"--{name.replace('_', '-')} {kinds[type(value)]}": value for name, value in defaults.items()}
    width = max(map(len, words))
    shown = {word: str(value).lower() if isinstance(value, bool) else value for word, value in words.items()}
    lines = [f"  {word:{width}}  {value if value != '' else '(nothing)'}" for word, value in shown.items()]
    return "\n".join(["Arguments, and what holds without them:", *lines])


def _converted(value: Any, kind: type[Any]) -> Any:
    if kind is not bool or isinstance(value, bool):
        return kind(value)
    words = {"": True, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[str(value).lower()]


def safely(work: Callable[[], Value]) -> Value | Problem:
    """The value of `work()`, or a `Problem` that shows the error as a box instead of a traceback.

    Raises:
        SystemExit: in a marimo notebook that runs as a script, after the error was printed.
    """
    try:
        return work()
    except WorkbenchError as error:
        if runs_as_script():
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        return Problem(str(error))


class Problem:
    """An error to read: false, and shown as a box."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        return callout(self.message, "bad")


def splits(workspace: Workspace, dataset: str, preferred: str = "test") -> list[str]:
    """Names of the splits that hold rows: `preferred` first where there is one, `train` last."""
    names = [name for name, rows in workspace.dataset(dataset).splits().items() if rows]
    return sorted(names, key=lambda name: (name != preferred, name == "train"))


def prompt_texts(workspace: Workspace, choices: Choices) -> tuple[str, str]:
    """The texts that the two editors open with."""
    first, second = _prompts(workspace, choices)
    return choices.prompt_a_text or first.to_text(), choices.prompt_b_text or second.to_text()


def _prompts(workspace: Workspace, choices: Choices) -> tuple[Prompt, Prompt]:
    """The two prompts before anybody edits them."""
    if choices.a:
        first = workspace.prompt(choices.a)
    elif choices.dataset == "support-tickets" and (workspace.layout.prompts / "triage.md").is_file():
        first = workspace.prompt("triage")
    else:
        first = plain_prompt(workspace.dataset(choices.dataset))
    second = workspace.prompt(choices.b) if choices.b else _with_shots(workspace, choices, first)
    return first, second


def _with_shots(workspace: Workspace, choices: Choices, prompt: Prompt) -> Prompt:
    return with_shots(prompt, workspace.dataset(choices.dataset).split("train"), choices.shots, choices.seed)


def with_shots(prompt: Prompt, train: Dataset, shots: int, seed: int) -> Prompt:
    """The prompt with examples of the train split, in turn from each target; with all of them where there are fewer."""
    shots = min(shots, len(train))
    return prompt.with_examples(train.sample(shots, seed=seed, stratify=True).rows()) if shots else prompt


def build_experiment(workspace: Workspace, choices: Choices, text_a: str, text_b: str) -> Experiment:
    """Prompt A against prompt B on the chosen rows. Its run keeps the arguments that make it again, edited texts included.

    Raises:
        WorkbenchError: a prompt, data set or setting that does not fit; says which.
    """
    dataset = workspace.dataset(choices.dataset)
    model = choices.model or workspace.model
    first, scorers = starting_point(dataset, model, Prompt.from_text(text_a))
    rows = dataset.split(choices.split)
    written = [prompt.to_text() for prompt in _prompts(workspace, choices)]
    edited = ["" if text == own else text for text, own in zip((text_a, text_b), written, strict=True)]
    made = replace(choices, model=model, prompt_a_text=edited[0], prompt_b_text=edited[1])
    return workspace.experiment(
        f"ab-{choices.dataset}",
        dataset=rows.head(choices.limit) if choices.limit else rows,
        variants={"A": first, "B": starting_point(dataset, model, Prompt.from_text(text_b))[0]},
        scorers=scorers,
        arguments=made.to_arguments(),
    )


def disagreements(comparison: Comparison, variant: str = "B", *, change: str = "all", limit: int = SHOWN_ROWS) -> Html:
    """Rows that the two prompts answer differently: `all`, `fixed` or `broke`."""
    from workbench.ui.report import compact, input_text

    rows = comparison.disagreements(variant)
    if change != "all":
        rows = rows.filter(rows["change"] == change)
    cells = [
        (
            row["change"],
            input_text(row["input"]),
            compact(row["target"]),
            compact(row["baseline_result"] or row["baseline_output"]),
            compact(row["variant_result"] or row["variant_output"]),
        )
        for row in rows.head(limit).iter_rows(named=True)
    ]
    if not cells:
        return Html(callout("No row is answered differently." if change == "all" else f"No row was {change}.", "info"))
    count = counted(len(rows), "row") if len(rows) <= limit else f"the first {limit} of {len(rows)} rows"
    head = f"<p style='margin:.2em 0'>{escape(count)}, by {escape(comparison.primary)}</p>"
    return Html(head + table(("change", "input", "target", comparison.baseline, variant), cells))


class Html:
    """HTML that shows itself in marimo and in Jupyter, and as text elsewhere."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text

    def __str__(self) -> str:
        import re

        return html.unescape(re.sub(r"<[^>]+>", " ", self.text))
