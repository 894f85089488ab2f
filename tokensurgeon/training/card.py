"""The README.md of a trained vocabulary."""

from __future__ import annotations

from typing import Any

_DIGITS = {
    "left-3": "digits in groups of up to three from the left",
    "right-3": "digits in groups of three from the right (from the left after a decimal point)",
    "single": "each digit alone",
    "any": "digit runs as the trainer likes",
}
_METHODS = {
    "bpe": "byte-level BPE",
    "unigram": "byte-level Unigram",
    "superbpe": "byte-level BPE with tokens of several words (SuperBPE)",
}


def card(name: str, facts: dict[str, Any]) -> str:
    """Return the card of a vocabulary from the facts of ``training.json``."""
    settings, corpus, figures = facts["settings"], facts["corpus"], facts["figures"]
    cut = settings["pretokenizer"]
    roles: dict[str, list[str]] = {}
    for role, token in settings["controls"].items():
        roles.setdefault(token, []).append(role)
    controls = ", ".join(f"`{token}` ({', '.join(names)})" for token, names in roles.items())
    others = "".join(f", `{token}`" for token in settings["extra_controls"])
    stock = figures["stock_bpe_bytes_per_token"]
    beside = "–" if stock is None else f"{stock:.3f}"
    replaced = corpus["replaced_characters"]
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    lines = [
        f"# {name}",
        "",
        f"A vocabulary of {settings['size']:,} tokens: {_METHODS[settings['method']]}, "
        f"{'no pre-tokenizer' if cut == 'none' else f'pre-tokenizer `{cut}`'}, "
        f"{_DIGITS[settings['digits']]}. Control tokens: {controls}{others}.",
        "",
        "It is lossless: all 256 bytes are in it and there is no unknown token; "
        f"{figures['hard_texts']} hard texts came back unchanged.",
        "",
        "| | bytes per token, held out |",
        "|---|---|",
        f"| this vocabulary | {figures['bytes_per_token']:.3f} |",
        f"| plain BPE of equal size on the same text | {beside} |",
        "",
        f"Measured on {figures['held_out_bytes']:,} bytes that it was not trained on; "
        f"{figures['unused']:.1%} of its tokens are not used there, the longest token has "
        f"{figures['longest_token']} bytes. Fewer tokens do not make a better model: what a "
        "vocabulary costs in bits per byte only an evaluation of the model says.",
        "",
        "## Trained on",
        "",
        f"{corpus['documents']:,} documents, {corpus['bytes']:,} bytes of UTF-8 "
        f"(the held-out part included), sha256 `{corpus['sha256']}`.",
    ]
    if replaced:
        lines += ["", f"{replaced:,} characters stand for bytes that were not UTF-8."]
    lines += [
        "",
        "## Made with",
        "",
        f"{versions}; sha256 of tokenizer.json `{facts['sha256']}`. "
        "Every setting and figure is in training.json.",
        "",
    ]
    return "\n".join(lines)
