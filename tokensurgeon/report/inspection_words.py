"""An inspection in words: the rows, lists and notes that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokensurgeon.report import words

if TYPE_CHECKING:
    from tokensurgeon.inspection import Inspected, Inspection, UnderTrained
    from tokensurgeon.trainers.measures.figures import SourceFigures
    from tokensurgeon.vocabulary import Vocabulary

MOST_SOURCES = 24
"""Files that have a line of their own: about a screen; JSON has all."""
KINDS = {
    "ordinary": ("text", "ordinary tokens"),
    "byte": ("bytes", "such as <0x41>"),
    "control": ("controls", "markers, not text"),
    "unused": ("unused ids", "reserved, or never produced"),
    "padding": ("holes", "ids without a token"),
}
"""What the kinds of tokens are called, and what they are."""
PATHPIECE = (
    "Fewer tokens is not better models (Schmidt et al., 2024, arXiv 2402.18376); the report of a "
    "transplant says what a vocabulary costs in bits per byte."
)


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure of every tokenizer. `heading` rows start a part."""

    name: str
    cells: tuple[str, ...] = ()
    about: str = ""
    heading: bool = False


@dataclass(frozen=True)
class Listing:
    """A titled list of tokens, each with what is said of it."""

    title: str
    items: tuple[tuple[str, str], ...]
    more: int = 0


def rows(inspection: Inspection) -> list[Row]:
    """Return the table of figures."""
    entries = inspection.entries

    def row(name: str, cell: Callable[[Inspected], str], about: str = "") -> Row:
        return Row(name, tuple(cell(entry) for entry in entries), about)

    table = [
        Row("vocabulary", heading=True),
        row("model", lambda e: str(e.facts["model"])),
        row("llama.cpp", lambda e: e.facts["gguf"] or "–", "what it calls this way to cut text"),
        row("tokens", lambda e: f"{e.figures.size:,}", "ids that have a token"),
        *(
            Row(f"  {label}", tuple(f"{entry.figures.kinds[kind]:,}" for entry in entries), about)
            for kind, (label, about) in KINDS.items()
            if any(entry.figures.kinds[kind] for entry in entries)
        ),
        row(
            "several words",
            lambda e: _percent(e.figures.multi_word, e.figures.text_tokens),
            "share of the tokens of text",
        ),
        row("longest token", lambda e: words.count(len(e.figures.longest), "byte")),
        row(
            "never emitted",
            lambda e: f"{len(e.reach.never):,}",
            "by any text" if entries[0].reach.exact else "of their own spelling",
        ),
        row("  suspects", lambda e: f"{len(e.reach.suspects):,}", "by no text that was tried"),
        row("hard texts, from_file", lambda e: _kept(e, 0), "come back through tokenizers"),
        row("hard texts, AutoTokenizer", lambda e: _kept(e, 1), "and through transformers"),
    ]
    if entries[0].figures.total is not None:
        table += _text_rows(inspection)
    return table


def _text_rows(inspection: Inspection) -> list[Row]:
    entries = inspection.entries
    figures = [entry.figures for entry in entries]
    pairs = [(f, f.total) for f in figures if f.total is not None]
    first, whole = pairs[0]
    table = [
        Row("bytes per token", heading=True),
        Row("all", tuple(f"{total.bytes_per_token:.3f}" for _, total in pairs), _amount(whole)),
    ]
    if len(first.sources) > 1:
        for i, source in enumerate(first.sources[:MOST_SOURCES]):
            cells = tuple(f"{f.sources[i].bytes_per_token:.3f}" for f, _ in pairs)
            table.append(Row(source.name, cells, _amount(source)))
        hidden = len(first.sources) - MOST_SOURCES
        if hidden > 0:
            table.append(Row(f"and {hidden:,} more", tuple("…" for _ in pairs), "in --json"))
    table += [
        Row("on the text", heading=True),
        Row("tokens", tuple(f"{total.tokens:,}" for _, total in pairs)),
        Row(
            "tokens per word",
            tuple(f"{total.fertility:.3f}" for _, total in pairs),
            "fertility; words as parted by spaces",
        ),
        *(
            Row(
                f"Rényi efficiency, α {alpha}",
                tuple(f"{total.renyi[alpha]:.3f}" for _, total in pairs),
                "over the whole vocabulary",
            )
            for alpha in whole.renyi
        ),
    ]
    if first.parity is not None:
        cells = tuple(f"{f.parity.gini:.4f}" if f.parity else "–" for f, _ in pairs)
        table.append(
            Row("parity (Gini)", cells, f"of tokens per {first.parity.unit} over files; 0 is even")
        )
    table += [
        Row(
            "several words",
            tuple(_percent(total.multi_word, total.tokens) for _, total in pairs),
            "share of the tokens used",
        ),
        Row(
            "unused",
            tuple(_percent(f.unused or 0, f.text_tokens) for f, _ in pairs),
            "share of the tokens of text",
        ),
        Row("boilerplate suspects", tuple(f"{len(f.boilerplate):,}" for f, _ in pairs)),
        Row(
            "documents losing text",
            tuple(f"{total.lossy:,} of {total.documents:,}" for _, total in pairs),
        ),
        Row(
            "encoding, MB/CPU-second",
            tuple(f"{f.megabytes_per_cpu_second or 0:.2f}" for f, _ in pairs),
            "one batch, cold cache",
        ),
    ]
    return table


def listings(inspection: Inspection, limit: int = 12) -> list[Listing]:
    """Return the lists of tokens: never emitted, boilerplate, under-trained; hard texts lost."""
    from tokensurgeon.inspection.spans import quoted

    lists = [
        Listing(
            "Longest tokens",
            tuple(
                (quoted(e.figures.longest, 60), f"{e.name}, id {e.figures.longest_id}")
                for e in inspection.entries
            ),
        )
    ]
    for entry in inspection.entries:
        vocabulary, reach = entry.vocabulary, entry.reach
        for ids, why in (
            (reach.never, "made by no text" if reach.exact else "not made of their own text"),
            (reach.suspects, "shown by no text that was tried"),
        ):
            if ids:
                items = [
                    (quoted(vocabulary.token_bytes[i] or b""), _named(vocabulary, i)) for i in ids
                ]
                title = f"Tokens that encoding never emits: {entry.name}, {len(ids):,} {why}"
                lists.append(_listing(title, items, limit))
        if entry.figures.boilerplate:
            items = [
                (
                    quoted(suspect.bytes),
                    f"{words.count(suspect.uses, 'use')} in {words.count(suspect.lines, 'line')}, "
                    f"{words.count(suspect.documents, 'document')}",
                )
                for suspect in entry.figures.boilerplate
            ]
            lists.append(_listing(f"Boilerplate suspects: {entry.name}", items, limit))
        lost = {text: reload.route for reload in entry.reloads for text in reload.lost}
        if lost:
            items = [(repr(text), "") for text in lost]
            lists.append(_listing(f"Hard texts that do not come back: {entry.name}", items, limit))
    if inspection.undertrained is not None:
        lists.append(
            _undertrained(inspection.undertrained, inspection.entries[0].vocabulary, limit)
        )
    return lists


def _undertrained(result: UnderTrained, vocabulary: Vocabulary, limit: int) -> Listing:
    from tokensurgeon.inspection.spans import quoted

    many = "" if result.count is None else f", {result.count:,} no better than untrained rows"
    items = []
    for suspect in result.suspects:
        cosine = "" if suspect.cosine is None else f", cosine distance {suspect.cosine:.4g}"
        text = quoted(vocabulary.token_bytes[suspect.id] or b"")
        items.append((text, f"id {suspect.id}, norm {suspect.norm:.4g}{cosine}"))
    by = "input norm" if result.indicator == "norm" else "output cosine distance"
    return _listing(f"Under-trained tokens, by {by}{many}", items, limit)


def notes(inspection: Inspection) -> list[str]:
    """Return what is said in sentences below the table."""
    said = []
    for entry in inspection.entries:
        trained = entry.training or {}
        ours, stock = trained.get("bytes_per_token"), trained.get("stock_bpe_bytes_per_token")
        if isinstance(ours, float) and isinstance(stock, float):
            said.append(
                f"{entry.name}, held out when it was trained: {ours:.3f} bytes per token, plain "
                f"BPE of equal size {stock:.3f}."
            )
        for reload in entry.reloads:
            if reload.failed is not None:
                said.append(f"{entry.name}: {reload.route} does not load it: {reload.failed}.")
            elif reload.same_ids < reload.texts:
                different = reload.texts - reload.same_ids
                said.append(
                    f"{entry.name}: {reload.route} gives other ids for "
                    f"{words.count(different, 'hard text')}."
                )
    if inspection.undertrained is not None:
        said.append(_undertrained_note(inspection.undertrained))
    if inspection.mixture is not None:
        mixture = inspection.mixture
        said.append(
            f"Mixture read off {words.count(mixture.merges, 'merge')} (Hayase et al., 2024, arXiv "
            f"2407.16607); slack {100 * mixture.slack:.1f} % of the counts of merged pairs: none "
            "where the shares explain every merge, and much where the categories are not what the "
            "tokenizer was trained on. Shares are of bytes, among the categories given."
        )
    if inspection.entries[0].figures.total is not None:
        said.append(
            "Rényi efficiency is ln(Σ p^α) / ((1 − α) ln |V|) (Zouhar et al., 2023, arXiv "
            "2306.16842)."
        )
    said.append(f"Peak memory of the whole process: {words.size(inspection.peak_memory)}.")
    said.append(PATHPIECE)
    return said


def _undertrained_note(result: UnderTrained) -> str:
    tied = "tied" if result.tied else "untied"
    if result.threshold is None:
        return (
            f"Only {words.count(result.references, 'row')} of the {tied} model can be known to be "
            "untrained, too few to compare with: rows are sorted by norm (Land & Bartolo, 2024)."
        )
    return (
        f"{words.count(result.references, 'row')} of the {tied} model cannot have been trained; "
        f"95 % of them are below {result.threshold:.4g}, the median token is at "
        f"{result.median:.4g} (Land & Bartolo, 2024, arXiv 2405.05417)."
    )


def shares(inspection: Inspection) -> list[tuple[str, float]]:
    """Return the categories of the mixture, the largest first."""
    if inspection.mixture is None:
        return []
    return sorted(inspection.mixture.shares.items(), key=lambda item: -item[1])


def _listing(title: str, items: Sequence[tuple[str, str]], limit: int) -> Listing:
    return Listing(title, tuple(items[:limit]), max(0, len(items) - limit))


def _named(vocabulary: Vocabulary, token: int) -> str:
    """Return the id, and the spelling where bytes alone do not tell ``##a`` from ``a``."""
    spelling = f", {vocabulary.spellings[token]}" if vocabulary.joins_with_space else ""
    return f"id {token}{spelling}"


def _kept(entry: Inspected, route: int) -> str:
    reload = entry.reloads[route]
    return "–" if reload.failed is not None else f"{reload.kept} of {reload.texts}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _amount(source: SourceFigures) -> str:
    return f"{words.size(source.bytes)}, {words.count(source.documents, 'document')}"
