"""``fan-identity lambda``: one captured AWS event, answered as the Lambda would."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ...io.errors import UsageError
from ...io.registry import worker_named
from ...io.settings import load_settings
from .common import Store, print_json


def answer_event(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker that answers.")],
    event: Annotated[str, typer.Argument(metavar="EVENT.json", help="The event; - for standard input.")],
    store: Store = None,
) -> None:
    """Answer one captured AWS event as the Lambda would, JSON on standard output.

    Events of Kinesis, SQS, Kafka, DynamoDB and EventBridge; for getArmScore, validateToken and resolveField those of
    AppSync, one or a list (BatchInvoke). The Lambda itself is fan_identity.serving.lambda_entry.handler, its worker
    named by APP_NAME, its settings the same environment. An error that AppSync shows is an answer too:
    {"errorMessage", "errorType"}.

    Examples:

      fan-identity lambda enqueueFromStream event.json --store sqlite:///fans.db

      fan-identity lambda scoreUsers - --store sqlite:///fans.db < event.json

      fan-identity lambda getArmScore event.json --store sqlite:///fans.db
    """
    from ...serving.resolver_handlers import HANDLERS  # noqa: PLC0415

    if worker in HANDLERS:
        _answer_appsync(worker, _captured(event), store)
        return
    from ...serving.lambda_handler import answer  # noqa: PLC0415 - only this command needs it

    chosen = worker_named(worker)
    captured = _captured(event)
    if not isinstance(captured, dict):
        raise UsageError(f"{event}: an event is a JSON object")
    print_json(answer(captured, None, chosen, load_settings(store=store)))  # pyright: ignore[reportUnknownArgumentType]


def _answer_appsync(worker: str, event: Any, store: str | None) -> None:
    from ...serving.context import FunctionError  # noqa: PLC0415
    from ...serving.resolver_handlers import handler_named  # noqa: PLC0415

    if store is not None:
        os.environ["FAN_IDENTITY_STORE"] = store  # the handlers read their settings where a Lambda has them
    handler = handler_named(worker)
    if handler is None:
        raise UsageError(f"there is no worker {worker!r}")
    try:
        print_json(handler(event, None))
    except FunctionError as error:
        print_json({"errorMessage": error.message, "errorType": error.error_type})


def _captured(event: str) -> Any:
    text = sys.stdin.buffer.read() if event == "-" else _read(event)
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{event}: not JSON: {error}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
