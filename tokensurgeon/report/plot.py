"""A comparison as a picture: each method's gap to the source with its interval.

`write_plot` writes PNG, SVG or one HTML page that holds the picture and the table; matplotlib is
loaded only then.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import MissingExtraError, UsageError
from tokensurgeon.outputs import write_whole
from tokensurgeon.report import checkpoint_tables, gap, span_tables, words
from tokensurgeon.report.pages import fill
from tokensurgeon.report.words import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SUFFIXES = (".png", ".svg", ".html")

COLOURS = {
    "nothing": "#4c566a",
    "donor rows": "#2a6fb0",
    "text": "#b5651d",
    "donor rows and text": "#2e7d4f",
}
"""By what a method had besides the source and the two tokenizers."""
LIMIT = "#9b2335"

OF_PAGE = {
    "#000000": "ink",
    "#111111": "ink",
    "#333333": "ink",
    "#dddddd": "line",
    "#ffffff": "paper",
    COLOURS["nothing"]: "soft",
    COLOURS["donor rows"]: "main",
    COLOURS["text"]: "new",
    COLOURS["donor rows and text"]: "control",
    LIMIT: "limit",
}
"""What each colour of the picture is on a page, by its name in style.css.jinja."""


def check_path(path: str | Path) -> None:
    """Refuse a file that no picture can be written to.

    Raises
    ------
    UsageError
        If its name ends in none of `SUFFIXES`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is no picture: its name must end in {', '.join(SUFFIXES)}")


def write_plot(path: str | Path, comparison: Mapping[str, Any]) -> None:
    """Write a comparison as a picture or a page.

    Parameters
    ----------
    path : path
        Ends in one of `SUFFIXES`; replaced if it exists, and there whole or not at all.
    comparison : mapping
        As ``Comparison.to_dict()``, or `as_comparison` of finished checkpoints.

    Raises
    ------
    UsageError
        If the suffix is another one.
    MissingExtraError
        Without matplotlib.
    """
    check_path(path)
    path = Path(path)
    if path.suffix.lower() == ".html":
        data = page(comparison).encode("utf-8")
    else:
        data = picture(comparison, path.suffix.lower()[1:])
    write_whole(path, data)


def picture(comparison: Mapping[str, Any], form: str) -> bytes:
    """Return the picture as ``png`` or ``svg``; the same table gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    # Text stays text in SVG, and neither format is given a date or random names.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tokensurgeon"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        _draw(comparison).savefig(buffer, format=form, dpi=150, metadata=metadata)
    return buffer.getvalue()


def page(comparison: Mapping[str, Any]) -> str:
    """Return one HTML page with the picture and the table; it loads nothing from elsewhere."""
    svg = _in_page_colours(picture(comparison, "svg").decode("utf-8"))
    figures = [words.figure_of(row) for row in comparison["rows"]]
    measured = [figure for figure in figures if figure.error is None]
    best, parts = gap.of_best(comparison)
    entries = comparison["evaluation"]["entries"]
    return fill(
        "comparison.html.jinja",
        facts=comparison["facts"],
        heading=heading(comparison["facts"]),
        svg=svg[svg.index("<svg") :],
        figures=measured,
        failed=[figure for figure in figures if figure.error is not None],
        notes=[
            *words.after_steps(comparison["facts"]),
            *comparison["facts"].get("notes", ()),
            *words.notes(measured),
        ],
        groups=comparison.get("groups") or {},
        group_headings=checkpoint_tables.group_headings(),
        group_cells=checkpoint_tables.group_cells,
        after_steps=words.after_steps_heading(comparison["facts"]),
        closed=any(figure.closed is not None for figure in measured),
        adapted=any(figure.gap_adapted is not None for figure in measured),
        body=any(figure.body_numbers for figure in measured),
        text=comparison["evaluation"]["text"],
        protocol=comparison["evaluation"]["protocol"],
        best=best,
        gap=gap.table(parts),
        largest=gap.largest(parts),
        span_headings=span_tables.headings(entries),
        spans=span_tables.rows(entries),
        number=words.number,
        percent=words.percent,
    )


def _in_page_colours(svg: str) -> str:
    """Return a picture with the colours of a page, which has a light and a dark scheme."""

    def of_page(match: re.Match[str]) -> str:
        return f"{match[1]}var(--{OF_PAGE[match[2]]})" if match[2] in OF_PAGE else match[0]

    return re.sub(r"\b((?:fill|stroke): )(#[0-9a-f]{6})\b", of_page, svg)


def heading(facts: Mapping[str, Any]) -> str:
    """Say in one line what was compared."""
    if "checkpoints" in facts:
        beside = ", ".join(facts["checkpoints"][1:])
        by = f", by {facts['by']}" if facts["by"] else ""
        return f"{beside} beside {facts['source']}{by}"
    source, target = (words.short(facts[key]) for key in ("source", "target"))
    if facts["target"] == "trained":
        target = "a vocabulary trained for it"
    how = " (tied)" if facts.get("tied") else " (untied)" if facts.get("untied") else ""
    return f"{source}{how} → {target}"


def given(figure: Figure) -> str:
    """Return which of `COLOURS` a method belongs to."""
    if figure.donor:
        return "donor rows and text" if figure.text_bytes else "donor rows"
    return "text" if figure.text_bytes else "nothing"


def _draw(comparison: Mapping[str, Any]) -> Picture:
    try:
        from matplotlib.figure import Figure as Picture
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise MissingExtraError(
            "a plot needs matplotlib: python -m pip install 'tokensurgeon[plots]'"
        ) from error

    figures = [words.figure_of(row) for row in checkpoint_tables.group_rows(comparison)]
    source = figures[0]
    measured = [one for one in figures if one.error is None and one.gap is not None]
    image = Picture(figsize=(9.0, 1.9 + 0.34 * max(len(measured), 1)), layout="constrained")
    axes = image.add_subplot()
    gaps = [one.gap or 0.0 for one in measured]
    for place, one in enumerate(measured):
        colour = COLOURS[given(one)]
        at = one.gap or 0.0
        said, right = f"{at:+.3f}", at
        low, high = one.interval or (at, at)
        axes.hlines(place, min(0.0, at), max(0.0, at), color=colour, alpha=0.25, linewidth=6)
        axes.errorbar(
            at, place, xerr=[[at - low], [high - at]], fmt="o", color=colour, markersize=5,
            capsize=3, linewidth=1.4,
        )  # fmt: skip
        if one.after_steps is not None and source.after_steps is not None:
            later = one.after_steps - source.after_steps
            axes.plot(later, place, marker="D", color=colour, markersize=5, fillstyle="none")
            said, right = f"{said}, then {later:+.3f}", max(at, later)
        axes.annotate(
            said, (max(high, right), place), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=8, color="#333333",
        )  # fmt: skip
    axes.axvline(0.0, color="#111111", linewidth=1.2)
    finished = "checkpoints" in comparison["facts"]
    name = comparison["facts"]["source"] if finished else "source"
    lines = [f"{name}, {words.number(source.bits_per_byte, 3)}"]
    marks = [Line2D([], [], color="#111111", linewidth=1.2)]
    known = comparison["facts"].get("trained_limit")
    if known is not None and source.bits_per_byte is not None:
        limit = float(known["limit"])
        axes.axvline(limit - source.bits_per_byte, color=LIMIT, linestyle="--", linewidth=1.2)
        lines.append(f"trained limit, {limit:.3f}")
        marks.append(Line2D([], [], color=LIMIT, linestyle="--", linewidth=1.2))
    # Nobody knows what finished checkpoints were given.
    for what in () if finished else dict.fromkeys(given(one) for one in measured):
        lines.append(f"given {what}")
        marks.append(Line2D([], [], color=COLOURS[what], marker="o", linestyle=""))
    under = f"bits per byte above {name if finished else 'the source'}, with 95 % interval"
    after_steps = words.after_steps_heading(comparison["facts"])
    if after_steps is not None:
        lines.append(f"{after_steps}, above the source trained alike")
        marks.append(
            Line2D([], [], color=COLOURS["nothing"], marker="D", fillstyle="none", linestyle="")
        )
        under += f"\n{words.rank_correlation(comparison['facts']['after_steps'])}"
    axes.set_yticks(range(len(measured)), [one.name for one in measured], fontsize=9)
    axes.set_ylim(max(len(measured), 1) - 0.4, -0.6)
    axes.set_xlabel(under, fontsize=9)
    axes.set_title(heading(comparison["facts"]), fontsize=10, loc="left")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    # Room for the figure beside the last point.
    span = max([*gaps, 1e-6]) - min([*gaps, 0.0])
    room = 0.08 if after_steps is None else 0.2
    axes.set_xlim(axes.get_xlim()[0], axes.get_xlim()[1] + room * span)
    image.legend(marks, lines, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return image
