"""How services behind HTTP, and files in their place, are asked whether they are there; nobody is scored."""

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .addresses import parse_address
from .errors import BackendUnavailableError, UsageError
from .one_request import answered_status
from .probe_calls import Question

_REFUSED: Final = (401, 403)
_SERVER_ERROR: Final = 500
_THROTTLED: Final = 429
_OK: Final = range(200, 300)


def ask_model_file(text: str, setting: str) -> Question:
    """Reads the scorecard."""
    from .backends import open_model  # noqa: PLC0415

    del setting

    def ask(seconds: float) -> None:
        del seconds
        open_model(text)

    return ask


def ask_http(text: str, setting: str, service: str, *, options: frozenset[str] = frozenset()) -> Question:
    """GETs the address, or the path of its option ``health`` on that host.

    With ``health`` the answer has to be 2xx. Without, any answer counts but 429 and 5xx: a service that says 404 to its
    bare address is there, and whether a token is good, only a real call shows.

    Args:
        text: the address.
        setting: where it came from.
        service: its name; names the token's environment variable, as ``JsonApi`` has it.
        options: known besides ``HTTP_OPTIONS``.

    Raises:
        UsageError: as ``JsonApi.of``; or ``health`` is no path.
    """
    from .http_json import JsonApi  # noqa: PLC0415

    api = JsonApi.of(text, setting, service, options=options)
    health = parse_address(text, setting).options.get("health")
    if health is not None and not health.startswith("/"):
        raise UsageError(f"--{setting}: option health is a path on that host, such as health=/health")
    parts = urlsplit(api.url)
    url = api.url if health is None else f"{parts.scheme}://{parts.netloc}{health}"
    shown = f"--{setting}: {parts.scheme}://{parts.netloc}{parts.path}"

    def ask(seconds: float) -> None:
        token = api.token()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        status = _asked(url, seconds, headers, shown)
        bad = status not in _OK if health is not None else status >= _SERVER_ERROR or status == _THROTTLED
        if bad:
            raise BackendUnavailableError(f"{shown} answers {status}")

    return ask


def ask_unleash(text: str, setting: str) -> Question:
    """Asks for the flags as workers do, with their token; the answer's body is not read."""
    from .flags import TOKEN_ENV, UnleashFlags  # noqa: PLC0415

    url = UnleashFlags.of(text, setting).url

    def ask(seconds: float) -> None:
        headers = {"Authorization": os.environ.get(TOKEN_ENV, "").strip()}
        status = _asked(f"{url}/client/features", seconds, headers, f"--{setting}: {url}")
        if status in _REFUSED:
            raise UsageError(f"--{setting}: {url} refuses the token of {TOKEN_ENV} ({status})")
        if status not in _OK:
            raise BackendUnavailableError(f"--{setting}: {url} answers {status}")

    return ask


def ask_key_set(text: str, setting: str) -> Question:
    """Asks for the keys that tokens are verified with."""
    shown = f"--{setting}: {text}"
    if urlsplit(text).scheme not in ("http", "https"):
        return lambda seconds: _need_file(Path(text.removeprefix("file://")), shown)

    def ask(seconds: float) -> None:
        status = _asked(text, seconds, {}, shown)
        if status not in _OK:
            raise BackendUnavailableError(f"{shown} answers {status}")

    return ask


def _need_file(path: Path, shown: str) -> None:
    if not path.is_file():
        raise BackendUnavailableError(f"{shown} is no file")


def _asked(url: str, seconds: float, headers: dict[str, str], shown: str) -> int:
    try:
        return answered_status(url, seconds, headers={"User-Agent": "fan-identity checkLiveness", **headers})
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"{shown} {error}") from None
    except UsageError as error:
        raise UsageError(f"{shown} {error}") from None
