"""The log: JSON lines on standard error, each with its correlation fields."""

import ast
import json
import logging
import re
import signal
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from fan_identity.io import logs
from fan_identity.io.log_limits import PerSecond, Seldom
from fan_identity.io.logs import LINES_A_SECOND, Reason, configure_logging, set_debug, switch_debug_on_signal


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch):
    monkeypatch.setattr(logs, "_flood", PerSecond(LINES_A_SECOND))
    root = logging.getLogger()
    loggers = [root, logging.getLogger("fan_identity"), logging.getLogger("apache_beam")]
    before = [(logger, logger.level) for logger in loggers]
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    for reason in Reason:
        set_debug(reason, on=False)
    for logger, level in before:
        logger.setLevel(level)


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_json_and_carries_the_runs_fields(capsys):
    configure_logging("info", "scoreUsers", "r1")
    logging.getLogger("fan_identity.run").info("went %s", "well")
    (line,) = lines(capsys)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "fan_identity.run",
        "message": "went well",
        "requestId": "r1",
        "worker": "scoreUsers",
        "activityId": None,
    }


def test_a_line_about_a_record_carries_its_own_fields(capsys):
    configure_logging("info", "scoreUsers", "r1")
    extra = {"requestId": "r9", "worker": "w9", "activityId": "a9", "reason": "malformed"}
    logging.getLogger("fan_identity.dead_letters").info("x", extra=extra)
    (line,) = lines(capsys)
    assert extra.items() <= line.items()


def test_hostile_text_stays_in_its_line(capsys):
    configure_logging("info", "w", "r")
    text = 'a\r\n{"level":"ERROR"}\x1b[31m\u2028\u202e"'
    logging.getLogger("fan_identity").warning("%s", text)
    captured = capsys.readouterr().err
    assert captured.isascii()
    assert captured.count("\n") == 1
    assert not any(char < " " for char in captured.rstrip("\n"))
    assert json.loads(captured)["message"] == text


def test_an_exception_is_part_of_its_line(capsys):
    configure_logging("error", "w", "r")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("fan_identity").exception("failed")
    (line,) = lines(capsys)
    assert "ZeroDivisionError" in line["exc_info"]


@pytest.mark.parametrize(("level", "shown"), [("debug", "DIWE"), ("INFO", "IWE"), ("Warning", "WE"), ("error", "E")])
def test_the_level_is_that_of_our_own_loggers(capsys, level, shown):
    configure_logging(level, "w", "r")
    log = logging.getLogger("fan_identity.x")
    for write, message in ((log.debug, "D"), (log.info, "I"), (log.warning, "W"), (log.error, "E")):
        write(message)
    assert "".join(line["message"] for line in lines(capsys)) == shown


@pytest.mark.parametrize("level", ["info", "error"])
def test_others_are_silent(capsys, level):
    configure_logging(level, "w", "r")
    logging.getLogger("apache_beam.runners").error("traceback")
    logging.getLogger("fan_identity_of_someone_else").error("not ours")
    logging.getLogger("someone.else").critical("not ours")
    logging.getLogger("fan_identity").error("ours")
    assert [line["message"] for line in lines(capsys)] == ["ours"]


def test_at_debug_level_the_warnings_of_others_are_told(capsys):
    configure_logging("Debug", "w", "r")
    logging.getLogger("apache_beam.runners").info("chatter")
    logging.getLogger("apache_beam.runners").warning("told of %s", "fan-1")
    (line,) = lines(capsys)
    assert (line["logger"], line["message"]) == ("apache_beam.runners", "told of %s")
    assert line["where"].startswith("test_logs.py:")


def test_what_others_put_into_their_texts_is_not_told(capsys):
    configure_logging("debug", "w", "r")
    log = logging.getLogger("someone.else")
    try:
        raise ValueError("secret-1")
    except ValueError:
        log.exception(f"failed for {'secret-2'}")
    log.warning("%s", ["secret-3"])
    log.error(ValueError("secret-4"))
    captured = capsys.readouterr().err
    assert "secret" not in captured
    first = json.loads(captured.splitlines()[0])
    assert (first["message"], first["error"]) == ("(text left out)", "ValueError")


def test_configured_twice_a_line_is_written_once(capsys):
    configure_logging("info", "first", "r1")
    configure_logging("info", "second", "r2")
    logging.getLogger("fan_identity").info("once")
    assert [(line["worker"], line["requestId"]) for line in lines(capsys)] == [("second", "r2")]


ROOT = Path(__file__).parents[2]
OF_EVERY_LINE = {"time", "level", "logger", "message", "requestId", "worker", "activityId"}
OF_LOGS = {"trace_id", "span_id", "exc_info", "leftOut", "where", "error"}


def documented():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "logs.md").read_text().partition("## More")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def logged():
    """Every field that a log call of the product names."""
    for folder in ("domain", "io", "transforms", "pipelines", "batch", "serving"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text()
            for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
                for keyword in call.keywords:
                    if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                        yield from (key.value for key in keyword.value.keys if isinstance(key, ast.Constant))


def test_the_schema_is_documented_and_no_line_has_other_fields():
    fields = set(logged())
    assert {"deadLetterId", "counts"} <= fields, "the code was read"
    assert fields <= documented()
    assert documented() - fields == OF_EVERY_LINE - {"requestId", "worker", "activityId"} | OF_LOGS - {"error"} | {
        *("route", "status", "ms"),  # of answers.log_request, which passes a variable
    }


def test_times_are_utc_to_the_millisecond(capsys):
    configure_logging("info", "w", "r")
    before = time.time()
    logging.getLogger("fan_identity").info("now")
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert before - 0.002 <= datetime.fromisoformat(line["time"]).timestamp() <= time.time()


def test_a_line_within_a_span_names_it(capsys):
    configure_logging("info", "w", "r")
    log = logging.getLogger("fan_identity")
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        log.info("inside")
    log.info("outside")
    inside, outside = lines(capsys)
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert not {"trace_id", "span_id"} & set(outside)


def test_a_long_text_is_cut(capsys):
    configure_logging("info", "w", "r")
    logging.getLogger("fan_identity").info("%s", "x" * 100_000)
    (line,) = lines(capsys)
    assert line["message"] == "x" * 8_000 + "…"


HOSTILE = st.text(st.characters(codec=None), max_size=200) | st.sampled_from(
    ['\r\n{"level":"ERROR"}', "\x1b[2J\x1b[31m", "\u2028\u2029", "\u202e\u2066", "\x00\x85", "\ud800", "%s%d", "{}"]
)


@given(HOSTILE, HOSTILE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_leaves_its_line(capsys, text, field):
    configure_logging("info", "w", "r")
    kinds = [("%s", (text,)), (text.replace("%", "%%"), ())]
    for message, arguments in kinds:
        logging.getLogger("fan_identity").info(message, *arguments, extra={"activityId": field, "reason": text})
    captured = capsys.readouterr().err
    assert captured.isascii() and captured.isprintable() is False  # the newlines alone
    assert [char for char in captured if not char.isprintable()] == ["\n"] * captured.count("\n")
    for line in captured.splitlines():
        assert json.loads(line)["activityId"] == field


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_debug_level_is_switched_while_running_and_both_are_told(capsys, level):
    configure_logging(level, "w", "r")
    log = logging.getLogger("fan_identity.x")
    set_debug(Reason.FLAG, on=True)
    set_debug(Reason.FLAG, on=True)
    set_debug(Reason.SIGNAL, on=True)
    set_debug(Reason.FLAG, on=False)
    log.debug("still")
    configure_logging(level, "w", "r")  # as each invocation of a Lambda does
    log.debug("still")
    set_debug(Reason.SIGNAL, on=False)
    log.debug("as before")
    told = [line["message"] for line in lines(capsys)]
    switched = ["on by the flag", "on by the signal", "off by the flag", "still", "still", "off by the signal"]
    assert [text.removeprefix("debug level is switched ") for text in told] == [
        *switched,
        *(["as before"] if level == "debug" else []),
    ]


def test_the_signal_switches_debug_level(capsys):
    before = signal.getsignal(signal.SIGUSR2)
    configure_logging("warning", "w", "r")
    switch_debug_on_signal()
    try:
        for on in (True, False):
            signal.raise_signal(signal.SIGUSR2)
            for thread in threading.enumerate():
                if thread.name == "debug level":
                    thread.join(60)
            assert logging.getLogger("fan_identity").isEnabledFor(logging.DEBUG) is on
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [line["message"].split()[4] for line in lines(capsys)] == ["on", "off"]


def test_a_flood_is_bounded_and_counted(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs, "_flood", PerSecond(LINES_A_SECOND, clock))
    configure_logging("info", "w", "r")
    log = logging.getLogger("fan_identity.dead_letters")

    def say(number, reason):
        for _ in range(number):
            log.info("record became a dead letter", extra={"reason": reason, "worker": "scoreUsers"})

    say(1_000, "malformed")
    say(3, "too_large")
    log.info("another message")
    found = lines(capsys)
    assert len(found) == LINES_A_SECOND + 3 + 1
    assert not any("leftOut" in line for line in found)
    clock.now += 1
    say(2, "malformed")
    assert [line.get("leftOut") for line in lines(capsys)] == [1_000 - LINES_A_SECOND, None]
    say(1_000, "malformed")
    logging.getLogger().handlers[0].close()
    *_, last = lines(capsys)
    assert (last["leftOut"], last["message"]) == (1_002 - LINES_A_SECOND, "record became a dead letter")
    assert (last["reason"], last["worker"], last["level"]) == ("malformed", "scoreUsers", "INFO")


@given(st.lists(st.tuples(st.floats(0, 0.4), st.sampled_from("ab")), max_size=300))
def test_so_many_pass_a_second_and_none_is_forgotten(steps):
    clock, left_out = Clock(), 0
    bound = PerSecond(5, clock)
    passed = {"a": [], "b": []}
    for wait, kind in steps:
        clock.now += wait
        told = bound.admit(kind)
        if told is not None:
            passed[kind].append(clock.now)
            left_out += told
    left_out += sum(bound.take_left_out().values())
    assert len(passed["a"]) + len(passed["b"]) + left_out == len(steps)
    for times in passed.values():
        assert all(later - first >= 1 for first, later in zip(times, times[10:], strict=False)), "no 11 within a second"


def test_something_is_said_seldom():
    clock = Clock()
    seldom = Seldom(60, clock)
    said = 0
    for _ in range(1_300):
        said += seldom.due()
        clock.now += 0.1
    assert said == 3


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now
