"""``fan-identity sandbox``: the services around a run, on this machine, with faults on demand."""

import asyncio
import sys
from functools import partial
from typing import Annotated, Final

import typer

from ...serving.sandbox.faults import API_SERVICES
from .common import AsJson, err, print_json

DEFAULT_PORT: Final = 8080
_BATCH: Final = 64


def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65_535)] = (
        DEFAULT_PORT
    ),
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine's own by default.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Of the made-up users and of faults that strike a share of calls.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Serve made-up services until Ctrl-C: what the workers ask (Accounts, Identity, model) and what the API asks.

    Every user id has a made-up profile, the same at every call; ids that begin with "unknown-" are unknown. The model
    is the one in the package. Faults are set while it runs, by HTTP.

    Examples:

      fan-identity sandbox --port 8080

      curl -X PUT localhost:8080/faults -d '{"model": {"status": 503, "rate": 0.3}}'

      curl -X PUT localhost:8080/faults -d '{"model": {"body": "nan", "users": ["fan-1"]}, "accounts": {"hang": true}}'

      curl -X DELETE localhost:8080/faults

      curl localhost:8080/calls
    """
    from ...serving.sandbox.server import serve_until_signal  # noqa: PLC0415 - aiohttp's server, for this command only

    asyncio.run(serve_until_signal(host, port, seed, partial(_show, as_json)))
    err.print("stopped")


def addresses(base: str) -> dict[str, str]:
    """The sandbox's addresses, by what they are of."""
    return {
        "model": f"{base}/model/score?batch={_BATCH}",
        "accounts": f"{base}/accounts",
        "identity": f"{base}/identity",
        **{name: f"{base}/{name.replace('_', '-')}" for name in API_SERVICES},
        "faults": f"{base}/faults",
        "calls": f"{base}/calls",
    }


def _show(as_json: bool, base: str) -> None:
    named = addresses(base)
    if as_json:
        print_json(named)
    else:
        lines = [
            f"Listening on {base}; Ctrl-C stops.",
            "",
            *(f"  --{name:<9} '{named[name]}'" for name in ("model", "accounts", "identity")),
            "",
            *(f"  export FAN_IDENTITY_{name.upper()}={named[name]}" for name in API_SERVICES),
            "",
            f'  faults      curl -X PUT {named["faults"]} -d \'{{"model": {{"status": 503, "rate": 0.3}}}}\'',
            f"  calls       curl {named['calls']}",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
