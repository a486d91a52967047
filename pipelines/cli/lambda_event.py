"""``fan-identity lambda``: one captured AWS event, answered as the Lambda would."""

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

    Events of Kinesis, SQS, Kafka, DynamoDB and EventBridge. The Lambda itself is
    fan_identity.serving.lambda_handler.handler, its worker named by APP_NAME, its settings the same environment.

    Examples:

      fan-identity lambda enqueueFromStream event.json --store sqlite:///fans.db

      fan-identity lambda scoreUsers - --store sqlite:///fans.db < event.json
    """
    from ...serving.lambda_handler import answer  # noqa: PLC0415 - only this command needs it

    chosen = worker_named(worker)
    text = sys.stdin.buffer.read() if event == "-" else _read(event)
    try:
        captured: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{event}: not JSON: {error}") from None
    if not isinstance(captured, dict):
        raise UsageError(f"{event}: an event is a JSON object")
    print_json(answer(captured, None, chosen, load_settings(store=store)))  # pyright: ignore[reportUnknownArgumentType]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
