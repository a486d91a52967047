"""This process's view of an Unleash server: asked every ``refresh_seconds`` in the background, answered from memory.

Strategies are evaluated by Unleash's own engine, so that a share of users is the one every SDK sees.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from yggdrasil_engine.engine import UnleashEngine

from .event_loop import run_in_background
from .flag_server import DEADLINE_SECONDS, FlagServer, FlagServerError
from .last_known_flags import LastKnownFlags, NotFlagsError
from .log_limits import Seldom
from .logs import Reason, set_debug

if TYPE_CHECKING:
    from .flags import UnleashFlags

DEBUG: Final = "debug"
"""The toggle ``fan-identity.debug``: switched on, every process that looks at flags logs at debug level."""

_USE_SECONDS: Final = 60.0
_WARN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class FlagClient:
    """Answers from the last known flags, and keeps looking for newer ones until it is closed.

    Args:
        flags: which server, how often, and what holds where nothing is known.
        token: of the server.
    """

    def __init__(self, flags: "UnleashFlags", token: str) -> None:
        logging.getLogger("yggdrasil_engine").propagate = False  # would tell tracebacks with users in them
        self._flags = flags
        self._engine = _new_engine()
        self._known = LastKnownFlags(_cache_file(flags, token), flags.prefix, self._adopt)
        self._warn = Seldom(_WARN_SECONDS)
        self._failing = False
        self._looked_at = 0.0
        self._set_debug()
        self._server, self._following = run_in_background(self._start(token))

    def is_enabled(self, toggle: str) -> bool:
        """Whether a toggle is switched on; the default where it is not known."""
        enabled = self._known.enabled.get(toggle)
        if enabled is None:
            return self._flags.default
        self._engine.count_toggle(toggle, enabled)  # the server shows which toggles are in use
        return enabled

    def includes(self, toggle: str, global_user_id: str) -> bool:
        """Whether a user is in its share; everyone is in that of a toggle that is not known.

        The default is for ``is_enabled``: what was taken up, while the server knew the toggle, is not dropped for it.
        Asks the engine only where the answer depends on the user: it takes 0.2 ms.
        """
        answer = self._known.for_everyone.get(toggle, True)
        if answer is not None:
            return answer
        # A lone surrogate, which is no text, could not be handed over.
        user = global_user_id.encode(errors="replace").decode()
        return bool(self._engine.is_enabled(toggle, {"userId": user}).is_enabled)

    def known(self, toggle: str) -> tuple[bool, bool | None] | None:
        """Whether a toggle is switched on, and its answer for everyone (None: it depends); None where not known."""
        enabled = self._known.enabled.get(toggle)
        return None if enabled is None else (enabled, self._known.for_everyone.get(toggle))

    def look(self) -> None:
        """Asks the server, unless the last look is less than ``refresh_seconds`` ago; waits a second at most."""
        # The clock on the wall: the other one may stand still while Lambda freezes the process.
        if time.time() - self._looked_at >= self._flags.refresh_seconds:
            run_in_background(self._look(_LOOK_SECONDS))

    def close(self) -> None:
        """Ends looking."""
        run_in_background(self._stop())

    async def _start(self, token: str) -> tuple[FlagServer, "asyncio.Task[None]"]:
        self._server = FlagServer(self._flags.url, token)
        await self._look(DEADLINE_SECONDS)  # before the first answer
        return self._server, asyncio.create_task(self._follow())

    async def _stop(self) -> None:
        self._following.cancel()
        await self._tell_use()
        await self._server.close()

    async def _follow(self) -> None:
        await self._server.register(_USE_SECONDS)
        told_at = time.monotonic()
        while True:
            await asyncio.sleep(self._flags.refresh_seconds)
            await self._look(DEADLINE_SECONDS)
            if time.monotonic() - told_at >= _USE_SECONDS:
                told_at = time.monotonic()
                await self._tell_use()

    async def _look(self, seconds: float) -> None:
        self._looked_at = time.time()
        try:
            told = await self._server.flags(seconds)
            if told is not None:
                self._known.take(told)
                self._server.accepted()
                self._set_debug()
        except Exception as error:  # whatever it is, the next look has to come
            self._failing = True
            if self._warn.due():
                ours = isinstance(error, FlagServerError | NotFlagsError)
                problem = str(error) if ours else type(error).__name__
                _log.warning("the flag server cannot be used: %s; the last known flags hold", problem)
            return
        if self._failing:
            self._failing = False
            _log.info("the flag server answers again")

    def _adopt(self, shares: str, names: Set[str]) -> None:
        # Tried on another engine first: one that raises has the new state, one that refuses says nothing and keeps the
        # old, and only this one counts what was asked.
        trial = _new_engine()
        for engine in (trial, self._engine):
            engine.take_state(shares)
            if names != {toggle.name for toggle in engine.list_known_toggles()}:
                raise ValueError("refused")

    def _set_debug(self) -> None:
        set_debug(Reason.FLAG, on=self._known.enabled.get(self._flags.prefix + DEBUG, False))

    async def _tell_use(self) -> None:
        bucket = self._engine.get_metrics()
        if bucket:
            await self._server.tell_use(bucket)


def _new_engine() -> Any:
    make: Any = UnleashEngine  # without types
    return make()


def _cache_file(flags: "UnleashFlags", token: str) -> Path | None:
    if flags.cache_folder is None:
        return None
    # Another token may show another environment's flags.
    digest = hashlib.sha256("\0".join((flags.url, flags.environment, token)).encode()).hexdigest()
    return Path(flags.cache_folder) / f"flags-{digest[:16]}.json"
