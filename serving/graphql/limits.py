"""What bounds a query before anything is asked: refused in well under five milliseconds.

Parsing and validating take graphql-core ten milliseconds and more for what these limits refuse, so a scan over the
text comes first. It counts the tokens of the GraphQL specification (October 2021, section 2.1) in one pass of a regular
expression and knows just enough grammar to tell selections from arguments. What only fragments multiply is counted on
the parsed document, each fragment once.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from ..context import FunctionError


@dataclass(frozen=True)
class Limits:
    """The most a query may have.

    Attributes:
        depth: selection sets inside one another, those of fragments included.
        aliases: over the whole query, fragments as often as they are used.
        characters: of the text.
        tokens: of the text.
        values: tokens between parentheses: arguments and variables' definitions.
        batch: operations in one request.
        directives: over the text.
        spreads: fragments used, inline ones included.
        fields: over the whole query, fragments as often as they are used.
        repeats: one response name, over the text; comparing them is what makes validation slow.
    """

    depth: int = 10
    aliases: int = 15
    characters: int = 16_000
    tokens: int = 2_000
    values: int = 500
    batch: int = 5
    directives: int = 20
    spreads: int = 30
    fields: int = 200
    repeats: int = 20


PRODUCTION: Final = Limits()
DEVELOPMENT: Final = Limits(depth=20, fields=1_000)
"""For GraphiQL, whose introspection query is deeper and longer than any other."""

_TOKEN: Final = re.compile(
    r"(?P<name>[_A-Za-z][_0-9A-Za-z]*)|(?P<mark>\.\.\.|[!$&()\[\]{}:=@|])"
    r'|(?P<string>"""(?:[^"\\]|\\"""|\\|"(?!""))*+"""|"(?:[^"\\\n\r]|\\.)*+")'
    r"|(?P<number>-?[0-9][0-9.eE+-]*+)|(?P<nothing>[\s,\ufeff]++|#[^\n\r]*+)|(?P<other>.)"
)


def refuse(what: str, limit: int, code: str) -> FunctionError:
    """The error for a query beyond a limit."""
    return FunctionError(f"the query has more than {limit:,} {what}", "400", code)


def check_text(query: str, limits: Limits, known: frozenset[str] | None = None) -> None:
    """Counts a query's text.

    Args:
        query: a GraphQL document.
        limits: what it may have.
        known: names of fields there are, on any type; None to let validation find out, which takes milliseconds.

    Raises:
        FunctionError: 400, it has more, or a field that no type has.
    """
    if len(query) > limits.characters:
        raise refuse("characters", limits.characters, "TOO_LONG")
    scan = _Scan(limits)
    scan.over(query)
    if known is not None and not scan.names.keys() <= known:
        raise FunctionError("the query has a field that there is not", "400", "BAD_QUERY")


class _Scan:
    """One pass over a text; raises as soon as a limit is passed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tokens = self._aliases = self._directives = self._spreads = self._fields = 0
        self._parentheses = self._depth = self._values = 0
        self.names: Counter[str] = Counter()
        self._last = ""

    def over(self, query: str) -> None:
        after: str = ""
        for match in _TOKEN.finditer(query):
            kind = match.lastgroup
            if kind == "nothing":
                continue
            self._tokens += 1
            if self._tokens > self._limits.tokens:
                raise refuse("tokens", self._limits.tokens, "TOO_MANY_TOKENS")
            if self._parentheses:
                self._values += 1
                if self._values > self._limits.values:
                    raise refuse("tokens in arguments", self._limits.values, "TOO_MANY_VALUES")
            text = match[0]
            if kind == "mark":
                self._mark(text)
                after = text
            elif kind == "name":
                if not self._parentheses and self._depth and after not in ("...", "@", "on"):
                    self._field(text)
                after = "on" if after == "..." and text == "on" else ""
            else:
                after = ""

    def _mark(self, mark: str) -> None:
        if mark == "(":
            self._parentheses += 1
        elif mark == ")":
            self._parentheses = max(self._parentheses - 1, 0)
        elif mark == "@":
            self._directives += 1
            if self._directives > self._limits.directives:
                raise refuse("directives", self._limits.directives, "TOO_MANY_DIRECTIVES")
        elif self._parentheses:
            return
        elif mark == "{":
            self._depth += 1
            if self._depth > self._limits.depth:
                raise refuse("levels", self._limits.depth, "TOO_DEEP")
        elif mark == "}":
            self._depth = max(self._depth - 1, 0)
        elif mark == "...":
            self._spreads += 1
            if self._spreads > self._limits.spreads:
                raise refuse("fragments in use", self._limits.spreads, "TOO_MANY_FRAGMENTS")
        elif mark == ":" and self._depth:
            self._alias()

    def _alias(self) -> None:
        self._aliases += 1
        if self._aliases > self._limits.aliases:
            raise refuse("aliases", self._limits.aliases, "TOO_MANY_ALIASES")
        self._fields -= 1  # the alias was counted as a field of its own
        self.names[self._last] -= 1
        if not self.names[self._last]:
            del self.names[self._last]

    def _field(self, name: str) -> None:
        self._fields += 1
        if self._fields > self._limits.fields:
            raise refuse("fields", self._limits.fields, "TOO_MANY_FIELDS")
        self._last = name
        self.names[name] += 1
        if self.names[name] > self._limits.repeats:
            raise refuse("fields of one name", self._limits.repeats, "TOO_MANY_REPEATS")


@dataclass
class _Size:
    depth: int = 0
    aliases: int = 0
    fields: int = 0


def check_document(document: DocumentNode, limits: Limits) -> None:
    """Counts a parsed query with its fragments put in their places, without putting them there.

    Raises:
        FunctionError: 400, it has more than it may, or fragments that contain themselves.
    """
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    known: dict[str, _Size | None] = {}

    def of_fragment(name: str) -> _Size:
        if name in known:
            size = known[name]
            if size is None:
                raise FunctionError("a fragment contains itself", "400", "FRAGMENT_CYCLE")
            return size
        fragment = fragments.get(name)
        if fragment is None:
            return _Size()  # validation says so
        known[name] = None
        size = known[name] = of_set(fragment.selection_set)
        return size

    def of_set(selection_set: SelectionSetNode | None) -> _Size:
        size = _Size()
        if selection_set is None:
            return size
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                inner = of_set(node.selection_set)
                size.fields += 1
                size.aliases += node.alias is not None
                inner.depth += 1
            elif isinstance(node, FragmentSpreadNode):
                inner = of_fragment(node.name.value)
            elif isinstance(node, InlineFragmentNode):
                inner = of_set(node.selection_set)
            else:
                continue
            size.depth = max(size.depth, inner.depth)
            size.aliases += inner.aliases
            size.fields += inner.fields
        return size

    for name in fragments:
        of_fragment(name)  # also those no operation uses: a cycle is one
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            size = of_set(node.selection_set)
            if size.depth > limits.depth:
                raise refuse("levels", limits.depth, "TOO_DEEP")
            if size.aliases > limits.aliases:
                raise refuse("aliases", limits.aliases, "TOO_MANY_ALIASES")
            if size.fields > limits.fields:
                raise refuse("fields", limits.fields, "TOO_MANY_FIELDS")
