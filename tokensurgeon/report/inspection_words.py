"""An inspection in words: the rows, lists and notes that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokensurgeon.report import words

if TYPE_CHECKING:
    from tokensurgeon.inspection import Inspected, Inspection, UnderTrained
    from tokensurgeon.trainers.measures.figures import Figures, SourceFigures
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
    pairs = [
        (e.figures, e.figures.total) for e in inspection.entries if e.figures.total is not None
    ]
    first, whole = pairs[0]

    def row(name: str, cell: Callable[[Figures, SourceFigures], str], about: str = "") -> Row:
        return Row(name, tuple(cell(figures, total) for figures, total in pairs), about)

    table = [
        Row("bytes per token", heading=True),
        row("all", lambda _, total: f"{total.bytes_per_token:.3f}", _amount(whole)),
    ]
    if len(first.sources) > 1:
        for i, source in enumerate(first.sources[:MOST_SOURCES]):
            cells = tuple(f"{figures.sources[i].bytes_per_token:.3f}" for figures, _ in pairs)
            table.append(Row(source.name, cells, _amount(source)))
        hidden = len(first.sources) - MOST_SOURCES
        if hidden > 0:
            table.append(row(f"and {hidden:,} more", lambda *_: "…", "in --json"))
    table += [
        Row("on the text", heading=True),
        row("tokens", lambda _, total: f"{total.tokens:,}"),
        row(
            "tokens per word",
            lambda _, total: f"{total.fertility:.3f}",
            "fertility; words as parted by spaces",
        ),
    ]
    for alpha in whole.renyi:
        cells = tuple(f"{total.renyi[alpha]:.3f}" for _, total in pairs)
        table.append(Row(f"Rényi efficiency, α {alpha}", cells, "over the whole vocabulary"))
    if first.parity is not None:
        about = f"of tokens per {first.parity.unit} over files; 0 is even"
        table.append(
            row("parity (Gini)", lambda f, _: f"{f.parity.gini:.4f}" if f.parity else "–", about)
        )
    return [
        *table,
        row(
            "several words",
            lambda _, total: _percent(total.multi_word, total.tokens),
            "share of the tokens used",
        ),
        row(
            "unused",
            lambda f, _: _percent(f.unused or 0, f.text_tokens),
            "share of the tokens of text",
        ),
        row("boilerplate suspects", lambda f, _: f"{len(f.boilerplate):,}"),
        row("documents losing text", lambda _, total: f"{total.lossy:,} of {total.documents:,}"),
        row(
            "encoding, MB/CPU-second",
            lambda f, _: f"{f.megabytes_per_cpu_second or 0:.2f}",
            "one batch, cold cache",
        ),
    ]


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
        said += [f"{note}." for note in entry.vocabulary.notes]
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
