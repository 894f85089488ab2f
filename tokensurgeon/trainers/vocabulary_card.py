"""The figures of a trained vocabulary in words, for its README.md and the command line."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from typing import Any

from tokensurgeon.trainers.training_methods import METHODS_BY_NAME

_DIGITS = {
    "left-3": "digits in groups of up to three from the left",
    "right-3": "digits in groups of three from the right (from the left after a decimal point)",
    "single": "each digit alone",
    "any": "digit runs as the trainer likes",
}
_ENCODERS = {"min-tokens": ", spelled with the fewest tokens"}


def figure_lines(settings: dict[str, Any], figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of the figures of a trained vocabulary, as text."""
    dropout = settings.get("dropout")
    kept = [("BPE dropout, as the base", f"{dropout:g}: cuts vary")] if dropout else []
    if settings["method"] == "prune":
        return [
            ("tokens before", f"{settings['base_size']:,}"),
            *kept,
            ("used by the text", f"{figures['used']:,}"),
            ("kept, and why", _why(figures["kept"])),
            ("documents spelled otherwise", f"{figures['documents_changed']:,}"),
            ("tokens of the text dropped", f"{figures['tokens_dropped']:,}"),
        ]
    if settings["method"] == "extend":
        return [
            ("tokens before", f"{settings['base_size']:,}"),
            *kept,
            ("bytes per token, held out", f"{figures['bytes_per_token']:.3f}"),
            ("before", f"{figures['base_bytes_per_token']:.3f}"),
            ("new tokens that are only steps to longer ones", f"{figures['steps']:,}"),
            ("lines of more tokens than before", f"{figures['lines_longer']:,}"),
            (
                "lines without a new token",
                f"{figures['lines_without_new']:,} of {figures['lines']:,}, of which "
                f"{figures['lines_changed']:,} are spelled otherwise than before",
            ),
        ]
    ours, stock = figures["held_out"], figures["stock_bpe"]

    def beside_stock(form: str, *keys: str | int) -> str:
        """Return one of our figures, and the same one of the plain BPE if there is one."""
        other = format(reduce(getitem, keys, stock), form) if stock else "–"
        return f"{reduce(getitem, keys, ours):{form}} (plain BPE {other})"

    rate = "bytes_per_token"
    lines = [("bytes per token, held out", beside_stock(".3f", "total", rate))]
    if len(ours["sources"]) > 1:
        lines += [
            (f"  {source['name']}", beside_stock(".3f", "sources", i, rate))
            for i, source in enumerate(ours["sources"])
        ]
    lines += [
        ("Rényi efficiency, α 2.5", beside_stock(".3f", "total", "renyi", "2.5")),
        ("tokens per word", beside_stock(".3f", "total", "fertility")),
    ]
    if ours["parity"] and ours["parity"]["unit"] != "byte":
        lines.append(("parity (Gini)", beside_stock(".4f", "parity", "gini")))
    multi_word = ours["multi_word_tokens"]
    return [
        *lines,
        ("tokens of several words", f"{multi_word:,} ({multi_word / ours['text_tokens']:.1%})"),
        ("not used on held-out text", f"{figures['unused']:.1%} of the tokens"),
        ("longest token", f"{figures['longest_token']} bytes"),
        ("boilerplate suspects", f"{len(ours['boilerplate'])}"),
        (
            "held out",
            f"{figures['held_out_bytes']:,} bytes; {figures['held_out_lines_seen']:.1%} of its "
            "longer lines were trained on too",
        ),
        ("hard texts that come back", f"{figures['hard_texts']} of {figures['hard_texts']}"),
        ("encoding, MB/CPU-second", beside_stock(".1f", "megabytes_per_cpu_second")),
        ("peak memory", f"{figures['peak_memory_bytes'] / 2**30:.1f} GiB"),
    ]


WHY = {
    "always": "always (controls, bytes)",
    "used": "used by the text",
    "scripts": "of the scripts",
    "merged": "that kept ones are merged from",
    "fill": "to fill up the size",
}
"""Why a token of a pruned vocabulary was kept, by the names of `Kept.why`."""


def _why(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[key]:,} {WHY[key]}" for key in WHY if counts.get(key))


def card(name: str, facts: dict[str, Any]) -> str:
    """Return the card of a vocabulary from the facts of ``training.json``."""
    settings, corpus, figures = facts["settings"], facts["corpus"], facts["figures"]
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    lines = [f"# {name}", "", _says(settings), "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in figure_lines(settings, figures)]
    lines += [
        "",
        "Fewer tokens do not make a better model: what a vocabulary costs in bits per byte only an "
        "evaluation of the model says.",
        "",
        "## Trained on",
        "",
        f"{corpus['documents']:,} documents, {corpus['bytes']:,} bytes of UTF-8"
        + (f", sha256 `{corpus['sha256']}`." if "sha256" in corpus else "."),
    ]
    parts = corpus.get("parts", {})
    if len(parts) > 1:
        shares = corpus.get("shares") or [None] * len(parts)
        lines += ["", "| part | bytes | share asked |", "|---|---|---|"]
        lines += [
            f"| {part} | {size['bytes']:,} | {'–' if share is None else f'{share:g}'} |"
            for (part, size), share in zip(parts.items(), shares, strict=True)
        ]
    if replaced := corpus.get("replaced_characters"):
        lines += ["", f"{replaced:,} characters stand for bytes that were not UTF-8."]
    if controls := corpus.get("control_strings"):
        listed = ", ".join(f"`{control}` {count:,}" for control, count in controls.items())
        lines += ["", f"Control strings in it are not text, and end a document: {listed}."]
    for table, count in corpus.get("dropped_occurrences", {}).items():
        if count:
            lines += ["", f"{count:,} occurrences of rare {table} were dropped to fit in memory."]
    for table, left_out in corpus.get("left_out", {}).items():
        rare = f"{table} that weigh less than {left_out['below']:,}"
        if "one_in" in left_out:
            said = f"Of {rare}, one in {left_out['one_in']:,} was read and stands for all of them."
        else:
            said = (
                f"{left_out['segments']:,} {rare} were not read. The count of a pair was too low "
                f"by {left_out['pair_too_low_by']:,} at most: each merge was of a pair that no "
                "other exceeds by more."
            )
        lines += ["", said]
    if settings["method"] != "bytes":
        lines += [
            "",
            "`seen.txt` has hashes of lines of it, so that an evaluation can refuse text that the "
            "vocabulary has seen.",
        ]
    lines += [
        "",
        "## Made with",
        "",
        f"{versions}; sha256 of tokenizer.json `{facts['sha256']}`. "
        "Every setting and figure is in training.json.",
        "",
    ]
    return "\n".join(lines)


def _says(settings: dict[str, Any]) -> str:
    method = settings["method"]
    if method == "prune":
        what = "the tokens that a text never used"
        if settings["scripts"]:
            what += f" and that are not of {', '.join(settings['scripts'])}"
        whole = settings["least_uses"] == 1 and settings["size_asked"] is None
        spelled = "That text is" if whole else "Text whose tokens are all kept is"
        return (
            f"`{settings['base']}` without {what if whole else 'the tokens that were not kept'}: "
            f"{settings['size']:,} of {settings['base_size']:,}. {spelled} spelled as before; "
            "`old_ids` in training.json has each token's old id."
        )
    if method == "extend":
        added = settings["size"] - settings["base_size"]
        several = ", some of several words" if settings["across"] else ""
        return f"`{settings['base']}` with all its ids and {added:,} new tokens{several}."
    cut = settings["pretokenizer"]
    roles: dict[str, list[str]] = {}
    for role, token in settings["controls"].items():
        roles.setdefault(token, []).append(role)
    controls = ", ".join(f"`{token}` ({', '.join(names)})" for token, names in roles.items())
    controls += "".join(f", `{token}`" for token in settings["extra_controls"])
    if settings["reserved"]:
        controls += f", {settings['reserved']} reserved"
    return (
        f"A vocabulary of {settings['size']:,} tokens: {METHODS_BY_NAME[method].says}"
        f"{_ENCODERS.get(settings['encoder'], '')}; "
        f"{'no pre-tokenizer' if cut == 'none' else f'pre-tokenizer `{cut}`'}, "
        f"{_DIGITS[settings['digits']]}. Control tokens: {controls}. It is lossless: all 256 bytes "
        "are in it and there is no unknown token."
    )
