"""One HTML page of a surgery, made from its report alone: nothing is loaded, nothing runs.

A number stands as the report has it, and says where that is (`shown_numbers`). Arithmetic is left
to those who fill the report; what is computed here is where things stand on the page.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokensurgeon.inspection.spans import visible
from tokensurgeon.outputs import write_whole
from tokensurgeon.report import added_tokens, decisions, drawings, gap, trim_words, words
from tokensurgeon.report.pages import fill
from tokensurgeon.report.records import ORIGINS, read_report
from tokensurgeon.report.shown_facts import NewTokenFact
from tokensurgeon.report.shown_numbers import ShownNumbers
from tokensurgeon.report.surgery_report import SurgeryReport

TEMPLATE = "surgery.html.jinja"
MOST_PARTS = 14
"""Kinds of token in the table of losses; the smallest are left to report.json."""
CLASSES = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "headless": "AutoModel",
}
"""What transformers loads a kind of model as."""
KINDS = {"left_out": "left out", "copied": "copied", "new": "new"}
"""What rows on a map are called."""
SIDES = {"both": "one matrix for both sides", "input": "input side", "output": "output side"}
"""What the matrices are called."""


def surgery_page(report: SurgeryReport, path: str | None = None) -> str:
    """Return the page of a surgery.

    Parameters
    ----------
    report : SurgeryReport
    path : str, optional
        Where the checkpoint is, for the lines that load it; else what the report says.
    """
    shown = ShownNumbers(json.loads(report.to_json()))
    place = path or report.written_to or "PATH"
    trim = report.trim
    return fill(
        TEMPLATE,
        report=report,
        f=shown,
        source=words.short(report.source.path),
        target=words.short(report.target.path),
        donor=words.short(report.donor.path) if report.donor else None,
        sides=[(name, name or "output", side) for name, side in report.sides("")],
        methods=words.methods(report),
        kept_stages=[stage.stage for stage in report.stages if stage.kept],
        body=words.body(report),
        untying=words.untying(report),
        patched=_index_of(report, "patched"),
        given=_figures(report, "evaluation", shown),
        elsewhere=_figures(report, "elsewhere", shown),
        notes=words.notes(words.figures(report)),
        chart=_chart(report, shown),
        extension=added_tokens.lines(report),
        parts=_parts(report),
        left_parts=_left_parts(report),
        largest=gap.largest(gap.patched_parts(report)),
        on_numbers=gap.on_numbers(report),
        ends=_ends(report, shown),
        maps=_maps(report, shown),
        kinds=KINDS,
        alignment=_alignment(report),
        cuts=_cuts(report),
        audit=words.rows_to_look_at(report),
        choice=_choice(report),
        timings=_timings(report),
        load=load_lines(report, place),
        trim=trim,
        trim_kept=trim_words.kept(trim) if trim else None,
        trim_sizes=trim_words.size_rows(trim) if trim else (),
        trim_headings=trim_words.SIZE_HEADINGS,
        trim_proof=_proof(report),
        trim_others=trim_words.other_rows(trim) if trim else (),
        trim_other_headings=trim_words.OTHER_HEADINGS,
        choice_headings=decisions.CHOICE_HEADINGS,
    )


def write_surgery_page(checkpoint: str | Path, path: str | Path) -> Path:
    """Write the page of a finished checkpoint, from its report.json, to a file of its own.

    The folder itself is not touched: its manifest lists what is in it.

    Parameters
    ----------
    checkpoint : str or Path
        A folder that `transplant`, `extend` or `trim` wrote, by this version or an older one; what
        an older report does not say is left out of the page.
    path : str or Path
        The page; replaced if it exists, and there whole or not at all.

    Raises
    ------
    CheckpointError
        If the folder has no report, or one that cannot be read.
    """
    path = Path(path)
    report = read_report(Path(checkpoint))
    write_whole(path, surgery_page(report, str(checkpoint)).encode("utf-8", "backslashreplace"))
    return path


@dataclass(frozen=True)
class Line:
    """A model of a table: its name, what it was given, and where the report has its entry."""

    name: str
    given: str
    place: str
    gap: str | None
    """Where its gap is; None of the source."""


def _index_of(report: SurgeryReport, name: str) -> str | None:
    """Return where the report has an entry of the evaluation; None where it has none."""
    for i, entry in enumerate((report.evaluation or {}).get("entries", ())):
        if entry["name"] == name:
            return f"/evaluation/entries/{i}"
    return None


def _figures(report: SurgeryReport, key: str, shown: ShownNumbers) -> list[Line]:
    lines = []
    for i, figure in enumerate(words.figures(report, key)):
        place = f"/{key}/entries/{i}"
        has_gap = shown.value(f"{place}/difference") is not None
        given = "" if figure.name == "source" else figure.given
        lines.append(Line(figure.name, given, place, f"{place}/difference" if has_gap else None))
    return lines


def _chart(report: SurgeryReport, shown: ShownNumbers) -> Markup | None:
    points = []
    for line in _figures(report, "evaluation", shown):
        if line.gap is None:
            continue
        at, low, high = (
            float(shown.value(f"{line.gap}/{key}")) for key in ("estimate", "low", "high")
        )
        written = shown.in_picture(f"{line.gap}/estimate", "gap")
        main = line.place == _index_of(report, "patched")
        points.append(drawings.Point(line.name, at, low, high, written, main))
    return drawings.gaps(points) if points else None


def _parts(report: SurgeryReport) -> list[tuple[str, str, Markup, tuple[str, ...]]]:
    """Return the kinds of token that the gap is made of: name, place, bar, costly tokens."""
    place = _index_of(report, "patched")
    parts = gap.patched_parts(report)
    largest = max((abs(part.excess) for part in parts), default=0.0)
    order = sorted(range(len(parts)), key=lambda i: -abs(parts[i].excess))[:MOST_PARTS]
    return [
        (
            parts[i].name,
            f"{place}/excess/{i}",
            drawings.bar(parts[i].excess, largest, signed=True),
            tuple(map(_on_a_line, parts[i].examples)),
        )
        for i in sorted(order)
    ]


def _on_a_line(text: str) -> str:
    """Return a token with visible white space, on one line."""
    return visible(text.encode("utf-8", "replace")).replace("\n", "")


def _left_parts(report: SurgeryReport) -> bool:
    return len(gap.patched_parts(report)) > MOST_PARTS


@dataclass(frozen=True)
class TokenLine:
    """A new token of the table of costs: where its figures are, and where its row came from."""

    place: str
    text: str
    pieces: tuple[str, ...]
    sides: tuple[tuple[str, tuple[tuple[str, str], ...], bool], ...]
    """Of each side where its row is from, its largest weights (where the weight is, and the
    token), and whether there are more."""


def _ends(report: SurgeryReport, shown: ShownNumbers) -> list[tuple[str, list[TokenLine]]]:
    """Return the new tokens that lose most and least, under their headings."""
    place = _index_of(report, "patched")
    facts = {fact.id: (i, fact) for i, fact in enumerate(report.new_tokens)}
    tables = []
    for end, title in (("worst", "That lose most"), ("best", "That lose least, or gain")):
        costs: Sequence[Mapping[str, Any]] = shown.value(f"{place}/new_tokens/{end}") or ()
        lines = [
            _token_line(f"{place}/new_tokens/{end}/{i}", cost, facts.get(cost["id"]))
            for i, cost in enumerate(costs)
        ]
        if lines:
            tables.append((title, lines))
    return tables


def _token_line(
    place: str, cost: Mapping[str, Any], known: tuple[int, NewTokenFact] | None
) -> TokenLine:
    text = _on_a_line(cost["text"])
    if known is None:
        return TokenLine(place, text, (), ())
    i, fact = known
    first, *others = fact.sides
    # Where both sides are made alike, they are said once.
    alike = all(one == first.model_copy(update={"side": one.side}) for one in others)
    sides = []
    for k, side in enumerate(fact.sides[:1] if alike else fact.sides):
        weights = tuple(
            (f"/new_tokens/{i}/sides/{k}/weights/{n}/weight", weight.spelling)
            for n, weight in enumerate(side.weights)
        )
        origin = ORIGINS.get(side.origin, side.origin).format(method=side.method)
        heading = "" if alike or side.side == "both" else f"{side.side}: "
        sides.append((heading + origin, weights, len(side.weights) < side.n_weights))
    return TokenLine(place, text, fact.pieces, tuple(sides))


def _maps(report: SurgeryReport, shown: ShownNumbers) -> list[tuple[str, str, Markup]]:
    """Return the maps of rows: heading, place, picture."""
    maps = []
    for i, one in enumerate(report.row_maps):
        place = f"/row_maps/{i}"
        axes = [
            shown.in_picture(f"{place}/explained/{k}", "per mille", after=" of the variance")
            for k in (0, 1)
        ]
        title = f"Rows, {SIDES[one.side]}"
        points = {kind: getattr(one, kind) for kind in drawings.MARKS}
        maps.append((title, place, drawings.row_map(f"map-{one.side}", title, points, axes)))
    return maps


@dataclass(frozen=True)
class AlignmentView:
    """The bar of the alignment, and its lines: class, name, place."""

    picture: Markup
    lines: tuple[tuple[str, str, str], ...]


def _alignment(report: SurgeryReport) -> AlignmentView | None:
    summary = report.alignment
    known = [
        ("copied", "text that the source has too", "shared_text_tokens"),
        ("new", "text that the source lacks", "missing"),
        ("control", "controls with a counterpart", "matched_controls"),
        ("unmatched", "controls without one", "unmatched_controls"),
        ("hole", "ids without a token", "padding"),
    ]
    if any(key not in summary for _, _, key in known):
        return None
    bar = drawings.shares([(kind, name, int(summary[key])) for kind, name, key in known])
    return AlignmentView(
        bar, tuple((kind, name, f"/alignment/{key}") for kind, name, key in known if summary[key])
    )


@dataclass(frozen=True)
class CutView:
    """A text as both tokenizers cut it: parts in their order, and whether each is new."""

    name: str
    source: tuple[tuple[str, bool], ...]
    target: tuple[tuple[str, bool], ...]


def _cuts(report: SurgeryReport) -> list[CutView]:
    return [
        CutView(
            cut.name,
            _parted(cut.text, cut.source, ()),
            _parted(cut.text, cut.target, cut.new),
        )
        for cut in report.cuts
    ]


def _parted(text: str, sizes: Sequence[int], new: Sequence[int]) -> tuple[tuple[str, bool], ...]:
    data, parts, start = text.encode(), [], 0
    for i, size in enumerate(sizes):
        parts.append((visible(data[start : start + size]), i in new))
        start += size
    return tuple(parts)


def _choice(report: SurgeryReport) -> list[tuple[str, str, str, bool]]:
    """Return the table that `auto` chose from: place, side, method, whether it was chosen."""

    def key(i: int) -> tuple[str, float]:
        bits = report.choice[i].bits_per_byte
        return report.choice[i].side, float("inf") if bits is None else bits

    order = sorted(range(len(report.choice)), key=key)
    chosen = ((i, report.choice[i]) for i in order)
    return [(f"/choice/{i}", one.side, one.method, one.chosen) for i, one in chosen]


def _timings(report: SurgeryReport) -> list[tuple[str, str, Markup]]:
    """Return the steps by what they took, the longest first: name, place, bar."""
    steps = {name: seconds for name, seconds in report.timings.items() if name != "total"}
    largest = max(steps.values(), default=0.0)
    return [
        (name, f"/timings/{name}", drawings.bar(steps[name], largest))
        for name in sorted(steps, key=lambda name: -steps[name])
    ]


def _proof(report: SurgeryReport) -> list[str]:
    trim = report.trim
    if trim is None:
        return []
    proof = [trim_words.on_text(trim), trim_words.on_logits(trim)]
    return [line for line in proof if line] + trim_words.on_softmax(trim.proof)


def load_lines(report: SurgeryReport, path: str) -> list[tuple[str, str, str | None]]:
    """Return how programs load the checkpoint: the program, the lines, and what to know."""
    kind, quoted = CLASSES[report.source.kind], shlex.quote(path)
    lines: list[tuple[str, str, str | None]] = [
        (
            "transformers",
            f"from transformers import {kind}, AutoTokenizer\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({path!r})\n"
            f"model = {kind}.from_pretrained({path!r})\n",
            None,
        )
    ]
    if kind != CLASSES["causal"]:
        return lines
    lines.append(("vLLM", f"vllm serve {quoted}\n", None))
    named = report.target.gguf
    if named in ("SentencePiece", "WordPiece"):
        about = f"It reads this tokenizer as {named}."
    else:
        about = (
            "Its converter knows a tokenizer by a checksum, and stops at one that it does not "
            "know. Then add the checksum that it names, and "
        )
        about += (
            f"“{named}” as the way in which text is cut, to its get_vocab_base_pre."
            if named
            else "the way in which text is cut; none of the common names fits this tokenizer."
        )
    convert = f"python convert_hf_to_gguf.py {quoted} --outfile model.gguf\n"
    lines.append(("llama.cpp", f"{convert}llama-cli -m model.gguf -p 'Once upon a time'\n", about))
    return lines
