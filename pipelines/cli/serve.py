"""``fan-identity serve``: the ARM endpoint and the GraphQL API."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ...io.errors import UsageError
from ...io.logs import configure_logging
from ...io.telemetry import start as telemetry
from .common import AsJson, MetricsPort, Store, err, out, print_json

if TYPE_CHECKING:
    from ...serving.http.development import DevelopmentIssuer
    from ...serving.settings import ServingSettings

_PREFIX: Final = "FAN_IDENTITY_"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 for any that is free.  [default: 8080]", min=0, max=65_535)
    ] = None,
    store: Store = None,
    cache: Annotated[
        str | None, typer.Option(help="The ARM cache: redis://host/0; the store where not given.", show_default=False)
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="The fan identity table: dynamodb://table; the store where not given.", show_default=False),
    ] = None,
    token_issuer: Annotated[str | None, typer.Option(help="iss of tokens.", show_default=False)] = None,
    token_audience: Annotated[str | None, typer.Option(help="aud of tokens.", show_default=False)] = None,
    token_jwks: Annotated[
        str | None, typer.Option(help="The issuer's keys, an https:// URL or a file.", show_default=False)
    ] = None,
    api_keys: Annotated[str | None, typer.Option(help="A file of hashed API keys.", show_default=False)] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=64)] = 1,
    development: Annotated[
        bool, typer.Option("--development", help="GraphiQL, introspection, and tokens made up for this run.")
    ] = False,
    fan: Annotated[
        str | None, typer.Option(help="With --development: print a token of this fan too.", show_default=False)
    ] = None,
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
) -> None:
    """Answer lookups and GraphQL over HTTP until Ctrl-C: /arm, /graphql, /console, /health, /ready, /docs and so on.

    Callers show a bearer token or an API key; docs/serving.md says how tokens are checked. With --development the
    server makes a key of its own, which ends with it, and prints a token; it then serves this machine only. Every
    other setting is in the environment: FAN_IDENTITY_ACCOUNT_INFO and so on.

    Examples:

      fan-identity serve --store sqlite:///fans.db --development

      fan-identity serve --cache rediss://cache/0 --table dynamodb://fans --token-issuer https://login.example.com
      --token-audience fan-api --host 0.0.0.0

      curl -H "Authorization: Bearer $TOKEN" localhost:8080/arm/fan-00042

      curl -H "Authorization: Bearer $TOKEN" localhost:8080/arm -d '{"globalUserIds": ["fan-00042", "fan-00043"]}'
    """
    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "store": store,
        "cache": cache,
        "table": table,
        "token_issuer": token_issuer,
        "token_audience": token_audience,
        "token_jwks": token_jwks,
        "api_keys": api_keys,
        "development": development or None,
        "metrics_port": metrics_port,
    }
    from ...serving.settings import load_serving_settings  # noqa: PLC0415 - only this command needs it

    with tempfile.TemporaryDirectory(prefix="fan-identity-") as folder:
        settings = load_serving_settings(**flags)
        issuer = _development_issuer(settings, Path(folder), fan)
        if issuer is not None:
            flags |= issuer.settings
            settings = load_serving_settings(**flags)
        elif settings.token_issuer is None and settings.api_keys is None:
            raise UsageError(
                "setting token_issuer: nobody could ask anything: name the issuer of tokens, or give --api-keys, "
                "or --development on your own machine"
            )
        configure_logging(settings.log_level, "serve", "")
        _serve(settings, flags, issuer, fan, workers, as_json)
    err.print("stopped")


def _development_issuer(settings: "ServingSettings", folder: Path, fan: str | None) -> "DevelopmentIssuer | None":
    """The issuer made up for this run, where one is wanted.

    Raises:
        UsageError: others could reach the server, or the flags do not go together.
    """
    from ...serving.http.development import DevelopmentIssuer, is_loopback  # noqa: PLC0415

    if not settings.development:
        if fan is not None:
            raise UsageError("--fan: only with --development; elsewhere tokens come from your issuer")
        return None
    if not is_loopback(settings.host):
        raise UsageError(
            f"--development: it serves this machine only, and {settings.host} is reached by others; "
            "leave --host away, or --development"
        )
    if settings.token_issuer is not None:
        if fan is not None:
            raise UsageError("--fan: tokens come from your issuer (setting token_issuer)")
        return None
    return DevelopmentIssuer.started(folder)


def _serve(
    settings: "ServingSettings",
    flags: dict[str, Any],
    issuer: "DevelopmentIssuer | None",
    fan: str | None,
    workers: int,
    as_json: bool,
) -> None:
    from ...serving.http.parts import check_parts, open_parts  # noqa: PLC0415
    from ...serving.http.server import address_of, follow_flags, listen, run, serve_in_processes  # noqa: PLC0415

    with listen(settings.host, settings.port) as listening:
        base = address_of(listening)

        def started() -> None:
            _show(base, settings, issuer, fan, as_json)

        if workers == 1:
            telemetry.start("serve", settings)
            follow_flags(settings)
            run(lambda: open_parts(settings), listening, started)
            return
        asyncio.run(check_parts(settings))
        os.environ |= {_PREFIX + name.upper(): str(value) for name, value in flags.items() if value is not None}
        serve_in_processes(workers, listening, started)


def _show(
    base: str, settings: "ServingSettings", issuer: "DevelopmentIssuer | None", fan: str | None, as_json: bool
) -> None:
    tokens: dict[str, str] = {}
    if issuer is not None:
        tokens["service"] = issuer.token_of_service()
        if settings.has_console:
            tokens["operator"] = issuer.token_of_operator()
        if fan is not None:
            tokens["fan"] = issuer.token_of_fan(fan, settings.token_user_claim)
    if as_json:
        print_json({"address": base, "development": settings.development, "tokens": tokens})
        out.file.flush()
        return
    lines = [f"Listening on {base}; Ctrl-C stops.", ""]
    lines += [f"  {name:<8} {what}" for name, what in _what_is_on(base, settings)]
    if issuer is not None:
        lines += ["", "  Development: tokens are signed by a key made for this run, and end with it (or in 12 h)."]
        lines += ["", "  A service's token, which reads any fan:", "", f"TOKEN={tokens['service']}"]
        if "operator" in tokens:
            lines += ["", "  An operator's, for the console:", "", f"OPERATOR_TOKEN={tokens['operator']}"]
        if "fan" in tokens:
            lines += ["", "  The fan's:", "", f"FAN_TOKEN={tokens['fan']}"]
        lines += ["", f'curl -H "Authorization: Bearer $TOKEN" {base}/arm/fan-00042']
    print("\n".join(lines), file=out.file, flush=True)


def _what_is_on(base: str, settings: "ServingSettings") -> list[tuple[str, str]]:
    from ...serving.http.parts import answers_graphql  # noqa: PLC0415

    fallback = "the table while the cache is away, marked stale" if settings.arm_fallback else "none"
    callers = [
        *([f"tokens of {settings.token_issuer}"] if settings.token_issuer else []),
        *(["API keys"] if settings.api_keys else []),
    ]
    return [
        ("ARM", f"{base}/arm/{{globalUserId}}  fallback: {fallback}"),
        *([("GraphQL", f"{base}/graphql"), ("fans", f"{base}/fans")] if answers_graphql(settings) else []),
        *([("console", f"{base}/console")] if settings.has_console else []),
        *([("GraphiQL", f"{base}/graphiql")] if settings.development else []),
        ("docs", f"{base}/docs"),
        ("health", f"{base}/health, {base}/ready"),
        ("callers", ", ".join(callers)),
    ]
