"""What a server answered, and what people said of it, as rows of the events. A disk that refuses them stops no answer.

Of a request only what is in its body is ever recorded, never a header, so no key is.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.errors import EventsError
from workbench.events.log import utc_now
from workbench.events.store import Events
from workbench.pipeline.pipeline import Answer
from workbench.serving.served import Served

# Characters of what a tenant or a person is called, and of a comment.
MOST, MOST_COMMENT = 200, 10_000


@dataclass(frozen=True)
class Question:
    """A question as it came.

    Attributes:
        trace_id: 32 hexadecimal digits, which its answer and all that is said of it have in common.
        at: when it came, UTC; began: the same by a clock that only goes forward, in seconds.
    """

    inputs: Mapping[str, Any]
    tenant: str | None = None
    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: str = field(default_factory=utc_now)
    began: float = field(default_factory=time.monotonic)


class Feedback(BaseModel):
    """The body of `POST /v1/feedback`: what somebody says of an answer, from -1 (bad) to 1 (good)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    trace_id: str = Field(pattern="^[0-9a-f]{32}$")
    rating: float = Field(ge=-1, le=1, allow_inf_nan=False)
    comment: str | None = Field(default=None, max_length=MOST_COMMENT)
    who: str | None = Field(default=None, max_length=MOST)
    tenant: str | None = Field(default=None, max_length=MOST)


class Recording:
    """Records what one server answers. A row is written and synced within moments by a thread of the event log.

    Args:
        folder: of the events.
        alias: that the artifact was asked for by; None where a version was named.
        content: keep inputs, answers, passages and the words of errors.
    """

    def __init__(self, served: Served, folder: Path, *, alias: str | None = None, content: bool = True) -> None:
        self.folder = folder
        self.content = content
        # Whoever asks does not wait for a disk that hangs.
        self._log = Events(folder).log(wait=False)
        model = served.engine.info
        self._same = {
            "pipeline_digest": served.pipeline.digest,
            "prompt_digest": served.pipeline.prompt.digest,
            "model": model.name,
            "model_digest": model.digest,
            "artifact": served.label,
            "alias": alias,
        }
        self._lost = 0
        self._warned = self._refused = False
        if (wrong := _unusable(folder)) is not None:
            self._warn(wrong)

    def state(self) -> str:
        """`on` or `failed: …`, as of now: waits until what was recorded is written, or is not."""
        wrong = _unusable(self.folder)
        if wrong is None:
            try:
                self._log.flush()
            except EventsError as error:
                wrong = error.message
        lost = f"; {self._lost} rows were not kept" if self._lost else ""
        if wrong is not None:
            self._warn(wrong)
            return f"failed: {wrong}{lost}"
        return f"on{'' if self.content else ', without content'}{lost}"

    def answered(self, question: Question, answer: Answer, waited_s: float) -> None:
        """Record a question with its answer, or with what is wrong with that.

        Args:
            waited_s: seconds until its batch began.
        """
        done = answer.completion
        content: dict[str, Any] = {}
        if self.content:
            content = {"output": done.text, "error": answer.error}
            if answer.error_kind is None:
                content["result"] = _json(answer.value)
            if answer.passages is not None:
                content["passages"] = _json([passage.id for passage in answer.passages])
        self._question(
            question,
            content,
            finish_reason=done.finish_reason,
            error_kind=answer.error_kind,
            logprob=done.logprob,
            cached=done.cached,
            tokens_in=done.tokens_in,
            tokens_out=done.tokens_out,
            queue_s=waited_s + done.queue_s,
            ttft_s=done.ttft_s,
            latency_s=done.latency_s,
            cost_usd=done.cost_usd,
        )

    def failed(self, question: Question, kind: str, error: str) -> None:
        """Record a question that got no answer. What the model may have spent on it is not known, and so null."""
        content = {"error": error} if self.content else {}
        self._question(question, content, error_kind=kind, latency_s=time.monotonic() - question.began)

    def feedback(self, given: Feedback) -> None:
        """Record what somebody says of an answer.

        Raises:
            EventsError: the disk does not take it.
        """
        self._record("feedback", given.model_dump())

    def close(self) -> None:
        """Write what is still in memory."""
        try:
            self._log.close()
        except EventsError as error:
            self._warned = False
            self._warn(error.message)

    def _question(self, question: Question, content: dict[str, Any], **known: Any) -> None:
        if self.content:
            content["input"] = _json(question.inputs)
        told = {"trace_id": question.trace_id, "tenant": question.tenant, "started_at": question.at}
        try:
            self._record("calls", {**self._same, **told, **content, **known})
        except Exception as error:  # whatever is odd about one row, its question has its answer
            self._lost += 1
            self._warn(error.message if isinstance(error, EventsError) else f"{type(error).__name__}: {error}")

    def _record(self, table: str, row: Mapping[str, Any]) -> None:
        try:
            self._log.record(table, row)
        except EventsError:
            self._refused = True
            raise
        if self._refused:
            # The log takes rows again only once it has written what it had.
            self._refused = self._warned = False
            print(f"recording again; {self._lost} rows were not kept", file=sys.stderr, flush=True)

    def _warn(self, wrong: str) -> None:
        """Say once that rows are not kept, until they are again."""
        if not self._warned:
            self._warned = True
            print(f"warning: what is asked is answered and not recorded: {wrong}", file=sys.stderr, flush=True)


def _json(value: Any) -> str:
    """Canonical JSON. Half a surrogate pair stays: the log replaces it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _unusable(folder: Path) -> str | None:
    """Why nothing can be written into a folder, which need not be there yet; None where it can, as far as one sees."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"
