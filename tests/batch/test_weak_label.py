import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.batch.weak_label import (
    UserRequests,
    crawlers,
    evaluate_access_log,
    names_crawler,
    requests_by_user,
)
from fan_identity.io.access_log import activity_of, parse_line
from fan_identity.io.errors import UsageError

BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"


def line(client: str, agent: str, minute: int = 0, second: int = 0) -> bytes:
    time = f"17/May/2025:10:{minute:02d}:{second:02d} +0000"
    return f'{client} - - [{time}] "GET / HTTP/1.1" 200 5 "-" "{agent}"'.encode()


@pytest.fixture
def log(tmp_path) -> str:
    path = tmp_path / "access.log"
    path.write_bytes(
        b"\n".join(
            [
                line("10.0.0.1", BOT, 0),
                line("10.0.0.1", BOT, 10),
                line("10.0.0.2", CHROME, 0, 1),
                line("10.0.0.2", CHROME, 0, 2),
                line("10.0.0.2", CHROME, 0, 3),
                b"no line of a log",
                line("10.0.0.3", BOT, 0),
                b"",
            ]
        )
    )
    return str(path)


def test_crawlers_name_themselves():
    assert names_crawler(BOT)
    assert names_crawler("curl/8.0")
    assert not names_crawler(CHROME)
    assert not names_crawler("")


def test_users_are_labelled(log):
    assert crawlers([log]) == {"10.0.0.1|Googlebot": True, "10.0.0.2|Chrome": False, "10.0.0.3|Googlebot": True}


def test_most_requests_decide():
    assert UserRequests(3, 2, 0, 0).is_crawler
    assert not UserRequests(2, 1, 0, 0).is_crawler


def test_request_rates():
    assert UserRequests(3, 0, 0, 1_000).requests_per_minute == 3, "a minute at least"
    assert UserRequests(30, 0, 60_000, 660_000).requests_per_minute == 3


def test_report_beside_the_baselines(log):
    scores = {"10.0.0.1|Googlebot": 0.9, "10.0.0.2|Chrome": 0.5, "10.0.0.3|Googlebot": 0.4, "10.9.9.9|Chrome": 0.1}
    report = evaluate_access_log([log], scores)
    assert (report.requests, report.unreadable) == (6, 1)
    assert (report.users, report.users_without_score, report.crawlers) == (3, 0, 2)
    assert report.auc == 0.5
    assert report.auc_requests_per_minute == 0, "these crawlers are slow"
    assert report.auc_constant == 0.5
    assert report.precision_at_crawler_share == 0.5


def test_report_without_one_of_the_classes(log):
    report = evaluate_access_log([log], {"10.0.0.2|Chrome": 0.5})
    assert (report.users, report.users_without_score, report.crawlers) == (1, 2, 0)
    assert report.auc is report.auc_requests_per_minute is report.auc_constant is None
    assert report.precision_at_crawler_share is None
    assert evaluate_access_log([log], {}).users == 0


def test_missing_log(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        evaluate_access_log([str(tmp_path / "missing.log")], {})


@given(
    st.lists(
        st.builds(
            line, st.sampled_from(["a", "b"]), st.sampled_from([BOT, CHROME]), st.integers(0, 59), st.integers(0, 59)
        ),
        max_size=20,
    ),
    st.randoms(),
)
def test_the_order_of_lines_does_not_matter(lines, random):
    shuffled = list(lines)
    random.shuffle(shuffled)
    users = requests_by_user(map(parse_line, lines))
    assert users == requests_by_user(map(parse_line, shuffled))
    assert all(f'"globalUserId":"{name}"'.encode() in b"".join(map(activity_of, lines)) for name in users)
    assert sum(user.requests for user in users.values()) == len(lines)
