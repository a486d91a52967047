"""Questions of the console: given up in time, not begun for nobody, and refused where too many wait."""

import asyncio
import threading

import pytest

from fan_identity.io.errors import UnavailableError
from fan_identity.serving.console import threads
from fan_identity.serving.console.threads import Threads

PATIENCE = 60


def test_questions_given_up_are_not_asked_and_what_is_too_many_is_refused(monkeypatch):
    monkeypatch.setattr(threads, "DEADLINE_SECONDS", 0.2)
    goes_on, begun = threading.Event(), []

    def slow(number):
        begun.append(number)
        assert goes_on.wait(PATIENCE)

    async def asked():
        asking = Threads()
        answers = await asyncio.gather(*(asking.ask("t", slow, number) for number in range(40)), return_exceptions=True)
        # The threads are busy still; behind them nobody waits.
        waiting = len(asking._asked)
        goes_on.set()
        for _ in range(8):
            assert await asking.ask("t", lambda: 1) == 1
        await asking.close()
        return answers, waiting

    answers, waiting = asyncio.run(asked())
    problems = [answer.problem for answer in answers if isinstance(answer, UnavailableError)]
    assert problems.count("no answer in time") == 20
    assert problems.count("too many questions wait") == 20
    assert waiting == len(begun) == 4, "only those in a thread were ever asked"


def test_a_request_that_is_given_up_asks_nothing_any_more():
    goes_on, begun = threading.Event(), []

    async def asked():
        asking = Threads()
        busy = [asyncio.create_task(asking.ask("t", goes_on.wait, PATIENCE)) for _ in range(4)]
        late = asyncio.create_task(asking.ask("t", begun.append, 1))
        await asyncio.sleep(0)  # it is asked, and waits
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        goes_on.set()
        await asyncio.gather(*busy)
        assert await asking.ask("t", lambda: 2) == 2
        await asking.close()

    asyncio.run(asked())
    assert begun == []
