"""Texts that break tokenizers which are not lossless."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def hard_texts() -> tuple[str, ...]:
    """Return texts that a lossless tokenizer must give back unchanged.

    White space of every kind, line ends, NUL, private use, characters that tokenizers use as
    markers, joined emoji, combining marks, right-to-left text, long runs, and every character
    that UTF-8 writes with each lead byte.
    """
    leads = [chr(c) for c in range(0x00, 0x800, 7)] + [chr(c) for c in range(0x80, 0x800, 64)]
    leads += [chr(c) for c in range(0x800, 0xD800, 0x400)]
    leads += [chr(c) for c in range(0xE000, 0x110000, 0x4000)]
    return (
        " ",
        "\n",
        "\t \t",
        "  leading and trailing  ",
        "line\r\nline\r\n\r\nline\rline\n\n\n",
        "tabs\t\tand\u00a0no-break\u2003em\u200bzero\u2028line\u2029end",
        "NUL \x00\x00 bell \x07 escape \x1b delete \x7f",
        "\ufeffbyte order mark, \ufffd replacement, \ufffe",
        "private use \ue000\uf8ff\U000f0000\U0010fffd",
        "markers ▁▁ Ġ Ċ ĉ ## </w> <0x41> <unk> <s> </s> [UNK] @@",
        "emoji 😀👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇺🇳 and ❤️",
        "combining é e\u0301 ñ n\u0303 \u0915\u094d\u0937 กำ a\u0300\u0301\u0302",
        "العربية עברית 日本語のテキスト 한국어 ไทย हिन्दी ελληνικά русский",
        "ﬁ ﬀ Ⅷ ½ ² ⑳ ٣٤٥ १२३ 全角１２３ＡＢＣ",
        "3.14159 1234567 1,234,567.8912 0x7f 1e-10 192.168.0.1 2024-02-29 007",
        "def f(x):\n    return x**2  # comment\n\n\tif (a != b) { c->d[0] += 1; }\n",
        "don't I'LL we're THEY'VE o'clock rock'n'roll ’tis it’s",
        "a" * 10_000,
        " " * 10_000,
        "\n" * 2_000,
        "1" * 10_000,
        "é" * 3_000,
        "".join(chr(c) for c in range(0x250)),
        "".join(leads),
    )
