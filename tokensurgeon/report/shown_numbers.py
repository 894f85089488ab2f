"""Numbers of a page that say where in the report they are from.

Each is written as ``<data value="1.5281" data-of="/evaluation/entries/1/bits_per_byte">``: what is
shown can be held against report.json, by a test as by a reader. A number of entries has the place
of their list: ``<data value="3" data-count-of="/stages">``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from tokensurgeon.report import words
from tokensurgeon.report.checkpoint_tables import saved

LENGTH = "#"
"""The last part of a place, as it is given here, that means how many entries are there."""

FORMS: Mapping[str, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,}",
    "bits": lambda value: words.number(value, 4),
    "gap": lambda value: words.number(value, 4, sign=True),
    "one": lambda value: words.number(value, 1),
    "two": lambda value: words.number(value, 2),
    "three": lambda value: words.number(value, 3),
    "weight": lambda value: words.number(value, 2, sign=True),
    "percent": lambda value: f"{100 * value:z.0f} %",
    "per mille": lambda value: f"{100 * value:z.1f} %",
    "saved": saved,
    "size": words.size,
    "seconds": words.seconds,
    "id": str,
}
"""How a number is written; a share that is saved is written as the change that it is."""


class ShownNumbers:
    """Writes numbers of a report.

    Parameters
    ----------
    report : mapping
        As report.json has it.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    def value(self, place: str) -> Any:
        """Return what is at a place such as ``/rows/total``; None where nothing is."""
        found: Any = self._report
        for part in place.strip("/").split("/"):
            if part == LENGTH:
                return None if found is None else len(found)
            if isinstance(found, list):
                found = found[int(part)] if int(part) < len(found) else None
            else:
                found = None if found is None else found.get(part)
        return found

    def __call__(self, place: str, form: str = "count") -> Markup:
        """Return a number as it is written, marked; "–" where the report has none."""
        value = self.value(place)
        if value is None:
            return Markup("–")
        return Markup('<data value="{value}" {of}>{text}</data>').format(
            value=repr(value), of=_of(place), text=FORMS[form](value)
        )

    def in_picture(self, place: str, form: str, before: str = "", after: str = "") -> Markup:
        """Return attributes and content for an SVG text that is opened before and closed after."""
        value = self.value(place)
        if value is None:
            return Markup(">{}–{}").format(before, after)
        return Markup(' data-value="{value}" {of}>{before}{text}{after}').format(
            value=repr(value), of=_of(place), before=before, text=FORMS[form](value), after=after
        )


def _of(place: str) -> Markup:
    """Return the attribute that says what a number is of."""
    of, _, last = place.rpartition("/")
    if last == LENGTH:
        return Markup('data-count-of="{}"').format(of)
    return Markup('data-of="{}"').format(place)
