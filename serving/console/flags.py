"""The console's flags: what is known of each worker's toggle, and switching one."""

from typing import Any, Final, Literal

import msgspec
from starlette.routing import Route

from ...domain.audit import Outcome
from ...io.errors import UnavailableError
from ...io.flag_admin import FlagAdmin
from ...io.flags import Flags, UnleashFlags
from ...io.registry import WORKERS
from ..context import FunctionError
from .guard import Asked, Guard, Nothing, bad_input, not_found
from .recording import Recorder
from .threads import Threads

_PART: Final = "flags"


class Switch(msgspec.Struct, forbid_unknown_fields=True):
    """A worker's toggle, and how it shall be."""

    worker: str
    enabled: bool


class FlagSwitches:
    """The routes of flags.

    Args:
        flags: of the workers.
        admin: switches them; None where there is no token for that.
        threads: where the flags are asked: the first question waits for the server.
        recorder: of switching.
    """

    def __init__(self, flags: Flags, admin: FlagAdmin | None, threads: Threads, recorder: Recorder) -> None:
        self._flags = flags
        self._admin = admin
        self._threads = threads
        self._recorder = recorder

    def routes(self, guard: Guard) -> list[Route]:
        """The routes."""
        return [guard.read("/flags", self._all, Nothing), guard.act("/flags/{worker}", self._switch, Switch)]

    async def _all(self, asked: Asked, nothing: Nothing) -> dict[str, Any]:
        del asked, nothing
        return {
            "server": isinstance(self._flags, UnleashFlags),
            "canToggle": self._admin is not None,
            "flags": await self._threads.ask(_PART, self._known),
        }

    def _known(self) -> list[dict[str, Any]]:
        flags = self._flags
        shown: list[dict[str, Any]] = []
        for worker in WORKERS:
            known = flags.known(worker) if isinstance(flags, UnleashFlags) else None
            enabled, everyone = known or (flags.is_enabled(worker), None)
            toggle = flags.prefix + worker if isinstance(flags, UnleashFlags) else ""
            # For everyone: yes, or no where it depends on the user; of what is off nobody asks.
            shared = None if known is None else everyone is True or not enabled
            one = {"worker": worker, "toggle": toggle, "known": known is not None}
            shown.append({**one, "enabled": enabled, "everyone": shared})
        return shown

    async def _switch(self, asked: Asked, switch: Switch) -> dict[str, Any]:
        if switch.worker not in WORKERS:
            raise bad_input("worker: there is none of that name")
        if self._admin is None or not isinstance(self._flags, UnleashFlags):
            raise FunctionError(
                "flags cannot be switched here (setting flags, FAN_IDENTITY_UNLEASH_ADMIN_TOKEN)",
                "501",
                "NOT_CONFIGURED",
            )
        state: Literal["on", "off"] = "on" if switch.enabled else "off"
        begun = await self._recorder.begin(asked, "flags.switch", switch.worker, {"to": state})
        try:
            there = await self._admin.switch(
                self._flags.prefix + switch.worker, enabled=switch.enabled, correlation_id=asked.request_id
            )
        except UnavailableError:
            await self._recorder.end(begun, Outcome.UNKNOWN, {"to": state, "problem": "no answer that says whether"})
            raise
        except BaseException:
            await self._recorder.end(begun, Outcome.UNKNOWN, {"to": state})
            raise
        await self._recorder.end(begun, Outcome.DONE if there else Outcome.FAILED, {"to": state})
        if not there:
            raise not_found("toggle on the flag server")
        return {"worker": switch.worker, "enabled": switch.enabled}
