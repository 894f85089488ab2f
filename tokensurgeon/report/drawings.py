"""The pictures of a surgery's page, as SVG that takes its colours from the page's style.

Numbers in them are marked as those of the page are (`shown_numbers`); coordinates are layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 360
"""Units across: as wide as a phone, so that letters there have the size that they are given."""
LINE = 40
"""Units that a line of a chart takes: its words, and what is drawn below them."""
BAR = 100
"""Units across a bar of a table."""
MARKS = {"left_out": ("round", 2.2), "copied": ("round", 3.4), "new": ("square", 3.4)}
"""Of each kind of row on a map: the shape of its points and their size. The last lie on top."""


@dataclass(frozen=True)
class Point:
    """A line of a chart: a value with its interval, and how it is written (marked)."""

    name: str
    at: float
    low: float
    high: float
    written: Markup
    main: bool = False


def _picture(name: str, height: float, title: str, about: str, body: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {width} {height:g}" role="img" aria-labelledby="{name}-title '
        '{name}-desc"><title id="{name}-title">{title}</title><desc id="{name}-desc">{about}</desc>'
        "{body}</svg>"
    ).format(
        width=WIDTH, height=height, name=name, title=title, about=about, body=Markup("").join(body)
    )


def gaps(points: Sequence[Point]) -> Markup:
    """Return the chart of gaps to the source, each with its interval, above one scale."""
    low = min(0.0, *(point.low for point in points))
    high = max(0.0, *(point.high for point in points))
    scale = (WIDTH - 24) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(12 + (value - low) * scale, 1)

    bottom = LINE * len(points) + 8
    body = [Markup('<path class="axis" d="M{x} 4V{y}"/>').format(x=x(0.0), y=bottom)]
    for i, point in enumerate(points):
        y = LINE * i + 30
        body.append(
            Markup(
                '<g class="{kind}"><text x="18" y="{text}">{name}</text>'
                '<text x="{right}" y="{text}" text-anchor="end"{written}</text>'
                '<path class="bar" d="M{zero} {y}H{at}"/><path class="line" d="M{low} {y}H{high}'
                'M{low} {top}v8M{high} {top}v8"/><circle cx="{at}" cy="{y}" r="4"/></g>'
            ).format(
                kind="main" if point.main else "other", text=y - 10, name=point.name,
                right=WIDTH - 12, written=point.written, zero=x(0.0), at=x(point.at), y=y,
                top=y - 4, low=x(point.low), high=x(point.high),
            )
        )  # fmt: skip
    body.append(
        Markup('<text class="small" x="{x}" y="{y}"{anchor}>the source</text>').format(
            x=x(0.0),
            y=bottom + 14,
            anchor=Markup(' text-anchor="end"') if x(0.0) > WIDTH / 2 else "",
        )
    )
    about = (
        "One line for each model: its bits per byte above the source and the interval of that. "
        "The table below has the same figures."
    )
    return _picture("gaps", bottom + 20, "Bits per byte above the source", about, body)


def shares(parts: Sequence[tuple[str, str, int]]) -> Markup:
    """Return one bar of parts; each has a class, a name and a count."""
    total = sum(count for _, _, count in parts) or 1
    body, left = [], 0.0
    for kind, name, count in parts:
        width = (WIDTH - 2) * count / total
        body.append(
            Markup(
                '<rect class="{kind}" x="{x:.1f}" y="2" width="{w:.1f}" height="26"><title>{name}'
                "</title></rect>"
            ).format(kind=kind, x=1 + left, w=width, name=name)
        )
        left += width
    about = "One bar of all tokens of the target, parted by kind. The table below has the counts."
    return _picture("alignment", 30, "Tokens of the target by where they are from", about, body)


def row_map(
    name: str, title: str, points: dict[str, Sequence[Sequence[float]]], axes: Sequence[Markup]
) -> Markup:
    """Return rows as points of a plane.

    Parameters
    ----------
    name : str
        Of the picture on its page.
    title : str
    points : dict of list of (float, float)
        By the names of `MARKS`.
    axes : two markups
        What is written at either axis, as attributes and text of an SVG text.
    """
    every = [point for of_kind in points.values() for point in of_kind]
    (left, right), (low, high) = (
        (min(values, default=0.0), max(values, default=1.0))
        for values in ([point[k] for point in every] for k in (0, 1))
    )
    height = 300
    across = (WIDTH - 40) / ((right - left) or 1.0)
    up = (height - 40) / ((high - low) or 1.0)
    body = [
        Markup('<path class="axis" d="M24 8V{y}H{x}"/>').format(y=height - 24, x=WIDTH - 8),
        Markup('<text class="small" x="{x}" y="{y}" text-anchor="end"{said}</text>').format(
            x=WIDTH - 8, y=height - 8, said=axes[0]
        ),
        Markup(
            '<text class="small" transform="translate(15 8) rotate(-90)" text-anchor="end"{said}'
            "</text>"
        ).format(said=axes[1]),
    ]
    for kind, (shape, size) in MARKS.items():
        path = "".join(
            f"M{30 + (x - left) * across:.1f} {height - 30 - (y - low) * up:.1f}h0"
            for x, y in points[kind]
        )
        body.append(
            Markup(
                '<path class="dots {kind}" d="{path}" stroke-linecap="{shape}" '
                'stroke-width="{size}"/>'
            ).format(kind=kind, path=path, shape=shape, size=size)
        )
    about = (
        "Each point is a row on the plane of the largest variance of the trained rows of the "
        "source: rows that were left out, rows that were copied, and new rows."
    )
    return _picture(name, height, title, about, body)


def bar(value: float, largest: float, *, signed: bool = False) -> Markup:
    """Return the bar of a cell of a table, to the right of zero or, with `signed`, to either side.

    The cell beside it has the number, so it is hidden from those who do not see it.
    """
    half = BAR / 2 if signed else BAR
    length = half * min(abs(value) / largest, 1.0) if largest else 0.0
    zero = half if signed else 0.0
    start = zero - length if value < 0 else zero
    return Markup(
        '<svg class="cell" viewBox="0 0 {width} 10" aria-hidden="true" focusable="false">'
        '<rect class="{kind}" x="{x:.1f}" y="1" width="{w:.1f}" height="8"/></svg>'
    ).format(
        width=BAR, kind="fall" if value < 0 else "rise", x=start, w=max(length, 0.5)
    )  # fmt: skip
