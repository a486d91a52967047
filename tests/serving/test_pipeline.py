import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.io.errors import UnavailableError
from fan_identity.serving.context import FunctionError
from fan_identity.serving.pipeline import Function, Pipeline, UndeclaredKeyError
from fan_identity.serving.resolvers import RESOLVERS

from .fakes import request

KEYS = "abcd"


def made_function(number: int, plan: Mapping, effects: list[int]) -> Function:
    """A function that does what ``plan`` says, deterministically from what it may see."""

    def seen(ctx):
        return sorted((key, ctx.stash[key]) for key in plan["reads"] if key in ctx.stash), (
            ctx.prev if plan["previous"] else None
        )

    async def ask(ctx):
        for _ in range(plan["turns"]):
            await asyncio.sleep(0)
        if plan["effect"]:
            effects.append(number)
        if plan["ends"] == "early" or (plan["ends"] == "early if read" and seen(ctx)[0]):
            ctx.early_return(("early", number, seen(ctx)), to_end=plan["to_end"])
        if plan["ends"] == "away":
            raise UnavailableError(f"source-{number}")
        return number, seen(ctx)

    def respond(ctx):
        if plan["ends"] == "error":
            raise FunctionError(f"function {number}", "400", "BAD")
        if plan["optional"]:
            ctx.degrade()
        else:
            ctx.raise_error()
        for key in sorted(plan["writes"]):
            ctx.stash[key] = (number, key, ctx.result)
        return number, seen(ctx)

    return Function(
        f"f{number}",
        "none",
        ask,
        respond,
        reads=plan["reads"],
        writes=plan["writes"],
        reads_previous=plan["previous"],
        has_effect=plan["effect"],
    )


plans = st.lists(
    st.fixed_dictionaries(
        {
            "reads": st.frozensets(st.sampled_from(KEYS), max_size=3),
            "writes": st.frozensets(st.sampled_from(KEYS), max_size=2),
            "previous": st.booleans(),
            "turns": st.integers(0, 6),
            "ends": st.sampled_from(["well"] * 6 + ["early", "early if read", "away", "error"]),
            "to_end": st.booleans(),
            "optional": st.booleans(),
            "effect": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=8,
)


async def outcome(made: list, *, side_by_side: bool):
    effects: list[int] = []
    pipeline = Pipeline(tuple(made_function(number, plan, effects) for number, plan in enumerate(made)))
    asked = request()
    try:
        result = await pipeline.run({}, asked, side_by_side=side_by_side)
    except FunctionError as error:
        result = error.shown()
    return result, asked.degraded, [(one.function, one.outcome) for one in asked.asked], effects


@given(plans)
@settings(max_examples=400, deadline=None)
def test_side_by_side_ends_as_one_after_the_other(made):
    """Result, error, what is degraded, who was asked, and effects in their order."""
    assert asyncio.run(outcome(made, side_by_side=True)) == asyncio.run(outcome(made, side_by_side=False))


def test_independent_functions_are_asked_at_once():
    started = []
    release = asyncio.Event()

    def waiting(number):
        async def ask(ctx):
            started.append(number)
            if len(started) == 5:
                release.set()
            await release.wait()

        return Function(f"f{number}", "none", ask, lambda ctx: number)

    pipeline = Pipeline(tuple(waiting(number) for number in range(5)))

    async def run():
        async with asyncio.timeout(10):
            return await pipeline.run({}, request())

    assert asyncio.run(run()) == 4


def test_an_effect_waits_for_everything_before_it_and_does_not_happen_after_an_error():
    effects = []
    plan = {"reads": frozenset(), "writes": frozenset(), "previous": False, "to_end": False, "optional": False}
    failing = made_function(0, plan | {"turns": 50, "ends": "error", "effect": False}, effects)
    effect = made_function(1, plan | {"turns": 0, "ends": "well", "effect": True}, effects)
    with pytest.raises(FunctionError):
        asyncio.run(Pipeline((failing, effect)).run({}, request()))
    assert effects == []


@pytest.mark.parametrize("use", ["read", "write", "delete"])
def test_a_stash_key_that_is_not_declared_is_a_defect(use):
    async def ask(ctx):
        if use == "read":
            ctx.stash.get("a")
        elif use == "write":
            ctx.stash["a"] = 1
        else:
            del ctx.stash["a"]

    with pytest.raises(UndeclaredKeyError, match="f does not declare the stash key a"):
        asyncio.run(Pipeline((Function("f", "none", ask, lambda ctx: None),)).run({}, request()))


def test_a_read_only_key_cannot_be_written():
    async def ask(ctx):
        ctx.stash["a"] = 1

    function = Function("f", "none", ask, lambda ctx: None, reads=frozenset("a"))
    with pytest.raises(UndeclaredKeyError):
        asyncio.run(Pipeline((function,)).run({}, request()))


def test_account_fanscore_needs_three_waves():
    """The longest chain of functions that wait for one another, data sources and the calculation together."""
    pipeline = RESOLVERS["VFApi.accountFanscore"].pipeline
    depth: list[int] = []
    for function in pipeline.functions:
        before = [
            depth[number]
            for number, earlier in enumerate(pipeline.functions[: len(depth)])
            if function.depends_on(earlier)
        ]
        depth.append(1 + max(before, default=0))
    assert max(depth) == 3
    assert [function.name for function in pipeline.functions] == [
        "getAccountFanscoreGlobalUserId",
        "getAccountFanscoreMemberId",
        "getArmScore",
        "getDiscoEventId",
        "getEventDemandRecord",
        "getBotOrNotCursor",
        "getBotOrNot",
        "calcAccountScore",
    ]


def test_a_caller_that_goes_away_cancels_what_is_asked():
    cancelled = []

    async def ask(ctx):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def run():
        pipeline = Pipeline(tuple(Function(f"f{n}", "none", ask, lambda ctx: None) for n in range(3)))
        task = asyncio.create_task(pipeline.run({}, request()))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert cancelled == [True, True, True]
