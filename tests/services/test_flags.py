"""Flags of a real Unleash server; outages by Toxiproxy between the two."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan_identity.io.flags import TOKEN_ENV, UnleashFlags

from .unleash import TOKEN, UNLEASH, Proxy, Toggle, until

USERS = [f"fan-{number:05d}" for number in range(2_000)]


@pytest.fixture(autouse=True)
def _needs(server: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    server("unleash")
    monkeypatch.setenv(TOKEN_ENV, TOKEN)


@pytest.fixture
def flags_at() -> Iterator[Callable[..., UnleashFlags]]:
    """Makes flags, each with a client of its own."""
    made: list[UnleashFlags] = []

    def make(host: str = UNLEASH, **options: Any) -> UnleashFlags:
        # A context's environment of its own keeps clients apart; no strategy here looks at it.
        made.append(UnleashFlags.of(f"unleash+http://{host}/api?environment={uuid.uuid4().hex}", **options))
        return made[-1]

    yield make
    for flags in made:
        flags.close()


def test_a_switch_is_seen(flags_at: Callable[..., UnleashFlags]):
    toggle = Toggle(share=100)
    flags = flags_at()
    until(lambda: not flags.is_enabled(toggle.worker))
    for state in ("on", "off", "on"):
        toggle.switch(state)
        until(lambda state=state: flags.is_enabled(toggle.worker) is (state == "on"))
        assert flags.includes(toggle.worker, "fan-1"), "what was taken up ends"


@pytest.mark.parametrize("default", [True, False])
def test_an_unknown_toggle_has_the_default(flags_at: Callable[..., UnleashFlags], default: bool):
    flags = flags_at(default=default)
    assert flags.is_enabled(f"w-{uuid.uuid4().hex}") is default
    assert flags.includes(f"w-{uuid.uuid4().hex}", "fan-1"), "what was taken up ends"


INCLUDED = """
import json, sys
from fan_identity.io.flags import UnleashFlags
worker, address = sys.argv[1:]
flags = UnleashFlags.of(address, default=False)
print(json.dumps([user for user in json.load(sys.stdin) if flags.includes(worker, user)]))
flags.close()
"""


def included(worker: str, address: str) -> set[str]:
    """Those of ``USERS`` whom a process of its own includes."""
    command = [sys.executable, "-c", INCLUDED, worker, address]
    done = subprocess.run(command, input=json.dumps(USERS), capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout))


def test_a_share_is_sticky_and_grows_in_every_process(flags_at: Callable[..., UnleashFlags]):
    toggle = Toggle(share=10)
    toggle.switch("on")
    flags = flags_at(default=False)
    until(lambda: flags.is_enabled(toggle.worker))
    tenth = {user for user in USERS if flags.includes(toggle.worker, user)}
    assert 0.08 <= len(tenth) / len(USERS) <= 0.12
    address = f"unleash+http://{UNLEASH}/api"
    for _ in range(2):
        assert included(toggle.worker, address) == tenth, "the same in each process"
    toggle.add_share(50)
    until(lambda: sum(flags.includes(toggle.worker, user) for user in USERS[:200]) > 70)
    half = {user for user in USERS if flags.includes(toggle.worker, user)}
    assert 0.46 <= len(half) / len(USERS) <= 0.54
    assert tenth < half, "who was in stays in"
    toggle.switch("off")
    until(lambda: not flags.is_enabled(toggle.worker))
    assert {user for user in USERS if flags.includes(toggle.worker, user)} == half, "what was taken up of them ends"
    assert included(toggle.worker, address) == half


@pytest.mark.parametrize("user", ["", "\0", "a" * 100_000, "\ud800", 'ü😀"\n', "{}"])
def test_any_id_has_an_answer_that_stays(flags_at: Callable[..., UnleashFlags], user: str):
    toggle = Toggle(share=50)
    toggle.switch("on")
    flags = flags_at(default=False)
    until(lambda: flags.is_enabled(toggle.worker))
    assert len({flags.includes(toggle.worker, user) for _ in range(5)}) == 1


@pytest.fixture
def proxy(server: Callable[[str], None]) -> Iterator[Proxy]:
    server("toxiproxy")
    made = Proxy()
    yield made
    made.delete()


def test_an_outage_keeps_what_was_known_last(
    flags_at: Callable[..., UnleashFlags], proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    toggle = Toggle(share=100)
    flags = flags_at(proxy.address, cache_folder=tmp_path)
    until(lambda: not flags.is_enabled(toggle.worker))
    proxy.enable(False)
    toggle.switch("on")
    until(lambda: "flag server cannot be used" in caplog.text)
    assert not flags.is_enabled(toggle.worker)

    flags.close()  # as after a restart in the outage: the file knows
    assert not flags.is_enabled(toggle.worker)
    assert flags.is_enabled(f"w-{uuid.uuid4().hex}"), "and what it does not know has the default"

    proxy.enable(True)
    until(lambda: flags.is_enabled(toggle.worker))
    assert flags.includes(toggle.worker, "fan-1")


@pytest.mark.parametrize("default", [True, False])
def test_nothing_known_in_an_outage_gives_the_default(
    flags_at: Callable[..., UnleashFlags], proxy: Proxy, default: bool
):
    toggle = Toggle(share=100)
    proxy.enable(False)
    flags = flags_at(proxy.address, default=default)
    assert flags.is_enabled(toggle.worker) is default
    assert flags.includes(toggle.worker, "fan-1")
    proxy.enable(True)
    until(lambda: not flags.is_enabled(toggle.worker))


def test_a_refused_token_is_said_without_it(
    flags_at: Callable[..., UnleashFlags], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(TOKEN_ENV, "default:development.wrong")
    flags = flags_at()
    assert flags.is_enabled("scoreUsers")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("fan_identity")]
    assert len(ours) == 1
    assert "refuses the token" in ours[0] and "wrong" not in ours[0]
