"""``/health``: the process lives. ``/ready``: everything it needs answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from ...io.errors import BackendUnavailableError, text_of

Check = Callable[[], Awaitable[object]]
"""Asks for an answer; raises where there is none."""

DEADLINE_SECONDS: Final = 1.0
"""What ``/ready`` waits for each part at most; all are asked side by side."""

_log: Final = logging.getLogger("fan_identity.http")


async def health(request: Request) -> JSONResponse:
    """Answers, which is all there is to say."""
    del request
    return JSONResponse({"status": "ok"})


Needed = Sequence[frozenset[str]]
"""Groups of parts by name: of each group one part has to answer for the lookup to be answered."""


def readiness(checks: Mapping[str, Check], needed: Needed) -> Callable[[Request], Awaitable[JSONResponse]]:
    """The endpoint ``/ready``: 200, or 503 and what is missing by its name alone; why is in the log.

    A part that only costs an answer a part of itself does not take the server out of service: it is named as
    ``degraded``, since a balancer that heeded it would take the fallback away too.

    Args:
        checks: by the part's name.
        needed: what the lookup cannot do without.
    """

    async def ready(request: Request) -> JSONResponse:
        del request
        problems = await check_all(checks)
        for name, problem in problems.items():
            if problem is not None:
                _log.warning("not ready: %s: %s", name, text_of(problem))
        missing = sorted(name for name, problem in problems.items() if problem is not None)
        if any(group <= set(missing) for group in needed):
            return JSONResponse({"status": "unavailable", "missing": missing}, status_code=503)
        return JSONResponse({"status": "ready", "checked": sorted(checks), "degraded": missing})

    return ready


async def check_all(checks: Mapping[str, Check]) -> dict[str, Exception | None]:
    """What is wrong with each part, None where nothing is."""
    problems = await asyncio.gather(*map(_problem, checks.values()))
    return dict(zip(checks, problems, strict=True))


async def _problem(check: Check) -> Exception | None:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await check()
    except TimeoutError:
        return BackendUnavailableError(f"no answer in {DEADLINE_SECONDS:.0f} s")
    except Exception as problem:  # whatever it is, the part does not work
        return problem
    return None
