"""Questions that come one by one, answered in the batches that a model is fast at."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from workbench.errors import WorkbenchError
from workbench.models.engine import Engine
from workbench.pipeline.pipeline import Answer, Pipeline


class Busy(Exception):
    """More questions wait than the server takes."""


class Answered(NamedTuple):
    """An answer, and the seconds for which its question waited until its batch began."""

    answer: Answer
    waited_s: float


@dataclass(frozen=True)
class _Question:
    inputs: Mapping[str, Any]
    seed_key: str
    asked: float
    answer: asyncio.Future[Answered]


class Batches:
    """Asks a pipeline from an event loop. What waits when a batch begins goes together; nothing waits for company.

    Args:
        rows: most questions in one batch.
        at_once: batches under way at once: one for a model in this process, more for a server that is waited for.
        waiting: most questions that may wait.
    """

    def __init__(
        self, pipeline: Pipeline, engine: Engine, *, rows: int = 32, at_once: int = 1, waiting: int = 256
    ) -> None:
        self.pipeline = pipeline
        self.engine = engine
        self.rows = rows
        self.at_once = at_once
        self.waiting = waiting
        self._queue: deque[_Question] = deque()
        self._working = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="answer")

    async def ask(self, inputs: Mapping[str, Any], *, seed_key: str = "0") -> Answered:
        """The answer to one question.

        Raises:
            Busy: too many questions wait.
            WorkbenchError: the model cannot be asked at all; or whatever the engine raised.
        """
        if len(self._queue) >= self.waiting:
            raise Busy(f"{len(self._queue)} questions are waiting; ask again in a moment")
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._queue.append(_Question(inputs, seed_key, time.monotonic(), answer))
        # A task that has found the queue empty is done only a moment later, and takes nothing more.
        if self._working < self.at_once:
            self._working += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    def close(self) -> None:
        """Stop; what is under way ends first."""
        self._threads.shutdown(wait=True)

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._answer, batch, asyncio.get_running_loop()
                )
        finally:
            self._working -= 1

    def _take(self) -> list[_Question]:
        batch: list[_Question] = []
        while self._queue and len(batch) < self.rows:
            question = self._queue.popleft()
            # Somebody who stopped waiting is not asked for.
            if not question.answer.done():
                batch.append(question)
        return batch

    def _answer(self, batch: list[_Question], loop: asyncio.AbstractEventLoop) -> None:
        began = time.monotonic()
        try:
            rows, keys = [question.inputs for question in batch], [question.seed_key for question in batch]
            for index, answer in self.pipeline.answers(self.engine, rows, seed_keys=keys):
                question = batch[index]
                loop.call_soon_threadsafe(_give, question.answer, Answered(answer, began - question.asked))
            missing: Exception = WorkbenchError("the model gave no answer")
        except Exception as error:  # whatever a model library raises, nobody may be left waiting
            missing = error
        for question in batch:
            loop.call_soon_threadsafe(_fail, question.answer, missing)


def _give(future: asyncio.Future[Answered], answer: Answered) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Answered], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
