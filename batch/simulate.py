"""A seeded simulator of an on-sale: activities of fans and bots as a stream delivers them, and who was which.

What it writes is a function of the settings alone, byte for byte. People, addresses and devices are made up; network
addresses are private ones (10.0.0.0/8, and 100.64.0.0/10 for mobile carriers). How users behave is in ``personas``;
this module gives them addresses, writes their actions as JSON lines, and adds what real streams bring along:
duplicates, late arrivals, malformed lines, wrong clocks, unknown types, blank users and the seller's own monitors.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .personas import BOT_PERSONAS, FAN_PERSONAS, HOUR, MINUTE, Action, Persona, Sale, Track

INTERNAL_ACCOUNTS: Final = ("monitor-health-check", "qa-load-test")
"""User ids of the seller's own monitors; their activities are in the stream and must not be scored."""

UNKNOWN_TYPES: Final = ("heartbeat", "giftCardRedeem", "PAGEVIEW", "seatMapHover")

_USER_AGENTS: Final = (
    "ExampleBrowser/126.0 (Desktop)",
    "ExampleBrowser/125.0 (Mobile)",
    "SampleSurf/17.4 (Mobile)",
    "SampleSurf/17.5 (Desktop)",
    "DemoFox/127.0 (Desktop)",
    "ticket-app/9.4 (Mobile)",
)

# Apps bring their own images, and some browsers block or cache all but the page itself.
_ASSETS_A_PAGE: Final = {0: 6.0, 1: 2.0, 2: 2.0, 4: 1.0}


@dataclass(frozen=True)
class SaleSettings:
    """What to simulate. Everything follows from these values.

    Attributes:
        fans: number of fan accounts.
        bots: number of bot accounts.
        seed: of all randomness.
        start_ms: first activities, epoch milliseconds; the default is 2024-06-14T09:00Z.
        opens_after_ms: from the start to the opening of the sale.
        lasts_ms: from the start to the end.
        duplicates: share of activities delivered twice.
        late: share of activities that arrive minutes late.
        malformed: share of lines added that are no activity.
        unknown_types: share of lines added that are of a type nobody scores.
        strays: share of lines added of each of: stale, in the future, blank user.
        assets_a_page: weights of how many asset loads a page of a fan's client sends at most.
        fan_mix: weights of fan personas where they differ from ``FAN_PERSONAS``.
        bot_mix: weights of bot personas where they differ from ``BOT_PERSONAS``.
    """

    fans: int = 20_000
    bots: int = 1_000
    seed: int = 7
    start_ms: int = 1_718_355_600_000
    opens_after_ms: int = HOUR
    lasts_ms: int = 24 * HOUR
    duplicates: float = 0.01
    late: float = 0.03
    malformed: float = 0.002
    unknown_types: float = 0.01
    strays: float = 0.001
    assets_a_page: Mapping[int, float] = field(default_factory=lambda: dict(_ASSETS_A_PAGE))
    fan_mix: Mapping[str, float] | None = None
    bot_mix: Mapping[str, float] | None = None

    @property
    def end_ms(self) -> int:
        """When the last activities happen; a clock set here finds none of them in the future."""
        return self.start_ms + self.lasts_ms + 2 * HOUR


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulated sale.

    Attributes:
        lines: in the order of arrival, without line ends.
        kinds: of each globalUserId: ``fan`` or the kind of bot.
        personas: of each globalUserId.
        counts: lines by what they are: ``activity``, ``duplicate``, ``malformed``, ``unknown_type``, ``stale``,
            ``future``, ``blank_user``, ``internal``.
    """

    lines: list[bytes]
    kinds: dict[str, str]
    personas: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class SimulationSummary:
    """What ``write_simulation`` wrote.

    Attributes:
        path: of the activities, JSON lines.
        labels_path: of the labels, JSON lines of globalUserId, kind and persona.
        lines: in the first file.
        bytes_written: to the first file.
        users: by kind.
        counts: as in ``Simulation``.
    """

    path: Path
    labels_path: Path
    lines: int
    bytes_written: int
    users: dict[str, int]
    counts: dict[str, int]


def write_simulation(settings: SaleSettings, path: Path) -> SimulationSummary:
    """Simulates a sale into a file of activities, and its labels into ``<name>.labels.jsonl`` beside it.

    Raises:
        OSError: a file cannot be written.
    """
    simulation = simulate(settings)
    data = b"".join([line + b"\n" for line in simulation.lines])
    path.write_bytes(data)
    labels_path = path.with_name(f"{path.stem}.labels.jsonl")
    with labels_path.open("w", encoding="utf-8", newline="\n") as labels:
        for user, kind in sorted(simulation.kinds.items()):
            labels.write(json.dumps({"globalUserId": user, "kind": kind, "persona": simulation.personas[user]}) + "\n")
    return SimulationSummary(
        path, labels_path, len(simulation.lines), len(data), dict(Counter(simulation.kinds.values())), simulation.counts
    )


def simulate(settings: SaleSettings) -> Simulation:
    """Simulates a sale in memory."""
    rng = random.Random(settings.seed)  # noqa: S311 - a simulation keeps no secrets
    events = tuple(f"EVT-{number:04d}" for number in rng.sample(range(10_000), 40))
    opens_ms = settings.start_ms + settings.opens_after_ms
    sale = Sale(settings.start_ms, opens_ms, settings.start_ms + settings.lasts_ms, events[0], events)
    numbers = iter(rng.sample(range(10 * (settings.fans + settings.bots)), settings.fans + settings.bots))
    town = _Town(rng, settings)
    writer = _Writer(rng, settings, sale)
    kinds: dict[str, str] = {}
    personas: dict[str, str] = {}
    for table, mix, count in (
        (FAN_PERSONAS, settings.fan_mix, settings.fans),
        (BOT_PERSONAS, settings.bot_mix, settings.bots),
    ):
        names = list(table)
        weights = [table[name][0] if mix is None else mix.get(name, 0.0) for name in names]
        for name in rng.choices(names, weights, k=count):
            user = f"user-{next(numbers):07d}"
            personas[user] = name
            kinds[user] = "fan" if table is FAN_PERSONAS else name
            writer.write_user(user, _act(rng, sale, town, name, table[name][1]))
    writer.add_noise()
    return Simulation(writer.lines_by_arrival(), kinds, personas, dict(sorted(writer.counts.items())))


def _act(rng: random.Random, sale: Sale, town: "_Town", name: str, persona: Persona) -> list[Action]:
    track = town.fan_track(sale) if name in FAN_PERSONAS else town.bot_track(sale, rotates=name != "stealth")
    persona(track)
    return [action for action in track.actions if action.time_ms < sale.end_ms + HOUR]


class _Town:
    """Addresses and devices: homes and offices shared by several, carriers shared by many, proxies hired by bots."""

    def __init__(self, rng: random.Random, settings: SaleSettings) -> None:
        fans = settings.fans
        self._rng = rng
        self._assets = settings.assets_a_page
        self._homes = [self._private() for _ in range(max(1, int(fans * 0.7)))]
        self._offices = [self._private() for _ in range(max(1, fans // 300))]
        self._carriers = [self._carrier() for _ in range(max(4, fans // 100))]
        self._proxies = [self._private() for _ in range(max(20, fans // 20))]

    def _private(self) -> str:
        number = self._rng.getrandbits(24)
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    def _carrier(self) -> str:
        number = self._rng.getrandbits(22)
        return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"

    def _device(self) -> str:
        return f"dev-{self._rng.getrandbits(48):012x}"

    def fan_track(self, sale: Sale) -> Track:
        """A fan: at home, at work or on the road, with a device or two."""
        rng = self._rng
        addresses = [rng.choice(self._homes)]
        if _chance(rng, 0.12):
            addresses.insert(0, rng.choice(self._offices))
        if _chance(rng, 0.45):
            # A phone changes its address with the cell and the carrier's pool.
            addresses += rng.sample(self._carriers, rng.choices((1, 2, 3), (6, 3, 1))[0])
            rng.shuffle(addresses)
        devices: list[str | None] = [self._device()]
        if _chance(rng, 0.25):
            devices.append(self._device())
        if _chance(rng, 0.06):
            devices.append(None)  # a privacy extension
        assets = rng.choices(list(self._assets), list(self._assets.values()))[0]
        return Track(rng, sale, addresses, devices, assets)

    def bot_track(self, sale: Sale, *, rotates: bool) -> Track:
        """A bot: hired proxies, some of them in homes; a fresh device now and then, or always the same, or none."""
        rng = self._rng
        count = rng.choices((1, 3, 8, 25), (4, 3, 2, 2))[0] if rotates else rng.randint(1, 3)
        addresses = [rng.choice(self._proxies if _chance(rng, 0.7) else self._homes) for _ in range(count)]
        device_count = rng.choices((1, 2, 6), (7, 2, 1))[0]
        devices: list[str | None] = [self._device() for _ in range(device_count)]
        if rotates and _chance(rng, 0.12):
            devices = [None]
        return Track(rng, sale, addresses, devices)


class _Writer:
    """Writes actions as JSON lines with a time of arrival each."""

    def __init__(self, rng: random.Random, settings: SaleSettings, sale: Sale) -> None:
        self._rng = rng
        self._settings = settings
        self._sale = sale
        self._arrivals: list[tuple[int, bytes]] = []
        self._seconds: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    def write_user(self, user: str, actions: list[Action]) -> None:
        """Writes a user's activities, some of them twice, some late."""
        rng, settings = self._rng, self._settings
        random_float, exponential = rng.random, rng.expovariate
        member = f',"memberId":"m-{user[5:]}"' if _chance(rng, 0.8) else ""
        agent = rng.choice(_USER_AGENTS)
        epoch = _chance(rng, 0.1)  # some clients send epoch milliseconds
        for action in actions:
            line = self._line(user, action, member, agent, epoch)
            arrival = action.time_ms + int(exponential(1 / 180)) + 20
            if random_float() < settings.late:
                arrival += int(random_float() * 15 * MINUTE) + MINUTE
            self._arrivals.append((arrival, line))
            if random_float() < settings.duplicates:
                self._arrivals.append((arrival + int(exponential(1 / 20_000)), line))
                self.counts["duplicate"] += 1
        self.counts["activity"] += len(actions)

    def _line(self, user: str, action: Action, member: str, agent: str, epoch: bool) -> bytes:
        time_ms, kind, event_id, address, device, failed = action
        when = str(time_ms) if epoch else f'"{self._iso(time_ms)}"'
        event = f',"eventId":"{event_id}","saleId":"SALE-1"' if event_id else ""
        device_id = f'"deviceId":"{device}",' if device else ""
        attributes = ""
        if failed:
            attributes = ',"attributes":{"outcome":"failure"}'
        elif kind in ("login", "purchase"):
            attributes = ',"attributes":{"outcome":"success"}'
        return (
            f'{{"activityId":"{self._rng.getrandbits(64):016x}","globalUserId":"{user}","activityType":"{kind}"'
            f',"occurredAt":{when}{member}{event}'
            f',"context":{{"ipAddress":"{address}",{device_id}"userAgent":"{agent}"}}{attributes}}}'
        ).encode()

    def _iso(self, time_ms: int) -> str:
        second, milliseconds = divmod(time_ms, 1_000)
        text = self._seconds.get(second)
        if text is None:
            text = self._seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{text}.{milliseconds:03d}Z"

    def add_noise(self) -> None:
        """Adds what is in every stream and must not be scored."""
        settings, sale = self._settings, self._sale
        real = len(self._arrivals)
        self._add("malformed", self._malformed, round(real * settings.malformed))
        self._add("unknown_type", lambda: self._stray(kinds=UNKNOWN_TYPES), round(real * settings.unknown_types))
        strays = round(real * settings.strays)
        self._add("stale", lambda: self._stray(times=(1_000, 0, sale.start_ms - 150 * 24 * HOUR)), strays)
        self._add("future", lambda: self._stray(times=(4_070_908_800_000, sale.end_ms + 90 * 24 * HOUR)), strays)
        self._add("blank_user", lambda: self._stray(users=("", "  ")), strays)
        for number, time_ms in enumerate(range(sale.start_ms, sale.end_ms, 5 * MINUTE)):
            user = INTERNAL_ACCOUNTS[number % len(INTERNAL_ACCOUNTS)]
            action = Action(time_ms, "pageView", None, "10.0.0.10", None, False)
            self._arrivals.append((time_ms, self._line(user, action, "", "health-check/1.0", False)))
            self.counts["internal"] += 1

    def _add(self, name: str, make: Callable[[], bytes], count: int) -> None:
        sale = self._sale
        for _ in range(count):
            # Wrong lines come when traffic does: around the arrival of a real one.
            arrival = self._rng.choice(self._arrivals)[0] if self._arrivals else sale.start_ms
            self._arrivals.append((arrival, make()))
        if count:
            self.counts[name] += count

    def _stray(
        self, kinds: tuple[str, ...] = ("pageView",), times: tuple[int, ...] = (), users: tuple[str, ...] = ()
    ) -> bytes:
        rng, sale = self._rng, self._sale
        time_ms = rng.choice(times) if times else rng.randrange(sale.start_ms, sale.end_ms)
        user = rng.choice(users) if users else f"user-{rng.randrange(10**7):07d}"
        action = Action(time_ms, rng.choice(kinds), None, "10.0.0.99", None, False)
        return self._line(user, action, "", _USER_AGENTS[0], _chance(rng, 0.5))

    def _malformed(self) -> bytes:
        rng = self._rng
        whole = self._stray()
        return rng.choice(
            (
                whole[: rng.randrange(1, len(whole) - 1)],
                whole.replace(b'"activityType":"pageView"', b'"activityType":7'),
                b'{"activityId":"nan","globalUserId":"user-1","activityType":"login","occurredAt":NaN}',
                b'{"globalUserId":"user-1","activityType":"login","occurredAt":1718355600000}',
                b'{"activityId":"no-time","globalUserId":"user-1","activityType":"login"}',
                b'{"activityId":"bad-time","globalUserId":"user-1","activityType":"login","occurredAt":"yesterday"}',
                b"[]",
                b"\xff\xfe\x00",
            )
        )

    def lines_by_arrival(self) -> list[bytes]:
        """All lines as they arrive; what arrives in one millisecond stays in the order written."""
        return [line for _, line in sorted(self._arrivals, key=_arrival)]


def _chance(rng: random.Random, probability: float) -> bool:
    return rng.random() < probability


def _arrival(entry: tuple[int, bytes]) -> int:
    return entry[0]
