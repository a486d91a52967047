"""``fan-identity`` with the hooks of telemetry taken out: what "off" is compared with.

Methods that have hooks are replaced by what they would be without, in this process, before anything runs. Whoever adds
a hook to a hot path takes it out here too.
"""

import logging
import sys
import time
from typing import Any

from ...io.telemetry import doors, message_traces


class _Sending:
    """``message_traces.Sending``, which keeps the causes alone."""

    def __init__(self, causes: Any, queue: object) -> None:
        del queue
        self.traces = list(causes)

    def failed(self, index: int, reason: str) -> None:
        del index, reason

    def __enter__(self) -> "_Sending":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _as_it_is(_: str) -> Any:
    return lambda method: method  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]


def take_out_of_doors() -> None:
    """Queues, tables and caches; before they are imported, since decorators decorate then."""
    patched: Any = doors
    patched.database_call = patched.async_database_call = patched.queue_call = _as_it_is
    sending: Any = message_traces
    sending.Sending = _Sending


def take_out_of_steps() -> None:
    """The steps of pipelines."""
    from ...transforms import batches, sources  # noqa: PLC0415 - after take_out_of_doors; likewise below

    steps: Any = batches

    def process(self: Any, element: Any) -> Any:
        try:
            done = self.step(element)
        except Exception:
            steps._give_back(element)
            raise
        yield done

    def count_of(worker: str, name: str, number: int) -> None:
        del worker
        if number:
            steps.count(name, number)

    def begin(
        worker: str, counter: str, source: str, items: Any, *, position: str = "", receipts: tuple[str, ...] = ()
    ) -> Any:
        count_of(worker, counter, len(items))
        return steps.Batch(steps.new_request_id(), source, items, position=position, receipts=receipts)

    steps.BatchStep.process = process
    patched: Any = sources
    steps.count_of = count_of
    steps.begin = patched.begin = begin


def take_out_of_calls() -> None:
    """Calls to services."""
    from ...io import caller  # noqa: PLC0415

    patched: Any = caller

    async def outcome(self: Any, item: Any) -> Any:
        return (await self._called(item))[0]

    async def ask(self: Any, call: Any) -> Any:
        async def one(_: None) -> Any:
            return await call()

        return await patched._Run(self, one, [None]).only()

    patched._Run._outcome = outcome
    patched.Caller.gather = patched.Caller._gathered
    patched.Caller.ask = ask


def take_out_of_serving() -> None:
    """The ARM endpoint's way of a request."""
    from ...serving.http import app, arm_endpoint  # noqa: PLC0415

    of_endpoint: Any = arm_endpoint
    of_app: Any = app
    log = logging.getLogger("fan_identity.http")

    async def answer(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self._rest is not None:
            path = scope["raw_path"]
            if self._arm is not None and (path.startswith(of_app._SLASH) or path == of_app.PATH):
                await self._arm(scope, receive, send)
            else:
                await self._rest(scope, receive, send)

    async def endpoint(self: Any, scope: Any, receive: Any, send: Any) -> None:
        began = time.perf_counter() if log.isEnabledFor(logging.INFO) else 0.0
        correlation = of_endpoint.correlation_id(scope["headers"])
        status = 200
        try:
            body = await self._answer(scope, receive)
        except of_endpoint.FunctionError as error:
            status = int(error.error_type)
            await of_endpoint.send_error(send, error, correlation)
        except of_endpoint.ClientGoneError:
            return
        except Exception as defect:
            status = 500
            of_endpoint.log_defect(log, defect, correlation)
            refused = of_endpoint.FunctionError("something went wrong here", "500", "INTERNAL")
            await of_endpoint.send_error(send, refused, correlation)
        else:
            await of_endpoint.send_json(send, 200, body, correlation)
        if began:
            took = round((time.perf_counter() - began) * 1_000, 3)
            of_endpoint.log_request(log, "/arm", status, took, correlation)

    of_app.Application.__call__ = answer
    of_endpoint.ArmEndpoint.__call__ = endpoint


def take_out_of_lookups() -> None:
    """The ARM lookup."""
    from ...serving import arm  # noqa: PLC0415

    of_arm: Any = arm

    async def get(self: Any, global_user_id: str) -> Any:
        try:
            entry = await self._from_cache(self._cache.get, of_arm.arm_cache_key(global_user_id))
        except of_arm._CacheAwayError:
            return await self._from_table(global_user_id)
        return None if entry is None else score_of_entry(entry, global_user_id)

    def score_of_entry(entry: bytes, global_user_id: str) -> Any:
        try:
            found = of_arm._decode(entry)
        except (of_arm.msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise of_arm.UnavailableError("arm", "the cache's entry is no ARM score of 1 to 5") from None
        if found.global_user_id is not None and found.global_user_id != global_user_id:
            raise of_arm.UnavailableError("arm", "the cache's entry is another fan's")
        scored_at = found.timestamp if type(found.timestamp) is int else None
        return of_arm.ArmScore(found.arm_risk, scored_at, of_arm._text(found.model_version))

    of_arm.ArmLookup.get = get


def main() -> None:
    """Runs the command line without hooks."""
    take_out_of_doors()
    take_out_of_calls()
    if sys.argv[1] == "serve":
        take_out_of_lookups()
        take_out_of_serving()
    else:
        take_out_of_steps()
    from ...pipelines.cli.main import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
