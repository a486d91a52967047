"""The plots of an import's report: SVG that stands in the page and takes its colours from the page's style sheet.

Built as elements, never as text, so that nothing in them can be markup. Colour is never the only sign: what was before
is drawn as an outline and what comes after as a solid bar, and every bar has its number beside it.
"""

import math
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from ..domain.import_summary import value_bins
from ..domain.import_verdict import Check
from ..domain.imports import ImportKind, VersionRecord
from .report_text import count, percent

HEAT_STEPS: Final = 5
"""Shades of a direction in the ARM matrix."""

_WIDTH: Final = 360  # units; on a phone a unit is about a pixel, so that the text stays readable there
_ROW: Final = 36  # of a bin: two bars and the gap to the next
_BAR: Final = 13
_TOP: Final = 30  # legend
_CHARACTER: Final = 7.2  # at most, of the fonts named, at 11.5 units of font size
_LEAST: Final = 1.5  # a bar of one fan is still seen

_HALF: Final = 5  # the bin that begins at 0.5
_LIMIT_AT: Final = 80  # of 120: where a check's limit is drawn, whatever it is
_CHECK_WIDTH: Final = 120


def heat(number: int, largest: int) -> int:
    """The shade of a cell of the ARM matrix, 0 (empty) to ``HEAT_STEPS``.

    By the logarithm, since few fans from 2 to 5 must be seen beside thousands from 2 to 3.
    """
    if not number:
        return 0
    return max(1, math.ceil(HEAT_STEPS * math.log1p(number) / math.log1p(largest)))


def compact(number: int) -> str:
    """A number of at most four characters and a unit, for narrow cells: ``310``, ``12.4k``, ``1.2M``."""
    for unit, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            scaled = number / unit
            # Cut, not rounded: 999,999 is not 1000.0k.
            return f"{math.floor(scaled * 10) / 10:.1f}{name}" if scaled < 100 else f"{math.floor(scaled)}{name}"  # noqa: PLR2004
    return str(number)


def values_finding(record: VersionRecord) -> str:
    """The title of the plot of values: what it shows, in one sentence."""
    before, after = record.comparison.values_before, record.comparison.values_after
    if record.kind is ImportKind.BOT_OR_NOT:
        now, then = _share(after[_HALF:], after), _share(before[_HALF:], before)
        what = "of fans have a score of 0.5 or more"
    else:
        now, then = _share(after[:1], after), _share(before[:1], before)
        what = "of fans are alone in their cluster"
    return f"{percent(now)} {what}" + (f"; it was {percent(then)}" if sum(before) else "")


def _share(part: Sequence[int], whole: Sequence[int]) -> float:
    return sum(part) / sum(whole) if sum(whole) else 0.0


def values_chart(record: VersionRecord) -> str:
    """Fans by value, the active version's and the new one's side by side, as SVG."""
    bins = value_bins(record)
    with_before = any(before for _, before, _ in bins)
    row = _ROW if with_before else _ROW - _BAR
    left = 8 + _CHARACTER * max((len(label) for label, _, _ in bins), default=0)
    longest = max((max(before, after) for _, before, after in bins), default=0) or 1
    right = 8 + _CHARACTER * len(count(longest))  # the number beside the longest bar
    scale = (_WIDTH - left - right) / longest
    svg = _svg(
        _WIDTH, _TOP + row * len(bins), "values", values_finding(record), _described(bins, with_before=with_before)
    )
    _legend(svg, left, with_before=with_before)
    for number, (label, before, after) in enumerate(bins):
        top = _TOP + number * row
        middle = top + (_BAR if with_before else _BAR / 2)
        _text(svg, left - 8, middle + 4, label, "end")
        if with_before:
            _bar(svg, left, top, before, scale, "before")
            top += _BAR
        _bar(svg, left, top, after, scale, "after")
    SubElement(svg, "line", _attributes(x1=left, x2=left, y1=_TOP - 4, y2=_TOP + row * len(bins) - 4, class_="axis"))
    return tostring(svg, encoding="unicode")


def _described(bins: Sequence[tuple[str, int, int]], *, with_before: bool) -> str:
    return "; ".join(
        f"{label}: {f'{before:,} before, ' if with_before else ''}{after:,} after" for label, before, after in bins
    )


def _legend(svg: Element, left: float, *, with_before: bool) -> None:
    place = left
    for name, text in (("before", "active version"), ("after", "new version"))[0 if with_before else 1 :]:
        SubElement(svg, "rect", _attributes(x=place + 0.5, y=4.5, width=11, height=11, class_=name))
        _text(svg, place + 17, 14, text, "start")
        place += 32 + _CHARACTER * len(text)


def _bar(svg: Element, left: float, top: float, fans: int, scale: float, name: str) -> None:
    width = max(fans * scale, _LEAST) if fans else 0.0
    if fans:
        SubElement(svg, "rect", _attributes(x=left, y=top + 0.75, width=width, height=_BAR - 1.5, class_=name))
    _text(svg, left + width + 5, top + _BAR - 2.5, count(fans), "start", "number" if name == "after" else "number soft")


def check_chart(check: Check) -> str:
    """A figure as a bar to its limit, as SVG; the limit is at the same place in every such bar."""
    within = check.share / check.most if check.most else (math.inf if check.share else 0.0)
    width = min(within * _LIMIT_AT, _CHECK_WIDTH - 8) if within < math.inf else _CHECK_WIDTH - 8
    said = f"{percent(check.share)} of at most {percent(check.most)}"
    svg = _svg(_CHECK_WIDTH, 18, "check", f"{check.what}: {'over' if check.exceeded else 'within'} the limit", said)
    svg.set("preserveAspectRatio", "none")  # as wide as its place, always as high
    SubElement(svg, "rect", _attributes(x=0, y=5, width=_CHECK_WIDTH, height=8, class_="track"))
    if check.number:
        name = "over" if check.exceeded else "after"
        SubElement(svg, "rect", _attributes(x=0, y=5, width=max(width, _LEAST), height=8, class_=name))
    SubElement(svg, "line", _attributes(x1=_LIMIT_AT, x2=_LIMIT_AT, y1=0, y2=18, class_="limit"))
    return tostring(svg, encoding="unicode")


def share_chart(parts: Sequence[int], whole: int) -> str:
    """Parts of a whole as one bar with gaps between them, as SVG; its numbers stand beside it in the page."""
    svg = Element("svg", _attributes(viewBox=f"0 0 {_CHECK_WIDTH} 8", class_="share", aria_hidden="true"))
    svg.set("preserveAspectRatio", "none")
    SubElement(svg, "rect", _attributes(x=0, y=0, width=_CHECK_WIDTH, height=8, class_="track"))
    place = 0.0
    for part in parts:
        width = _CHECK_WIDTH * part / max(whole, 1)
        if part:
            SubElement(svg, "rect", _attributes(x=place, y=0, width=max(width - 0.6, 0.6), height=8, class_="after"))
        place += width
    return tostring(svg, encoding="unicode")


def _svg(width: float, height: float, name: str, title: str, description: str) -> Element:
    svg = Element("svg", _attributes(viewBox=f"0 0 {width:g} {height:g}", class_=name, role="img", aria_label=title))
    SubElement(svg, "title").text = title
    SubElement(svg, "desc").text = description
    return svg


def _text(svg: Element, x: float, y: float, text: str, anchor: str, name: str = "") -> None:
    SubElement(svg, "text", _attributes(x=x, y=y, text_anchor=anchor, class_=name)).text = text


def _attributes(**attributes: str | float) -> dict[str, str]:
    """SVG's attributes: ``class_`` and ``text_anchor`` as SVG spells them, numbers to a tenth of a unit."""
    return {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{round(value, 2):g}"
        for name, value in attributes.items()
        if value != ""
    }
