r"""A web server's access log as activities: one request, one activity.

Reads the Combined Log Format, and the Common Log Format without referrer and user agent, as Apache httpd and nginx
write them: IPv6 clients, ``-`` for no bytes, ``\"`` or ``\x22`` inside quotes, request lines that are no HTTP (a TLS
handshake on the plain port), fields appended behind the user agent, a virtual host before the client.

Who a fan is, a log does not say: the user is the client's address and the family of its browser, which tells apart
several people behind one address a little. Of the user agent nothing else is in the activity, for who declares itself
a crawler is the label that scores are held against (``batch/weak_label.py``). A crawler's family is its name, so a
model must not read user ids; an id is for telling users apart.

Source: httpd.apache.org/docs/2.4/mod/mod_log_config.html, nginx.org/en/docs/http/ngx_http_log_module.html.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache, lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from ..domain.activity import MalformedRecordError

_MAX_AGENT_BYTES = 1_024
_MAX_PAGE_CHARACTERS = 200
_MAX_CACHED_LINE = 2_048
_FAILURE_STATUS = 400
_NO_VALUE = b"-"
_encode = msgspec.json.Encoder().encode

# Possessive, so that no line takes more than one pass.
_QUOTED = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TAIL = (
    rb"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d):([0-5]\d|60) ([+-]\d{4})\] " + _QUOTED + rb" (\d{3}) (\d+|-)"
    # Common, or combined; appended fields are told from a torn user agent by what they follow.
    rb"(?: " + _QUOTED + rb" " + _QUOTED + rb"(?: .*)?)?\s*"
)
_LINE = re.compile(rb"(\S+) \S+ \S+ " + _TAIL, re.DOTALL)
# Slower, tried second: a virtual host in front, a remote user with spaces.
_UNUSUAL_LINE = re.compile(rb"(?:\S+:\d+ (?=[0-9a-fA-F.:]+ ))?(\S+) \S+ [^\[]+? " + _TAIL, re.DOTALL)
_REQUEST = re.compile(r"([A-Za-z]{1,20}) (\S.*?)(?: HTTP/[\d.]+)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/]*", re.IGNORECASE)

_STATIC = re.compile(r"\.(?:css|m?js|map|png|jpe?g|gif|ico|svg|webp|avif|bmp|woff2?|ttf|otf|eot|mp[34]|webm|ogg|wasm)$")


def _segment(*names: str) -> re.Pattern[str]:
    """Finds one of the names as a whole segment of a path: ``/login``, ``/login.php``, ``/en/login/step``."""
    return re.compile(rf"/(?:{'|'.join(names)})(?=[/.;]|$)")


_RULES = (
    ("login", _segment("login", "log-in", "signin", "sign-in")),
    ("signUp", _segment("register", "registration", "signup", "sign-up")),
    ("checkout", _segment("checkout")),
    ("addToCart", _segment("cart", "basket")),
    ("purchase", _segment("orders?", "purchases?")),
    ("search", _segment("search")),
)
_SEARCH_QUERY = re.compile(r"(?:^|[&;])(?:q|query)=")


class LogLine(NamedTuple):
    """One line of an access log.

    Attributes:
        client: the client's address or host name.
        time_ms: epoch milliseconds.
        request: the request line between the quotes.
        status: of HTTP.
        size: bytes sent.
        agent: the user agent as written, or None in the Common Log Format.
    """

    client: bytes
    time_ms: int
    request: bytes
    status: int
    size: int
    agent: bytes | None


class Page(NamedTuple):
    """What a request line asks for.

    Attributes:
        activity_type: one of ``ACTIVITY_TYPES``.
        method: HTTP method in capitals, or None where the line is no HTTP.
        path: without query, at most 200 characters (a longer one ends in its hash); None where the line is no HTTP.
    """

    activity_type: str
    method: str | None
    path: str | None


def matches(line: bytes) -> bool:
    """True where a line is of the format."""
    return (_LINE.fullmatch(line) or _UNUSUAL_LINE.fullmatch(line)) is not None


def parse_line(line: bytes) -> LogLine:
    """Splits a line into its fields.

    Args:
        line: without its newline.

    Raises:
        MalformedRecordError: it is not of the format, or its time is impossible.
    """
    client, minute, second, zone, request, status, size, _, agent = _fields(line)
    time_ms = _minute_ms(minute, zone) + 1_000 * int(second)
    return LogLine(client, time_ms, request, int(status), 0 if size == _NO_VALUE else int(size), agent)


def activity_of(line: bytes) -> bytes:
    """Makes an activity (JSON in UTF-8) of one request.

    The activity's id is a hash of the line, so that a line read twice, or from a shuffled copy of the log, is the same
    activity. Identical lines (the same client, second, request, status and agent) therefore count as one.

    Args:
        line: without its newline.

    Raises:
        MalformedRecordError: not of the format, or its time is impossible.
    """
    client, minute, second, zone, request, status, size, _, agent = _fields(line)
    # A flood of long lines must not fill the memory with cached fields.
    cached = len(line) <= _MAX_CACHED_LINE
    page_fields = _page_fields if cached else _page_fields.__wrapped__
    user_fields = _user_fields if cached else _user_fields.__wrapped__
    return b'{"activityId":"%b","occurredAt":%d,%b,%b%d}}' % (
        blake2b(line, digest_size=16).hexdigest().encode(),
        # A leap second (60) is the second after 59.
        _minute_ms(minute, zone) + 1_000 * int(second),
        user_fields(client, agent),
        page_fields(request, status),
        0 if size == _NO_VALUE else int(size),
    )


# Users and pages repeat from line to line: their fields are kept as finished JSON, which halves a line's time.


@lru_cache(maxsize=8_192)
def _user_fields(client: bytes, agent: bytes | None) -> bytes:
    address = _text(client)
    return _encode({"globalUserId": _user(address, agent), "context": {"ipAddress": address}})[1:-1]


@lru_cache(maxsize=8_192)
def _page_fields(request: bytes, status: bytes) -> bytes:
    """The fields a request line decides, up to the number of bytes sent, which differs from line to line."""
    page = page_of(request)
    fields: dict[str, object] = {"activityType": page.activity_type}
    if page.path is not None:
        fields["eventId"] = page.path
    attributes: dict[str, object] = {"status": int(status)}
    if page.method is not None:
        attributes["method"] = page.method
    if int(status) >= _FAILURE_STATUS:
        attributes["outcome"] = "failure"
    return _encode({**fields, "attributes": attributes})[1:-2] + b',"bytes":'


def _user(address: str, agent: bytes | None) -> str:
    return f"{address}|{_family((agent or _NO_VALUE)[:_MAX_AGENT_BYTES])}"


def _fields(line: bytes) -> tuple[bytes, ...]:
    match = _LINE.fullmatch(line) or _UNUSUAL_LINE.fullmatch(line)
    if match is None:
        raise MalformedRecordError("not a line of the Combined or Common Log Format")
    return match.groups()


def _text(field: bytes) -> str:
    """Bytes that are no UTF-8 stay distinct from each other."""
    return field.decode("utf-8", "backslashreplace")


def user_of(line: LogLine) -> str:
    """The user of a request, as ``globalUserId`` has it: client address, ``|``, user agent family."""
    return _user(_text(line.client), line.agent)


def agent_of(line: LogLine) -> str:
    """The user agent a request names, unescaped; "" where it names none."""
    if line.agent is None or line.agent == _NO_VALUE:
        return ""
    return _text(line.agent).replace('\\"', '"')


@lru_cache(maxsize=4_096)
def _minute_ms(minute: bytes, zone: bytes) -> int:
    """Reads ``17/May/2015:10:05`` and ``+0200`` as epoch milliseconds: one minute serves many lines."""
    month = _MONTHS.get(minute[3:6])
    hours, minutes = int(zone[1:3]), int(zone[3:])
    offset = (
        timedelta(hours=-hours, minutes=-minutes) if zone.startswith(b"-") else timedelta(hours=hours, minutes=minutes)
    )
    try:
        if month is None:
            raise ValueError
        day, year, hour = int(minute[:2]), int(minute[7:11]), int(minute[12:14])
        moment = datetime(year, month, day, hour, int(minute[15:]), tzinfo=timezone(offset))
    except ValueError:
        raise MalformedRecordError("the time is none: day, month, hour, minute or offset") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTH_NAMES = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}


def page_of(request: bytes) -> Page:
    """Reads a request line by general rules."""
    match = _REQUEST.fullmatch(_text(request))
    if match is None:
        return Page("pageView", None, None)
    path, _, query = match[2].partition("?")
    if origin := _ORIGIN.match(path):  # a proxy's request names the whole address
        path = path[origin.end() :] or "/"
    return Page(_activity_type(path.lower(), query.lower()), match[1].upper(), _bounded(path))


def _activity_type(path: str, query: str) -> str:
    if _STATIC.search(path):
        return "assetView"
    for activity_type, rule in _RULES:
        if rule.search(path):
            return activity_type
    return "search" if _SEARCH_QUERY.search(query) else "pageView"


def _bounded(path: str) -> str:
    if len(path) <= _MAX_PAGE_CHARACTERS:
        return path
    digest = blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{path[: _MAX_PAGE_CHARACTERS - len(digest) - 1]}~{digest}"


@cache
def _parse_agent() -> Callable[[str], str]:
    """The parser of user agents; its rules take a while to load, so they are loaded for the first line only."""
    from ua_parser import Domain, load_lazy_builtins  # noqa: PLC0415
    from ua_parser.regex import Resolver  # noqa: PLC0415

    resolve = Resolver(load_lazy_builtins())

    def family(agent: str) -> str:
        found = resolve(agent, Domain.USER_AGENT).user_agent
        return found.family if found else "Other"

    return family


@lru_cache(maxsize=4_096)
def _family(agent: bytes) -> str:
    return _parse_agent()(_text(agent))
