import pytest

from fan_identity.io.telemetry.tracing import Span
from fan_identity.io.telemetry.unfailing import Unfailing, inside


class _FailsAtTheEnd(Span):
    def __init__(self):
        super().__init__(None)

    def __exit__(self, kind, error, traceback):
        raise RuntimeError("telemetry is broken")


def test_errors_are_told_to_the_log_by_their_type_and_not_each_time(caplog):
    due = iter([True, False])
    unfailing = Unfailing(lambda: next(due))
    for _ in range(2):
        with unfailing:
            raise ValueError("canary-user")
    assert caplog.text.count("ValueError") == 1
    assert "canary" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_is_no_failure_of_telemetry(error):
    with pytest.raises(error), Unfailing(lambda: True):
        raise error


@pytest.mark.parametrize("span", [lambda: 1 / 0, _FailsAtTheEnd])
def test_a_span_that_fails_leaves_the_block_as_it_is(span):
    with inside(span):
        done = True
    assert done
    with pytest.raises(KeyError), inside(span):
        raise KeyError
