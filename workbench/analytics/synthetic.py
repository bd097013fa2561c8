"""A made-up history of calls to try analytics on: 90 days of four models, three prompts and four tenants.

Every row says `source = 'synthetic'`, and its trace begins with `demo-`. The same seed and last day make the same rows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from workbench.errors import EventsError
from workbench.events.compact import exclusively
from workbench.files import digest_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from workbench.events.log import EventLog
    from workbench.events.store import Events

DAYS, SEED = 90, 7
PREFIX = "demo-"
_TABLES = ("calls", "scores", "feedback")
# Days before the last one.
INCIDENT, PRICE_CHANGE, DRIFT_FROM = 18, 41, 30
_WEEK = (1.0, 1.08, 1.05, 1.02, 0.9, 0.32, 0.26)
_A_DAY = 850


@dataclass(frozen=True)
class Model:
    """A made-up model: dollars for a million tokens in and out, its share of right answers, and its median seconds."""

    name: str
    price_in: float
    price_out: float
    quality: float
    latency_s: float


@dataclass(frozen=True)
class PromptKind:
    """A made-up prompt: its tokens, and what it adds to the log-odds of a right answer."""

    name: str
    tokens: int
    gain: float


MODELS = (
    Model("small-1b", 0.2, 0.4, 0.76, 0.22),
    Model("medium-8b", 1.2, 2.4, 0.87, 0.55),
    Model("legacy-13b", 2.6, 5.2, 0.84, 1.1),
    Model("large-70b", 6.0, 18.0, 0.94, 1.6),
)
PROMPTS = (PromptKind("triage@1", 190, 0.0), PromptKind("triage@2", 640, 0.45), PromptKind("triage@3", 95, -0.25))
# Which models and prompts a tenant's calls go to, and how much of them all is theirs.
TENANTS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "acme": (0.42, (0.25, 0.30, 0.10, 0.35), (0.3, 0.6, 0.1)),
    "globex": (0.28, (0.15, 0.25, 0.25, 0.35), (0.6, 0.4, 0.0)),
    "initech": (0.20, (0.55, 0.35, 0.05, 0.05), (0.2, 0.3, 0.5)),
    "larkspur": (0.10, (0.30, 0.50, 0.05, 0.15), (0.4, 0.6, 0.0)),
}
PLACES = ("support-desk", "nightly-batch", "explore.py")
# Of the large model's questions, those that the small one answers too, unseen; both answers are always scored.
_SHADOWED, _SCORED, _RATED = 0.06, 0.22, 0.015
_INTENTS = ("billing", "bug", "account", "shipping", "refund", "how_to", "cancellation", "feedback")
_TEXTS = (
    "Order {n} was charged twice, please send one of the two back.",
    "The app closes as soon as I open camera {n}.",
    "I cannot sign in any more; my customer number is {n}.",
    "Parcel {n} says delivered, and nothing is here.",
    "I want my money back for order {n}, it is not what the picture shows.",
    "How do I pair sensor {n} with the new hub?",
    "Please end plan {n} at the end of this month.",
    "Lamp {n} is the best thing I bought this year, thank you.",
)


def write_history(events: Events, *, last: date | None = None, days: int = DAYS, seed: int = SEED) -> dict[str, int]:
    """Record the history that ends with `last` (yesterday, UTC), in place of one that is there. Returns rows by table.

    Raises:
        EventsError: the disk does not take it; what of it was written is taken out again, or the hint says how to.
    """
    with _alone(events):
        _remove(events)
        made = make_history(last or datetime.now(UTC).date() - timedelta(days=1), days=days, seed=seed)
        log = events.log(compact=False)
        try:
            with log:
                for table, rows in made.items():
                    log.record_many(table, rows)
            events.compact(folders=False)
        except EventsError:
            raise _undone(events, log) from None
    return {table: len(rows) for table, rows in made.items()}


def _undone(events: Events, log: EventLog) -> EventsError:
    """Take out what was written before the disk was full. Returns the error that says so."""
    hint = "Make room, then do it again."
    try:
        with exclusively(events.folder, wait=True):
            log.discard()
        _remove(events)
    except (EventsError, OSError):
        hint = "Make room, then take out what was written: workbench demo --remove-history"
    return EventsError(f"the made-up history does not fit: the disk of {events.folder} is full", hint=hint)


def remove_history(events: Events) -> dict[str, int]:
    """Take the history out again, and nothing else. Returns how many rows went, by table."""
    with _alone(events):
        return _remove(events)


def _remove(events: Events) -> dict[str, int]:
    import polars as pl

    mine = (pl.col("source") == "synthetic") & pl.col("trace_id").str.starts_with(PREFIX)
    there = {table: events.frame(table).filter(mine).head(1).collect().height for table in _TABLES}
    return {table: events.remove(table, mine) if there[table] else 0 for table in _TABLES}


@contextlib.contextmanager
def _alone(events: Events) -> Iterator[None]:
    """Only one process at a time, or two that write at once would double it."""
    import fcntl

    events.folder.mkdir(parents=True, exist_ok=True)
    with (events.folder / "synthetic.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_history(last: date, *, days: int = DAYS, seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """Rows of `calls`, `scores` and `feedback`, as `EventLog.record` takes them.

    There are a rhythm of the week, slow growth, a model that costs most of the money, one that another beats at a lower
    price, a day with errors, a price that falls, and a model that grows slower.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = _draw(rng, last, days)
    order = np.argsort(drawn["at"], kind="stable")
    columns = {name: values[order].tolist() for name, values in drawn.items()}
    midnight = datetime(last.year, last.month, last.day) - timedelta(days=days - 1)
    digests = {prompt.name: digest_bytes(prompt.name.encode()) for prompt in PROMPTS}
    calls: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    feedback: list[dict[str, Any]] = []
    names, tenants = tuple(model.name for model in MODELS), tuple(TENANTS)
    for index, row in enumerate(zip(*columns.values(), strict=True)):
        got = dict(zip(columns, row, strict=True))
        at = (midnight + timedelta(seconds=got["at"])).isoformat(timespec="microseconds")
        trace, tenant, prompt = (
            f"{PREFIX}{last:%Y%m%d}-{index:06d}",
            tenants[got["tenant"]],
            PROMPTS[got["prompt"]].name,
        )
        shared = {"trace_id": trace, "tenant": tenant, "source": "synthetic"}
        intent = _INTENTS[got["question"] % 8 if got["right"] else (got["question"] + 1 + index % 7) % 8]
        answer = json.dumps({"intent": intent, "urgency": "normal"})
        error = got["error"]
        calls.append(
            shared
            | {
                "variant": prompt,
                "row_id": f"q{got['question']}",
                "repeat": 0,
                "notebook": PLACES[got["place"]],
                "prompt_digest": digests[prompt],
                "model": names[got["model"]],
                "input": json.dumps({"text": _TEXTS[got["question"] % 8].format(n=10_000 + got["question"])}),
                "output": None if error else answer,
                "result": None if error else answer,
                "finish_reason": None if error else "stop",
                "error_kind": error or None,
                "error": f"made up: {error}" if error else None,
                "cached": got["cached"],
                "tokens_in": got["tokens_in"],
                "tokens_out": 0 if error else got["tokens_out"],
                "queue_s": 0.0,
                "ttft_s": got["latency_s"] * 0.3,
                "latency_s": got["latency_s"],
                "cost_usd": got["cost_usd"],
                "started_at": at,
            }
        )
        scored = {"variant": prompt, "row_id": f"q{got['question']}", "repeat": 0, "started_at": at}
        if got["scored"] and not error:
            scores.append(shared | scored | {"scorer": "exact", "value": float(got["right"])})
            scores.append(shared | scored | {"scorer": "judge", "value": got["judged"]})
        if got["rated"] and not error:
            feedback.append(shared | {"rating": float(got["right"]), "who": f"user-{index % 97}", "at": at})
    return {"calls": calls, "scores": scores, "feedback": feedback}


def _draw(rng: np.random.Generator, last: date, days: int) -> dict[str, npt.NDArray[Any]]:
    """One array a column, of all calls."""
    import numpy as np

    first = last - timedelta(days=days - 1)
    expected = [_A_DAY * _WEEK[(first + timedelta(days=n)).weekday()] * (0.8 + 0.4 * n / days) for n in range(days)]
    day = np.repeat(np.arange(days), rng.poisson(expected))
    count = len(day)
    shares = [share for share, _, _ in TENANTS.values()]
    tenant = rng.choice(len(TENANTS), count, p=shares)
    model, prompt = np.empty(count, int), np.empty(count, int)
    for number, (_, models, prompts) in enumerate(TENANTS.values()):
        mine = tenant == number
        model[mine] = rng.choice(len(MODELS), mine.sum(), p=models)
        prompt[mine] = rng.choice(len(PROMPTS), mine.sum(), p=prompts)
    place = rng.choice(len(PLACES), count, p=[0.78, 0.15, 0.07])
    hour = np.where(place == 1, rng.normal(2.5, 0.7, count), rng.normal(13, 3.2, count)).clip(0.01, 23.98)
    found = {"day": day, "tenant": tenant, "model": model, "prompt": prompt, "place": place, "hour": hour}
    # Each question is one of its own, except for those that two models answer.
    found["question"] = np.arange(count)
    shadow = np.flatnonzero((model == 3) & (rng.random(count) < _SHADOWED))
    found = {name: np.concatenate([values, values[shadow]]) for name, values in found.items()}
    found["model"][count:] = 0
    paired = np.zeros(len(found["day"]), bool)
    paired[shadow] = paired[count:] = True
    return _answered(rng, found, paired, days)


def _answered(
    rng: np.random.Generator, found: dict[str, npt.NDArray[Any]], paired: npt.NDArray[np.bool_], days: int
) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    count, model, prompt = len(paired), found["model"], found["prompt"]
    ago = days - 1 - found["day"]

    def of_models(name: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.array([getattr(one, name) for one in MODELS], float)[model]
        return found

    tokens_in = np.array([one.tokens for one in PROMPTS])[prompt] + rng.integers(14, 60, count)
    tokens_out = rng.integers(14, 26, count)
    cached = (found["place"] == 0) & ~paired & (rng.random(count) < 0.05)
    large = model == 3
    price = np.where(large & (ago <= PRICE_CHANGE), 0.7, 1.0)
    cost = (tokens_in * of_models("price_in") + tokens_out * of_models("price_out")) * price / 1e6
    drift = np.where((model == 1) & (ago < DRIFT_FROM), 1 + 0.9 * (1 - ago / DRIFT_FROM), 1.0)
    incident = large & (ago == INCIDENT) & (found["hour"] > 9) & (found["hour"] < 16)
    failed = rng.random(count) < np.where(incident, 0.45, 0.004)
    latency = of_models("latency_s") * drift * np.where(incident, 4.0, 1.0) * rng.lognormal(0, 0.35, count)
    # A question is as hard for one model as for the other.
    hard = np.random.default_rng(count).normal(0, 1.0, found["question"].max(initial=0) + 1)[found["question"]]
    quality = of_models("quality")
    odds = np.log(quality / (1 - quality)) * 1.15 + np.array([one.gain for one in PROMPTS])[prompt] - hard
    right = rng.random(count) < 1 / (1 + np.exp(-odds))
    kinds = np.where(rng.random(count) < 0.6, "timeout", "rate_limit")
    return {
        "at": found["day"] * 86_400.0 + found["hour"] * 3_600 + rng.random(count) * 60,
        "tenant": found["tenant"],
        "model": model,
        "prompt": prompt,
        "place": found["place"],
        "question": found["question"],
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "cached": cached & ~failed,
        "latency_s": np.where(cached, 0.003, np.round(latency, 4)),
        "cost_usd": np.where(cached | failed, 0.0, np.round(cost, 9)),
        "error": np.where(failed, kinds, ""),
        "right": right,
        "judged": np.round(np.clip(np.where(right, 0.85, 0.4) + rng.normal(0, 0.12, count), 0, 1), 3),
        "scored": paired | (rng.random(count) < _SCORED),
        "rated": rng.random(count) < _RATED,
    }
