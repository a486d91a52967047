"""The log: JSON lines on standard error, each with its correlation fields."""

import json
import logging

import pytest

from fan_identity.io.logs import configure_logging


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    loggers = [root, logging.getLogger("fan_identity"), logging.getLogger("apache_beam")]
    before = [(logger, logger.level) for logger in loggers]
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
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
