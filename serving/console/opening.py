"""From the settings to the console: its routes, what runs beside them, and what ends with the server."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import BaseRoute, Route

from ...io.audit import AuditLog
from ...io.backends import open_dead_letters, open_flags, open_operations, open_table, operations_address, scheme_of
from ...io.flag_admin import FlagAdmin
from ...io.registry import worker_named
from ..context import not_configured
from ..http.authentication import Authentication
from ..settings import ServingSettings
from .audit import Verifying, audit_route
from .commands import Commands, environment_of
from .dead_letters import DeadLetters
from .flags import FlagSwitches
from .flow import FlowSampler, flow_route
from .guard import Asked, Guard, Nothing
from .imports import Imports
from .jobs import Jobs
from .letter_numbers import Summary
from .recording import Recorder, close_unfinished
from .threads import Threads

_FRESH_SECONDS: Final = {"sqlite": 5.0, "dynamodb": 300.0}
"""Between two counts of dead letters: SQLite counts an index, DynamoDB is paid for reading every letter."""

Closer = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Console:
    """The open console.

    Attributes:
        routes: of its API.
        closers: what is run when the server ends, the last first.
    """

    routes: list[BaseRoute]
    closers: list[Closer]


def open_console(settings: ServingSettings, authentication: Authentication) -> Console:
    """The console of the settings, on the running event loop.

    Raises:
        UsageError: an address is wrong, or the audit log's key is too short.
    """
    address = operations_address(settings)
    operations, audit = open_operations(address), AuditLog.of(address)
    threads, guard, jobs = Threads(), Guard(authentication), Jobs(operations)
    recorder = Recorder(audit, threads)
    commands = Commands(jobs, recorder, threads, address, environment_of(settings))
    verifying = Verifying(audit, lambda: close_unfinished(audit, jobs, operations), threads)
    sampler = FlowSampler.of(settings)
    flags = open_flags(settings.flags, settings.flags_default, settings.flags_folder)
    routes: list[BaseRoute] = [
        guard.read("/me", _me, Nothing),
        flow_route(guard, sampler),
        audit_route(guard, audit, verifying, threads),
        *commands.routes(guard),
        *FlagSwitches(flags, FlagAdmin.of(flags), threads, recorder).routes(guard),
    ]
    closers: list[Closer] = [threads.close, sampler.close, verifying.close]
    letters_at = settings.dead_letters or settings.store
    if letters_at is None:
        routes += _absent(guard, "/dead-letters", "dead letters", "dead_letters")
    else:
        letters = open_dead_letters(letters_at)
        summary = Summary(letters, threads, _FRESH_SECONDS[scheme_of(letters_at)])
        routes += DeadLetters(letters, summary, threads, recorder, commands).routes(guard)
        summary.start(count=scheme_of(letters_at) == "sqlite")
        closers.append(summary.close)
    table_at = settings.table or settings.store
    if table_at is None:
        routes += _absent(guard, "/imports", "imports", "table")
    else:
        table = open_table(table_at, "table", worker_named("scoreUsers").table_name)
        routes += Imports(table, threads, commands).routes(guard)
    sampler.start()
    verifying.start()
    return Console(routes, closers)


async def _me(asked: Asked, nothing: Nothing) -> dict[str, Any]:
    del nothing
    return {"subject": asked.identity.subject, "mayAct": asked.identity.acts_in_console}


def _absent(guard: Guard, path: str, what: str, setting: str) -> list[Route]:
    """Routes that say what has no address here."""

    async def absent(asked: Asked, parameters: Any) -> Any:
        del asked, parameters
        raise not_configured(what, setting)

    return [guard.read(path, absent, Nothing), guard.read(f"{path}/summary", absent, Nothing)]
