import pytest
from graphql import parse
from graphql.language import Lexer, Source, TokenKind
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.serving.context import FunctionError
from fan_identity.serving.graphql.limits import PRODUCTION, Limits, check_document, check_text

from ..fakes import all_of


def nested(depth: int) -> str:
    return "{ a " * depth + "} " * depth


def code_of(query: str, limits: Limits = PRODUCTION) -> str | None:
    """The code a query is refused with by either check, or None."""
    try:
        check_text(query, limits)
        check_document(parse(query), limits)
    except FunctionError as error:
        return error.code
    return None


AT_AND_BEYOND = {
    "depth": (nested(10), nested(11), "TOO_DEEP"),
    "aliases": (
        "{" + " ".join(f"a{n}: x" for n in range(15)) + "}",
        "{" + " ".join(f"a{n}: x" for n in range(16)) + "}",
        "TOO_MANY_ALIASES",
    ),
    "characters": ("{ a }" + " " * 15_995, "{ a }" + " " * 15_996, "TOO_LONG"),
    "values": (
        "{ a(list: [" + "1 " * (500 - 5) + "]) }",
        "{ a(list: [" + "1 " * (501 - 5) + "]) }",
        "TOO_MANY_VALUES",
    ),
    "directives": ("{ a" + " @skip(if: true)" * 20 + "}", "{ a" + " @skip(if: true)" * 21 + "}", "TOO_MANY_DIRECTIVES"),
    "fields": (
        "{" + " ".join(f"f{n}" for n in range(200)) + "}",
        "{" + " ".join(f"f{n}" for n in range(201)) + "}",
        "TOO_MANY_FIELDS",
    ),
    "repeats": ("{" + "a " * 20 + "}", "{" + "a " * 21 + "}", "TOO_MANY_REPEATS"),
    "spreads": ("{" + "... { a } " * 15 + "}", "{" + "... { } " * 31 + "}", "TOO_MANY_FRAGMENTS"),
}


@pytest.mark.parametrize("what", AT_AND_BEYOND)
def test_at_the_limit_and_one_beyond(what):
    at, beyond, code = AT_AND_BEYOND[what]
    assert code_of(at) is None
    assert code_of(beyond) == code


def test_two_thousand_tokens_and_one_more():
    roomy = Limits(repeats=10_000, fields=10_000)
    at = "query Q { a } " * 400
    assert code_of(at, roomy) is None
    assert code_of(at + "{ a }", roomy) == "TOO_MANY_TOKENS"


def test_depth_through_fragments():
    inner = nested(6)
    for outer, code in ((4, None), (5, "TOO_DEEP")):
        query = f"fragment F on T {inner}" + "{ a " * outer + "{ ...F }" + " }" * outer
        assert code_of(query) == code


def test_aliases_through_fragments():
    aliases = " ".join(f"a{n}: x" for n in range(8))
    assert code_of(f"fragment F on T {{ {aliases} }} {{ p {{ ...F }} }}") is None
    assert code_of(f"fragment F on T {{ {aliases} }} {{ p {{ ...F }} q {{ ...F }} }}") == "TOO_MANY_ALIASES"


def test_a_tree_of_fragments_is_counted_without_growing_it():
    """Fourteen fragments that use the next one twice: 16,384 fields in a text of 60 names."""
    parts = [f"fragment F{n} on T {{ ...F{n + 1} ...F{n + 1} }}" for n in range(14)]
    query = "{ ...F0 } " + " ".join(parts) + " fragment F14 on T { a }"
    assert code_of(query) == "TOO_MANY_FIELDS"


@pytest.mark.parametrize(
    "query",
    [
        "{ ...A } fragment A on T { ...A }",
        "{ ...A } fragment A on T { a { ...B } } fragment B on T { ... on T { ...A } }",
        "{ a } fragment A on T { ...B } fragment B on T { ...A }",
    ],
    ids=["of itself", "of two", "that nobody uses"],
)
def test_fragment_cycles(query):
    assert code_of(query) == "FRAGMENT_CYCLE"


@pytest.mark.parametrize(
    "query",
    [
        'query Q($a: I = {b: {c: 1}, d: [{e: 2}]}) { x(in: {a: {b: {c: {d: "}{{{"}}}}) }',
        '{ x(s: """ { { { a: b c: d ... @ """) }',
        "{ x # { { { a: b @ ... \n }",
        '{ x(s: "\\"{ a: b") }',
        "query ($a: A, $b: B, $c: C) { x(a: $a, b: $b, c: $c) }",
    ],
)
def test_arguments_strings_and_comments_are_no_selections(query):
    assert code_of(query, Limits(depth=1, aliases=0, directives=0, spreads=0)) is None


names = st.sampled_from(["a", "b", "on", "fragment", "query", "_x9"])
pieces = st.recursive(
    names,
    lambda inner: st.one_of(
        st.tuples(names, inner).map(lambda pair: f"{pair[0]}: {pair[1]}"),
        st.lists(inner, min_size=1, max_size=4).map(lambda many: "a { " + " ".join(many) + " }"),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: "... on T @skip(if: true) { " + " ".join(many) + " }"),
        inner.map(lambda one: f'x(a: [1, -2.5e3, {{k: "{{"}}]) , {one}'),
    ),
    max_leaves=12,
)


@given(st.lists(pieces, min_size=1, max_size=4))
def test_the_scan_counts_what_the_lexer_and_the_parser_count(selections):
    """Tokens against graphql-core's lexer; depth, aliases, fields, directives and spreads against its parser."""
    from graphql import DirectiveNode, FieldNode, InlineFragmentNode, visit  # noqa: PLC0415
    from graphql.language import Visitor  # noqa: PLC0415

    query = "{ " + " ".join(selections) + " }"
    try:
        document = parse(query)
    except Exception:  # an alias of an alias: no query
        return
    counted = {"tokens": 0, "fields": 0, "aliases": 0, "directives": 0, "spreads": 0, "depth": 0}
    lexer = Lexer(Source(query))
    while lexer.advance().kind is not TokenKind.EOF:
        counted["tokens"] += 1

    class Counting(Visitor):
        depth = 0

        def enter_selection_set(self, *_):
            self.depth += 1
            counted["depth"] = max(counted["depth"], self.depth)

        def leave_selection_set(self, *_):
            self.depth -= 1

        def enter(self, node, *_):
            counted["fields"] += isinstance(node, FieldNode)
            counted["aliases"] += isinstance(node, FieldNode) and node.alias is not None
            counted["directives"] += isinstance(node, DirectiveNode)
            counted["spreads"] += isinstance(node, InlineFragmentNode)

    visit(document, Counting())
    for name, number in counted.items():
        check_text(query, Limits(**{name: number}, **({"repeats": 10_000} if name != "repeats" else {})))
        if number:
            with pytest.raises(FunctionError):
                check_text(query, Limits(**{name: number - 1}, repeats=10_000))


@given(st.text(alphabet='{}():"\\#.@$!a1 \n…é\0\u2028', max_size=60))
def test_no_text_breaks_the_scan(text):
    try:
        check_text(text, PRODUCTION)
    except FunctionError as error:
        assert error.error_type == "400"


BOMBS = {
    "depth": nested(11),
    "aliases": "{" + " ".join(f'a{n}: getArmScore(globalUserId: "u")' for n in range(16)) + "}",
    "aliases under one field": "{ api {"
    + " ".join(f'a{n}: accountFanscore(globalUserId: "u") {{ score }}' for n in range(16))
    + "} }",
    "tokens": "{" + "a " * 30_000 + "}",
    "directives": '{ getArmScore(globalUserId: "u")' + " @include(if: true)" * 300 + "}",
    "unknown directives": "{ __typename" + " @a" * 600 + "}",
    "cycle": "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    "tree of fragments": "{ ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(14))
    + " fragment F14 on Query { __typename }",
    "one field again and again": "{" + "__typename " * 900 + "}",
    "brackets": "{ a(x: " + "[" * 1_500,
    "braces": "{" * 1_900,
    "a long string": '{ getArmScore(globalUserId: "' + "x" * 60_000 + '") { a',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_any_data_source_is_asked(filled, bomb):
    status, answer = filled.post({"query": BOMBS[bomb]})
    assert status == 400
    assert answer["data"] is None
    (error,) = answer["errors"]
    assert error["errorType"] == "400" and error["errorInfo"]["code"]
    assert filled.requests == [] and all(source.calls == 0 for source in all_of(filled.sources))


def test_a_batch_of_five_is_answered_and_of_six_refused(filled):
    one = {"query": '{ getArmScore(globalUserId: "user123") }'}
    status, answers = filled.post([one] * 5)
    assert status == 200
    assert answers == [{"data": {"getArmScore": 1}}] * 5
    calls = filled.sources.arm.calls
    status, answer = filled.post([one] * 6)
    assert status == 400 and answer["errors"][0]["errorInfo"] == {"code": "BATCH_TOO_LARGE"}
    assert filled.sources.arm.calls == calls


def test_one_bomb_in_a_batch_refuses_the_batch(filled):
    status, answer = filled.post([{"query": '{ getArmScore(globalUserId: "user123") }'}, {"query": BOMBS["aliases"]}])
    assert status == 400 and answer["errors"][0]["errorInfo"] == {"code": "TOO_MANY_ALIASES"}
    assert filled.sources.arm.calls == 0
