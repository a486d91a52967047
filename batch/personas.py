"""How fans and bots behave around an on-sale: the personas of the simulator.

A persona is a function that writes a user's actions onto a ``Track``. The behaviours are made up from what is
publicly described of ticket sales and of bots (OWASP Automated Threats: scalping OAT-005, credential stuffing
OAT-008, scraping OAT-011, vulnerability scanning OAT-014); no record of a real person went into them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE


class Action(NamedTuple):
    """One thing a user did.

    Attributes:
        time_ms: epoch milliseconds.
        kind: an activity type.
        event_id: or None.
        address: IP address.
        device: device id, or None where the client sent none.
        failed: True for a failed login, payment or request.
    """

    time_ms: int
    kind: str
    event_id: str | None
    address: str
    device: str | None
    failed: bool


@dataclass(frozen=True)
class Sale:
    """What personas know of the sale. Times are epoch milliseconds.

    Attributes:
        start_ms: the first activities.
        opens_ms: when tickets go on sale.
        end_ms: the last activities.
        headline: the event everybody wants.
        events: all events on the site, the headline among them.
    """

    start_ms: int
    opens_ms: int
    end_ms: int
    headline: str
    events: tuple[str, ...]


@dataclass(slots=True)
class Track:
    """A user's actions in the making; ``now`` is the user's clock in epoch milliseconds.

    Attributes:
        rng: the user's randomness.
        sale: what is sold.
        addresses: the user's network addresses; the first is in use until ``move``.
        devices: the user's device ids; likewise.
        assets_a_page: how many images and scripts the user's client loads with a page, at most.
        now: see above.
        actions: in the order written, which need not be time order.
    """

    rng: random.Random
    sale: Sale
    addresses: list[str]
    devices: list[str | None]
    assets_a_page: int = 0
    now: float = 0.0
    address: str = ""
    device: str | None = None
    actions: list[Action] = field(default_factory=list[Action])

    def __post_init__(self) -> None:
        self.address = self.addresses[0]
        self.device = self.devices[0]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def move(self) -> None:
        """Goes on from another of the user's addresses and devices."""
        self.address = self.rng.choice(self.addresses)
        self.device = self.rng.choice(self.devices)

    def think(self, median_s: float, sigma: float = 0.9) -> None:
        """Lets a human pause pass: log-normal around a median in seconds."""
        self.now += median_s * SECOND * self.rng.lognormvariate(0.0, sigma)

    def tick(self, period_s: float, jitter: float) -> None:
        """Lets a programmed pause pass: a period in seconds, give or take a uniform share of it."""
        self.now += period_s * SECOND * (1 + self.rng.uniform(-jitter, jitter))

    def do(self, kind: str, event_id: str | None = None, *, failed: bool = False) -> None:
        """Writes an action, now."""
        self.actions.append(Action(int(self.now), kind, event_id, self.address, self.device, failed))

    def page(self, kind: str = "pageView", event_id: str | None = None) -> None:
        """Opens a page; a browser then loads what is on it, less what it has cached."""
        failed = self.chance(0.006)  # broken links and time-outs happen to everybody
        self.do(kind, event_id, failed=failed)
        if self.assets_a_page and self.chance(0.5):
            loaded = self.now
            for _ in range(self.rng.randint(1, self.assets_a_page)):
                self.now += self.rng.expovariate(1 / 90)
                self.do("assetView", event_id)
            self.now = loaded

    def log_in(self, typo: float = 0.08) -> None:
        """Logs in, mistyping the password with the given probability each time."""
        while self.chance(typo):
            self.do("login", failed=True)
            self.think(7, 0.5)
        self.do("login")

    def some_event(self) -> str:
        """The headline, or now and then another event."""
        return self.sale.headline if self.chance(0.7) else self.rng.choice(self.sale.events)

    def buy(self, event_id: str, *, decline: float = 0.1) -> None:
        """Goes through cart, checkout and purchase at a person's pace; payments fail with the given probability."""
        self.think(9, 0.6)
        self.do("addToCart", event_id)
        if self.chance(0.15):
            return
        self.think(14, 0.6)
        self.do("checkout", event_id)
        self.think(25, 0.6)
        while self.chance(decline):
            self.do("purchase", event_id, failed=True)
            self.think(20, 0.5)
        self.do("purchase", event_id)


Persona = Callable[[Track], None]


def _browse(track: Track, pages: int, median_s: float = 14) -> None:
    for _ in range(pages):
        kind = track.rng.choices(("pageView", "eventView", "search"), (3, 4, 2))[0]
        track.page(kind, track.some_event() if kind == "eventView" else None)
        track.think(median_s, 1.0)


def _daytime(track: Track) -> float:
    """A moment of the sale people are awake at: most are near its opening or in the evening."""
    sale, rng = track.sale, track.rng
    if track.chance(0.5):
        return max(sale.start_ms, rng.gauss(sale.opens_ms, 40 * MINUTE))
    return rng.triangular(sale.start_ms, min(sale.end_ms, sale.start_ms + 14 * HOUR))


def casual_browser(track: Track) -> None:
    """Looks around once or twice; some do not even log in, few buy."""
    for _ in range(track.rng.choices((1, 2, 3), (6, 3, 1))[0]):
        track.now = _daytime(track)
        track.move()
        if track.chance(0.35):
            track.log_in()
            track.think(5)
        _browse(track, track.rng.choices((1, 2, 3, 4, 6), (4, 4, 3, 2, 1))[0])
        if track.chance(0.06):
            track.buy(track.some_event())


def eager_fan(track: Track) -> None:
    """Logs in before the sale opens, queues, refreshes, and tries to buy."""
    rng, sale = track.rng, track.sale
    track.now = max(sale.start_ms, sale.opens_ms - rng.expovariate(1 / (9 * MINUTE)))
    track.log_in()
    track.think(6)
    track.page("eventView", sale.headline)
    # A patient fan waits for the queue to open; an impatient one keeps pressing reload.
    patience = rng.lognormvariate(3.2, 0.8)
    for _ in range(rng.randint(0, 6)):
        track.think(patience, 0.7)
        track.page("pageView", sale.headline)
    track.now = max(track.now, sale.opens_ms + rng.expovariate(1 / (5 * SECOND)))
    track.do("queueJoin", sale.headline)
    for _ in range(rng.randint(0, 2)):
        track.think(patience * 1.5, 0.7)
        track.page("pageView", sale.headline)
    if track.chance(0.45):
        track.think(30, 0.6)
        track.page("eventView", sale.headline)
        track.buy(sale.headline)


def planner(track: Track) -> None:
    """Registers, follows the steps of the sale's journey, comes back to buy."""
    rng, sale = track.rng, track.sale
    track.now = sale.start_ms + rng.random() * 50 * MINUTE
    if track.chance(0.5):
        track.do("signUp")
        track.think(40)
    track.log_in()
    track.think(15)
    track.do("verifiedFanEntry", sale.headline)
    for _ in range(rng.randint(1, 3)):
        track.think(60, 1.0)
        track.do("journeyStep", sale.headline)
    track.now = sale.opens_ms + rng.expovariate(1 / (40 * MINUTE))
    track.move()
    track.do("queueJoin", sale.headline)
    track.think(90, 0.8)
    track.page("eventView", sale.headline)
    if track.chance(0.6):
        track.buy(sale.headline)


def night_owl(track: Track) -> None:
    """Browses after midnight; a casual browser at another hour."""
    sale, rng = track.sale, track.rng
    track.now = sale.start_ms + rng.uniform(0.63, 0.86) * (sale.end_ms - sale.start_ms)
    if track.chance(0.5):
        track.log_in()
        track.think(6)
    _browse(track, rng.randint(2, 9), 20)
    if track.chance(0.1):
        track.buy(track.some_event())


def fumbler(track: Track) -> None:
    """Has forgotten the password."""
    track.now = _daytime(track)
    for _ in range(track.rng.randint(2, 7)):
        track.do("login", failed=True)
        track.think(10, 0.6)
        if track.chance(0.2):
            track.move()
    track.do("passwordReset")
    track.think(70, 0.5)
    track.log_in(0.15)
    track.think(6)
    _browse(track, track.rng.randint(1, 5))


def power_fan(track: Track) -> None:
    """Looks a bit like a bot: several tabs, a reload extension, many searches, for hours."""
    rng, sale = track.rng, track.sale
    track.now = sale.opens_ms - rng.uniform(0, 40) * MINUTE
    track.log_in()
    track.think(4)
    if track.chance(0.4):
        period = rng.choice((5, 10, 15, 30))
        for _ in range(rng.randint(8, 35)):
            track.page("pageView", sale.headline)
            track.tick(period, 0.04)
    for _ in range(rng.randint(1, 4)):
        track.move()
        for _ in range(rng.randint(2, 6)):
            for _ in range(rng.choices((1, 3), (3, 1))[0]):  # tabs opened at once
                track.page("eventView", rng.choice(sale.events))
                track.now += rng.uniform(150, 1_200)
            track.think(5, 0.8)
            if track.chance(0.4):
                track.page("search")
                track.think(4, 0.7)
        if track.chance(0.4):
            track.buy(track.some_event(), decline=0.2)
        track.think(900, 1.0)


def scripted_buyer(track: Track) -> None:
    """Polls the headline event and buys the moment it can; rotates addresses, loads no assets."""
    rng, sale = track.rng, track.sale
    period, jitter = rng.lognormvariate(0.7, 0.8), rng.choice((0.02, 0.1, 0.3, 0.6))
    track.now = sale.opens_ms - rng.uniform(2, 90) * SECOND if track.chance(0.7) else _daytime(track)
    if track.chance(0.8):
        track.do("login")
        track.tick(period, jitter)
    for _ in range(int(rng.lognormvariate(3.0, 0.7)) + 2):
        track.do("eventView", sale.headline, failed=track.chance(0.04))
        track.tick(period, jitter)
        if track.chance(0.1):
            track.move()
        if track.now > sale.opens_ms and track.chance(0.12):
            for kind in ("addToCart", "checkout", "purchase"):
                track.do(kind, sale.headline, failed=kind == "purchase" and track.chance(0.35))
                track.tick(period * 0.7, jitter)


def credential_stuffing(track: Track) -> None:
    """Someone tries passwords on the account from many addresses; at times one fits, and the account is used."""
    rng = track.rng
    if track.chance(0.4):
        track.now = track.sale.start_ms + rng.random() * 30 * MINUTE  # its owner, before
        track.log_in()
        track.think(10)
        _browse(track, rng.randint(1, 3))
    track.now = max(track.now, _daytime(track))
    period = rng.lognormvariate(2.0, 1.2)
    track.assets_a_page = 0
    for _ in range(int(rng.lognormvariate(2.2, 0.8)) + 2):
        track.move()
        track.do("login", failed=True)
        track.tick(period, rng.choice((0.05, 0.5, 0.9)))
    if track.chance(0.3):
        track.do("login")
        for kind in ("eventView", "addToCart", "checkout", "purchase"):
            track.tick(3, 0.5)
            track.do(kind, track.sale.headline)


def searcher(track: Track) -> None:
    """Reads the site: every event, over and over, slowly around the clock or fast for a while."""
    rng, sale = track.rng, track.sale
    slow = track.chance(0.6)
    period = rng.lognormvariate(5.4, 0.7) if slow else rng.lognormvariate(0.6, 0.8)
    if slow and track.chance(0.3):
        period *= 12  # a page an hour or so, day and night
    jitter = rng.choice((0.02, 0.2, 0.5, 0.95))
    searches = rng.random()
    start = sale.start_ms + rng.random() * (sale.end_ms - sale.start_ms) * (0.2 if slow else 0.8)
    track.now = start
    pages = int(rng.lognormvariate(3.9, 0.8)) + 3
    for _ in range(pages):
        if track.now >= sale.end_ms:
            break
        kind = "search" if track.chance(searches) else "eventView"
        track.do(kind, rng.choice(sale.events) if kind == "eventView" else None, failed=track.chance(0.03))
        track.tick(period, jitter)
        if track.chance(0.03):
            track.move()


def prober(track: Track) -> None:
    """Looks for weak spots: asks for pages that are not there, one after the other."""
    rng = track.rng
    track.now = track.sale.start_ms + rng.random() * (track.sale.end_ms - track.sale.start_ms)
    period, jitter = rng.lognormvariate(0.5, 1.2), rng.choice((0.1, 0.5, 0.9))
    hits = rng.uniform(0.02, 0.4)
    for _ in range(int(rng.lognormvariate(2.8, 1.0)) + 2):
        track.do(rng.choices(("pageView", "search", "login"), (8, 1, 1))[0], failed=rng.random() > hits)
        track.tick(period, jitter)


def stealth(track: Track) -> None:
    """Mimics a fan: logs in, pauses as people do, loads assets; only a little faster and more single-minded."""
    rng, sale = track.rng, track.sale
    track.assets_a_page = rng.choice((0, 1, 3))
    for _ in range(rng.randint(1, 2)):
        track.move()
        track.now = max(track.now, _daytime(track))
        track.log_in(0.03)
        pace = rng.lognormvariate(1.8, 0.6)
        for _ in range(rng.randint(3, 14)):
            track.think(pace, 0.7)
            kind = rng.choices(("eventView", "pageView", "search"), (5, 2, 1))[0]
            track.page(kind, track.some_event() if kind == "eventView" else None)
        if track.chance(0.5):
            for kind in ("addToCart", "checkout", "purchase"):
                track.think(pace, 0.5)
                track.do(kind, sale.headline, failed=kind == "purchase" and track.chance(0.2))


FAN_PERSONAS: Final[dict[str, tuple[float, Persona]]] = {
    "casual-browser": (0.50, casual_browser),
    "eager-fan": (0.27, eager_fan),
    "planner": (0.10, planner),
    "night-owl": (0.07, night_owl),
    "fumbler": (0.03, fumbler),
    "power-fan": (0.03, power_fan),
}
"""Share of fans, and behaviour."""

BOT_PERSONAS: Final[dict[str, tuple[float, Persona]]] = {
    "scripted-buyer": (0.36, scripted_buyer),
    "credential-stuffing": (0.20, credential_stuffing),
    "searcher": (0.18, searcher),
    "prober": (0.04, prober),
    "stealth": (0.22, stealth),
}
"""Share of bots, and behaviour."""
