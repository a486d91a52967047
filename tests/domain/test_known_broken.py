"""What is known to be broken, by the versions of an installation; docs/health.md shows the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.known_broken import BROKEN, broken, version_of

DOCS = Path(__file__).parents[2] / "docs" / "health.md"
GOOD = {
    "python": "3.11.9",
    "sqlite": "3.51.3",
    "apache-beam": "2.77.0",
    "pyjwt": "2.15.1",
    "redis": "8.1.0",
    "redis server": "7.0.15",
    "runner": "DirectRunner FlinkRunner",
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"python": "3.10.14"}, ["Python < 3.11"]),
        ({"sqlite": "3.34.1"}, ["SQLite < 3.35", "SQLite 3.7 to 3.51.2, but for 3.44.6 and 3.50.7"]),
        ({"apache-beam": "2.75.0"}, ["Apache Beam < 2.76"]),
        ({"apache-beam": "2.76.0rc1"}, []),
        ({"pyjwt": "2.12.1"}, ["PyJWT < 2.13"]),
        ({"redis": "4.5.4"}, ["redis-py < 4.5.5"]),
        ({"redis server": "5.0.7"}, ["Redis server < 6"]),
        ({"runner": "DirectRunner PrismRunner"}, ["PrismRunner, any version, as a service"]),
    ],
)
def test_what_applies_is_told_and_nothing_else(facts, expected):
    assert [one.what for one in broken(GOOD | facts)] == expected


def test_the_wal_race_is_in_every_sqlite_but_those_mended():
    def races(sqlite: str) -> bool:
        return any("WAL-reset" in one.problem for one in broken({"sqlite": sqlite}))

    assert all(map(races, ("3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.0", "3.51.2")))
    assert not any(map(races, ("3.44.6", "3.44.9", "3.50.7", "3.51.3", "3.53.0", "4.0.0")))


@given(st.text(max_size=20))
def test_any_text_has_a_version(text):
    assert all(number >= 0 for number in version_of(text))


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(["", "rc1", ".dev0", "+local"]))
def test_a_version_is_its_leading_numbers(numbers, suffix):
    assert version_of(".".join(map(str, numbers)) + suffix)[: len(numbers)] == tuple(numbers)


def test_each_says_what_helps_and_where_it_is_written():
    for one in BROKEN:
        assert one.problem and one.remedy and one.source, one
        for part in one.source.split("; "):
            if part.startswith("docs/") or part == "setup.py":
                assert (DOCS.parents[1] / part).exists(), part


def test_the_page_on_health_shows_the_same_table():
    text = DOCS.read_text(encoding="utf-8")
    for one in BROKEN:
        assert f"| {one.what} | {one.problem} | {one.remedy} | {one.source} |" in text
