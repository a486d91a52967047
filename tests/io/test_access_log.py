import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import ACTIVITY_TYPES, MalformedRecordError, decode_activity
from fan_identity.io.access_log import activity_of, agent_of, matches, page_of, parse_line, user_of

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"


def line(
    request="GET /a HTTP/1.1",
    *,
    client="10.0.0.1",
    time="17/May/2025:10:05:03 +0000",
    status="200",
    size="12",
    agent=CHROME,
    names="- -",
) -> bytes:
    return f'{client} {names} [{time}] "{request}" {status} {size} "-" "{agent}"'.encode()


def test_one_request_is_one_activity():
    text = line("GET /events/7?utm=x HTTP/1.1", status="404", client="2001:db8::1")
    activity = json.loads(activity_of(text))
    assert len(activity.pop("activityId")) == 32
    assert activity == {
        "activityType": "pageView",
        "occurredAt": 1_747_476_303_000,
        "globalUserId": "2001:db8::1|Chrome",
        "eventId": "/events/7",
        "context": {"ipAddress": "2001:db8::1"},
        "attributes": {"method": "GET", "status": 404, "bytes": 12, "outcome": "failure"},
    }
    assert decode_activity(activity_of(text)).failed
    assert user_of(parse_line(text)) == "2001:db8::1|Chrome"


def test_of_the_user_agent_only_its_family_is_there_and_only_in_the_user():
    activity = json.loads(activity_of(line(agent="Mozilla/5.0 (compatible; ExampleBot/1.0; +http://bot.example)")))
    assert activity.pop("globalUserId") == "10.0.0.1|ExampleBot"
    assert "ExampleBot" not in json.dumps(activity)
    assert "bot.example" not in json.dumps(activity)
    assert set(activity["context"]) == {"ipAddress"}


@pytest.mark.parametrize(
    "text",
    [
        b'10.0.0.1 - - [17/May/2025:10:05:03 +0000] "GET /a HTTP/1.1" 200 -',
        line(size="-"),
        line(names="- John Doe"),
        line(names="- frank"),
        line(agent='Say \\"hi\\" \\\\'),
        line() + b' 0.003 "10.1.1.1"',
        line(client="shop.example:443 10.0.0.1"),
        line(client="client.example.org"),
        line() + b" ",
        line(agent=""),
        line().replace(b"Mozilla", b"\xff\xfe"),
    ],
)
def test_variants_of_the_format(text):
    activity = json.loads(activity_of(text))
    assert activity["occurredAt"] == 1_747_476_303_000
    assert activity["context"]["ipAddress"] in ("10.0.0.1", "client.example.org")
    assert activity["eventId"] == "/a"
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b'{"activityId":"1"}',
        line()[:-1],  # torn inside the user agent
        line().replace(b"[", b"("),
        line(status="20"),
        line(size="many"),
        line(time="32/May/2025:10:05:03 +0000"),
        line(time="17/Mai/2025:10:05:03 +0000"),
        line(time="17/May/2025:24:05:03 +0000"),
        line(time="17/May/2025:10:05:03 +2500"),
        line(time="17/May/0000:10:05:03 +0000"),
    ],
)
def test_other_lines_are_errors(text):
    with pytest.raises(MalformedRecordError) as caught:
        activity_of(text)
    with pytest.raises(MalformedRecordError):
        parse_line(text)
    assert "10.0.0.1" not in str(caught.value), "errors hold no personal data"


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("01/Jan/1970:00:00:00 +0000", 0),
        ("01/Jan/1970:02:00:01 +0200", 1),
        ("31/Dec/1969:18:30:00 -0530", 0),
        ("31/Dec/2016:23:59:60 +0000", 1_483_228_800),
        ("29/Feb/2024:12:00:00 +0545", 1_709_187_300),
    ],
)
def test_times(time, seconds):
    assert parse_line(line(time=time)).time_ms == seconds * 1_000


@pytest.mark.parametrize(
    ("request_line", "activity_type", "method", "path"),
    [
        ("GET / HTTP/1.1", "pageView", "GET", "/"),
        ("GET /style.CSS?v=3 HTTP/1.1", "assetView", "GET", "/style.CSS"),
        ("GET /login/logo.png HTTP/1.1", "assetView", "GET", "/login/logo.png"),
        ("POST /login HTTP/2.0", "login", "POST", "/login"),
        ("post /en/signin?next=/cart HTTP/1.1", "login", "POST", "/en/signin"),
        ("GET /login.php HTTP/1.1", "login", "GET", "/login.php"),
        ("GET /loginless HTTP/1.1", "pageView", "GET", "/loginless"),
        ("POST /register HTTP/1.1", "signUp", "POST", "/register"),
        ("POST /api/v1/signup/ HTTP/1.1", "signUp", "POST", "/api/v1/signup/"),
        ("GET /search HTTP/1.1", "search", "GET", "/search"),
        ("GET /?q=concert HTTP/1.1", "search", "GET", "/"),
        ("GET /list?page=2&query=x HTTP/1.1", "search", "GET", "/list"),
        ("GET /list?faq=1 HTTP/1.1", "pageView", "GET", "/list"),
        ("POST /cart HTTP/1.1", "addToCart", "POST", "/cart"),
        ("POST /cart/checkout HTTP/1.1", "checkout", "POST", "/cart/checkout"),
        ("POST /order/7 HTTP/1.1", "purchase", "POST", "/order/7"),
        ("POST /purchase HTTP/1.1", "purchase", "POST", "/purchase"),
        ("GET /border HTTP/1.1", "pageView", "GET", "/border"),
        ("GET http://shop.example/a?b HTTP/1.1", "pageView", "GET", "/a"),
        ("GET http://shop.example HTTP/1.1", "pageView", "GET", "/"),
        ("OPTIONS * HTTP/1.1", "pageView", "OPTIONS", "*"),
        ("GET /with space HTTP/1.1", "pageView", "GET", "/with space"),
        ("GET /old", "pageView", "GET", "/old"),
        (r"\x16\x03\x01\x02", "pageView", None, None),
        ("-", "pageView", None, None),
        ("", "pageView", None, None),
    ],
)
def test_rules_of_requests(request_line, activity_type, method, path):
    assert page_of(request_line.encode()) == (activity_type, method, path)
    activity = json.loads(activity_of(line(request_line)))
    assert activity["activityType"] == activity_type
    assert activity_type in ACTIVITY_TYPES
    assert activity.get("eventId") == path
    assert activity["attributes"].get("method") == method


def test_long_paths_stay_distinct_and_bounded():
    paths = [page_of(f"GET /{'a' * 5_000}{end} HTTP/1.1".encode()).path for end in "xy"]
    assert len(set(paths)) == 2
    assert all(path is not None and len(path) == 200 for path in paths)


def test_users_behind_one_address_are_told_apart():
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
    users = [
        json.loads(activity_of(line(agent=agent)))["globalUserId"] for agent in (CHROME, firefox, "-", "unheard of")
    ]
    assert users == ["10.0.0.1|Chrome", "10.0.0.1|Firefox", "10.0.0.1|Other", "10.0.0.1|Other"]


def test_the_same_line_is_the_same_activity():
    assert activity_of(line()) == activity_of(line())
    assert json.loads(activity_of(line()))["activityId"] != json.loads(activity_of(line(size="13")))["activityId"]


def test_agents_are_unescaped():
    assert agent_of(parse_line(line(agent='a \\"b\\"'))) == 'a "b"'
    assert agent_of(parse_line(line(agent="-"))) == ""


@pytest.mark.parametrize(
    "text",
    [
        b" " * 1_000_000,
        b":1" * 500_000 + b" - - x",
        b"a b " * 250_000 + b"[x",
        line("GET " + "a" * 1_000_000),  # looks for the scheme of an address
        line("GET " + "/a HTTP/1.1 " * 80_000),
        line("GET " + "/login-" * 140_000),
        line('\\"' * 500_000)[:-1],
        line(agent="\\" * 500_001),
        line() + b" " * 1_000_000 + b"\n",
    ],
)
def test_hostile_lines_take_one_pass(text):
    """Were any step quadratic in a line's length, this would take minutes."""
    with suppress(MalformedRecordError):
        activity_of(text)


quoted = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=3_000).map(
    lambda text: text.replace("\\", "\\\\").replace('"', '\\"')
)


@given(quoted, quoted, st.integers(100, 599), st.integers(0, 10**15))
def test_any_request_becomes_a_valid_activity(request_line, agent, status, size):
    text = line(request_line, agent=agent, status=str(status), size=str(size))
    activity = decode_activity(activity_of(text))
    assert activity.global_user_id == user_of(parse_line(text))
    assert activity.failed == (status >= 400)
    assert activity.attributes is not None
    assert activity.attributes["bytes"] == size


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with suppress(MalformedRecordError):
        decode_activity(activity_of(b'1.2.3.4 - - [17/May/2025:10:05:03 +0000] "' + data))
