"""What tests make of a real Unleash server: toggles, and a proxy before it for outages."""

import json
import time
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

from fan_identity.io.last_known_flags import TOGGLE_PREFIX

UNLEASH = "127.0.0.1:14242"
TOKEN = "default:development.unleash-test-token"
TOXIPROXY = "http://127.0.0.1:18474"
PATIENCE = 60


def send(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> None:
    """Sends JSON; the answer must be a good one."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        url, data, {"Content-Type": "application/json", "User-Agent": "tests", **(headers or {})}, method=method
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE):
        pass


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, which must come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Toggle:
    """A toggle of the server.

    Args:
        share: of users, in per cent; None for no strategy.
        worker: whose; one of a name of its own where None.
        prefix: of the toggle's name, to be this test's own.
    """

    def __init__(self, share: int | None = None, *, worker: str | None = None, prefix: str = TOGGLE_PREFIX) -> None:
        self.worker = worker or f"w-{uuid.uuid4().hex}"
        self.name = prefix + self.worker
        self.path = f"/projects/default/features/{self.name}"
        self.admin("POST", "/projects/default/features", {"name": self.name, "type": "release"})
        if share is not None:
            self.add_share(share)

    def admin(self, method: str, path: str, body: Any = None) -> None:
        """Asks the admin API; returns when the server has taken it in."""
        send(method, f"http://{UNLEASH}/api/admin{path}", body, {"Authorization": "*:*.unleash-admin-token"})

    def add_share(self, share: int) -> None:
        """Strategies add up, and a user is in where one says so: a greater share replaces a smaller one."""
        parameters = {"rollout": str(share), "stickiness": "userId", "groupId": self.worker}
        self.admin(
            "POST",
            f"{self.path}/environments/development/strategies",
            {"name": "flexibleRollout", "parameters": parameters, "constraints": []},
        )

    def switch(self, state: str) -> None:
        """Switches it ``on`` or ``off``."""
        self.admin("POST", f"{self.path}/environments/development/{state}")

    def archive(self) -> None:
        """Takes it out of the server's answers."""
        self.admin("DELETE", self.path)


class Proxy:
    """A Toxiproxy proxy before Unleash."""

    def __init__(self) -> None:
        self.name = f"unleash-{uuid.uuid4().hex}"
        body = json.dumps({"name": self.name, "listen": "127.0.0.1:0", "upstream": UNLEASH}).encode()
        asked = urllib.request.Request(f"{TOXIPROXY}/proxies", body, {"User-Agent": "tests"}, method="POST")
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            self.address: str = json.load(answer)["listen"]

    def enable(self, enabled: bool) -> None:
        """Takes connections, or ends them all and refuses new ones."""
        send("POST", f"{TOXIPROXY}/proxies/{self.name}", {"enabled": enabled, "listen": self.address})

    def delete(self) -> None:
        """Ends it."""
        send("DELETE", f"{TOXIPROXY}/proxies/{self.name}")
