"""Questions that come one by one are answered together, each gets its own answer, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from tests.serving.answering import Parrot
from workbench.errors import WorkbenchError
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Request
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.serving.batches import Batches, Busy

ECHO = Pipeline(model="tiny", prompt=Prompt.from_text("{{ text }}"))


async def _asked(engine: Parrot) -> None:
    await asyncio.to_thread(engine.asked.wait, 30)


def test_what_waits_while_a_batch_is_under_way_goes_together() -> None:
    engine = Parrot()
    engine.go.clear()

    async def main() -> list[str]:
        batches = Batches(ECHO, engine, rows=4)
        first = asyncio.create_task(batches.ask({"text": "0"}))
        await _asked(engine)
        rest = [asyncio.create_task(batches.ask({"text": str(n)})) for n in range(1, 8)]
        await asyncio.sleep(0)
        engine.go.set()
        answers = await asyncio.gather(first, *rest)
        batches.close()
        return [answered.answer.value for answered in answers]

    assert asyncio.run(main()) == [str(n) for n in range(8)]
    assert engine.batches == [1, 4, 3]


def test_a_server_is_asked_several_batches_at_once() -> None:
    engine = Parrot()
    engine.go.clear()

    async def main() -> None:
        batches = Batches(ECHO, engine, at_once=3)
        tasks = []
        for n in range(3):
            engine.asked.clear()
            tasks.append(asyncio.create_task(batches.ask({"text": str(n)})))
            await _asked(engine)
        engine.go.set()
        await asyncio.gather(*tasks)
        batches.close()

    asyncio.run(main())
    assert engine.batches == [1, 1, 1]


def test_one_question_more_than_may_wait_is_turned_away_and_the_others_are_answered() -> None:
    engine = Parrot()
    engine.go.clear()

    async def main() -> list[str]:
        batches = Batches(ECHO, engine, waiting=2)
        first = asyncio.create_task(batches.ask({"text": "a"}))
        await _asked(engine)
        waiting = [asyncio.create_task(batches.ask({"text": text})) for text in "bc"]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 questions are waiting"):
            await batches.ask({"text": "d"})
        engine.go.set()
        answers = await asyncio.gather(first, *waiting)
        batches.close()
        return [answered.answer.value for answered in answers]

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_question_that_comes_just_when_a_batch_has_ended_is_answered() -> None:
    async def main() -> None:
        batches = Batches(ECHO, Parrot())
        for steps in range(400):
            await batches.ask({"text": "a"})
            for _ in range(steps % 40):
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                assert (await batches.ask({"text": "b"})).answer.value == "b"
        batches.close()

    asyncio.run(main())


def test_who_stopped_waiting_is_not_asked_for() -> None:
    engine = Parrot()
    engine.go.clear()

    async def main() -> None:
        batches = Batches(ECHO, engine)
        first = asyncio.create_task(batches.ask({"text": "a"}))
        await _asked(engine)
        gone = asyncio.create_task(batches.ask({"text": "b"}))
        await asyncio.sleep(0)
        gone.cancel()
        last = asyncio.create_task(batches.ask({"text": "c"}))
        await asyncio.sleep(0)
        engine.go.set()
        assert [(await first).answer.value, (await last).answer.value] == ["a", "c"]
        batches.close()

    asyncio.run(main())
    assert engine.batches == [1, 1]


def test_a_model_that_breaks_fails_its_batch_and_answers_the_next() -> None:
    engine = Parrot()

    async def main() -> str:
        batches = Batches(ECHO, engine)
        with pytest.raises(RuntimeError, match="broke"):
            await batches.ask({"text": "crash"})
        return str((await batches.ask({"text": "well"})).answer.value)

    assert asyncio.run(main()) == "well"


def test_a_model_that_gives_no_answer_is_an_error() -> None:
    class Silent(Parrot):
        def generate(
            self, requests: Sequence[Request], *, budget: Budget | None = None
        ) -> Iterator[tuple[int, Completion]]:
            return iter(())

    async def main() -> None:
        with pytest.raises(WorkbenchError, match="no answer"):
            await Batches(ECHO, Silent()).ask({"text": "a"})

    asyncio.run(main())
