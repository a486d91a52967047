"""The console's own arithmetic and words, module by module, in the browser that will run them."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fan_identity.serving.pages import routes

MINUTE = 12  # moments
QUEUE = "accountActivityQueue"


@pytest.fixture(scope="module")
def modules(chromium, tmp_path_factory):
    """Calls functions of the page's modules."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "pages").symlink_to(Path(routes.__file__).parent)
    (folder / "empty.html").write_text("<!doctype html>")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/empty.html")

    def call(module, expression, argument=None):
        script = f"async (given) => {{ const m = await import('./pages/console/{module}.js'); return {expression}; }}"
        return page.evaluate(script, argument)

    yield call
    page.close()
    server.shutdown()
    server.server_close()


def flow(moments=MINUTE, *, scored=(0.0,), depth=(0,), oldest=(0,), processes=None, problems=(), **series):
    """An answer of the flow: columns are stretched to the moments."""

    def column(values):
        return (list(values) * moments)[:moments] if len(values) == 1 else list(values)

    names = ("read", "enqueued", "deduplicated", "stored", "rejected", "deadLettered", "returned", "failed")
    columns = {name: column(series.get(name, (0.0,))) for name in names}
    alive = {"worker": "scoreUsers", "process": "p", "version": "0.1.0", "alive": True, "ended": False, "reads": QUEUE}
    now = 1_700_000_000_000
    return {
        "now": now,
        "stepMs": 5_000,
        "times": [now - 5_000 * (moments - 1 - number) for number in range(moments)],
        "workers": {"scoreUsers": columns | {"scored": column(scored)}},
        "queues": {QUEUE: {"depth": column(depth), "oldestMs": column(oldest)}},
        "lag": {},
        "processes": [alive | {"updatedAt": now}] if processes is None else processes,
        "problems": list(problems),
    }


@pytest.fixture(scope="module")
def verdict(modules):
    def ask(answer, letters=None, flags=None):
        expression = """await (async () => {
            const { FlowHistory } = await import('./pages/console/history.js');
            const history = new FlowHistory();
            history.add(given.answer);
            return m.verdict(history, given.letters, given.flags);
        })()"""
        return modules("verdict", expression, {"answer": answer, "letters": letters, "flags": flags})

    return ask


def off(worker):
    return {"flags": [{"worker": worker, "known": True, "enabled": False}]}


@pytest.mark.parametrize(
    ("answer", "flags", "level", "words"),
    [
        (flow(scored=(412.0,)), None, "ok", "Scores flow: 412 a second over the last minute."),
        (flow(scored=(0.04,)), None, "ok", "Scores flow: 0.04 a second"),
        (flow(), None, "idle", "Nothing to score: the queue is empty."),
        (flow(depth=(12_400,)), None, "bad", "none in the last minute, while 12,400 messages wait."),
        (flow(depth=(1,)), None, "bad", "while 1 message waits."),
        (flow(processes=[], depth=(7,)), None, "bad", "no scoreUsers process runs, and 7 messages wait."),
        (flow(processes=[]), None, "warn", "No scoreUsers process runs; nothing waits for one."),
        (flow(depth=(None,), oldest=(None,)), None, "idle", "Nothing was scored in the last minute."),
        (flow(scored=(None,)), None, "unknown", "its rate is known in some seconds"),
        (flow(depth=(9,)), off("scoreUsers"), "bad", "scoreUsers is switched off by its flag, and 9 messages wait."),
        (flow(scored=(9.0,)), off("handleEvent"), "ok", "Scores flow"),
        (flow(problems=["the table of workers' reports does not answer"]), None, "unknown", "cannot be said"),
        (
            flow(scored=(100.0,), depth=[1_000 + 500 * number for number in range(MINUTE)]),
            None,
            "warn",
            "the queue grows by 100 a second",
        ),
        (
            flow(scored=[50.0] * 8 + [0.0] * 4, depth=(650,)),
            None,
            "bad",
            "Scores do not flow any more: none in the last 20 s, while 650 messages wait.",
        ),
        (flow(scored=[50.0] * 8 + [0.0] * 4), None, "ok", "Scores flow: 33 a second"),
        (
            flow(scored=(50.0,), depth=(100,), oldest=(120_000,)),
            None,
            "warn",
            "Scores flow: 50 a second over the last minute, but the oldest message has waited for 2 min.",
        ),
        (
            flow(scored=(100.0,), depth=[9_000 - 500 * number for number in range(MINUTE)]),
            None,
            "ok",
            "Scores flow: 100 a second",
        ),
    ],
)
def test_the_headline_says_whether_scores_flow(verdict, answer, flags, level, words):
    told = verdict(answer, flags=flags)
    assert told["level"] == level
    assert words in told["headline"]


def test_where_it_waits_is_told_by_queue_with_its_age_and_trend(verdict):
    growing = [1_000 + 1_000 * number for number in range(MINUTE)]
    (told,) = verdict(flow(depth=growing, oldest=(180_000,)))["waits"]
    assert (told["level"], told["text"]) == (
        "warn",
        f"{QUEUE}: 12,000 waiting, the oldest for 3 min, growing by 200 a second",
    )
    (told,) = verdict(flow(depth=(5,), oldest=(300_000,)))["waits"]
    assert (told["level"], told["text"]) == ("bad", f"{QUEUE}: 5 waiting, the oldest for 5 min or more")
    (told,) = verdict(flow(depth=(5,), oldest=(None,)))["waits"]
    assert (told["level"], told["text"]) == ("ok", f"{QUEUE}: 5 waiting")
    assert verdict(flow(depth=(0,)))["waits"] == []
    (told,) = verdict(flow(problems=["queue q does not answer"]))["waits"]
    assert told["level"] == "unknown"


def test_what_fails_is_told_by_worker_with_where_to_look(verdict):
    now = flow()["now"]
    silent = {"worker": "handleEvent", "alive": False, "ended": False, "updatedAt": now - 45_000, "version": "1"}
    ended = silent | {"ended": True, "worker": "enqueueFromStream"}
    long_ago = silent | {"updatedAt": now - 3_600_000, "worker": "stagingScoreUsers"}
    told = verdict(
        flow(
            scored=(5.0,),
            failed=(0.2,),
            deadLettered=(0.5,),
            returned=(1.0,),
            processes=[*flow()["processes"], silent, ended, long_ago],
        ),
        letters={
            "total": 1_204,
            "groups": [{"worker": "a", "reason": "few", "count": 4}, {"worker": "b", "reason": "many", "count": 1_200}],
        },
    )
    assert [one["text"] for one in told["fails"]] == [
        "scoreUsers: 12 batches failed in the last minute and are read again",
        "scoreUsers: 30 dead letters in the last minute",
        "scoreUsers: 60 messages given back in the last minute, to be tried again",
        "handleEvent: 1 process fell silent, last heard of 45 s ago",
        "1,204 dead letters wait, most of b: many",
    ]
    assert verdict(flow(scored=(5.0,)))["fails"] == []


def test_parts_that_are_down_are_told(verdict):
    answer = flow(scored=(5.0,))
    told = verdict(answer | {"outages": [{"part": "model", "since": answer["now"] - 240_000}]})
    assert [one["text"] for one in told["fails"]] == ["model does not answer, since 4 min"]


def test_versions_side_by_side_are_told(verdict):
    one = flow()["processes"][0]
    told = verdict(flow(processes=[one, one | {"process": "other", "version": "0.2.0"}]))
    assert "2 versions" in told["fails"][0]["text"]


def test_a_history_is_level_bounded_and_keeps_gaps(modules):
    expression = """(() => {
        const history = new m.FlowHistory();
        const rest = { lag: {}, processes: [], now: 0, stepMs: 1 };
        const answer = (times, workers, queues = {}) => ({ times, workers, queues, ...rest });
        const columns = (values) => Object.fromEntries(m.SERIES.map((name) => [name, values]));
        history.add(answer([1, 2], { a: columns([1, null]) }));
        history.add(answer([3], { b: columns([7]) }, { q: { depth: [4], oldestMs: [null] } }));
        const { workers, queues } = history;
        const early = structuredClone([history.since, workers.a.scored, workers.b.scored, queues.q.depth]);
        const many = Array.from({ length: 1000 }, (_, number) => number + 4);
        history.add(answer(many, { b: columns(many) }));
        return [early, history.times.length, history.times[0], workers.a.scored.length, workers.b.read.at(-1)];
    })()"""
    assert modules("history", expression) == [
        [3, [1, None, None], [None, None, 7], [None, None, 4]],
        720,
        284,
        720,
        1003,
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\u202eb", "a\u27e8U+202E\u27e9b"),
        ("\u0007\u001b[31m", "\u27e8U+0007\u27e9\u27e8U+001B\u27e9[31m"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("\u0645\u0631\u062d\u0628\u0627 👩‍🚀", "\u0645\u0631\u062d\u0628\u0627 👩\u27e8U+200D\u27e9🚀"),
    ],
)
def test_what_cannot_be_seen_is_shown(modules, text, shown):
    assert modules("words", "m.visible(given)", text) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.004, "<0.01"),
        (0.044, "0.044"),
        (3.21, "3.2"),
        (412.4, "412"),
        (12_345.6, "12,346"),
        (None, "\u2013"),
    ],
)
def test_rates_are_short_and_never_0_where_they_are_not(modules, number, shown):
    assert modules("words", "m.rate(given)", number) == shown


@pytest.mark.parametrize(("most", "top"), [(0, 1), (0.3, 0.5), (1, 1), (7, 10), (101, 200), (50_001, 100_000)])
def test_axes_end_at_round_numbers(modules, most, top):
    assert modules("charts", "m.niceMost(given)", most) == pytest.approx(top)


def test_axes_of_seconds_end_at_round_times(modules):
    assert modules("charts", "given.map((most) => m.niceMost(most, 'seconds'))", [0, 3, 50, 61, 300, 9_000]) == [
        1, 4, 60, 120, 600, 14_400,
    ]  # fmt: skip


def test_a_line_is_broken_where_nothing_is_known_or_moments_are_missing(modules):
    expression = "m.pathOf(given.times, given.values, 5, (time) => time, (value) => value)"
    times = [0, 5, 10, 15, 20, 60, 65]
    path = modules("charts", expression, {"times": times, "values": [1, 2, None, 3, 4, 5, 6]})
    assert path == "M0.0 1.0h.01L5.0 2.0M15.0 3.0h.01L20.0 4.0M60.0 5.0h.01L65.0 6.0"
