"""Writing systems: that of a text, and what text of some scripts can be made of.

`script_of` reads the Unicode names of letters. `Writable` goes by the Unicode property Script, as
the regular expressions of the tokenizers library have it.
"""

from __future__ import annotations

import difflib
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokensurgeon.errors import UnknownNameError

_SPECIAL = {
    "Cjk": "Han",
    "Ideographic": "Han",
    "Fullwidth": "Latin",
    "Feminine": "Latin",
    "Masculine": "Latin",
    "Micro": "Greek",
    "Modifier": "Latin",
    "": "other script",
}
"""First words of names of letters that do not begin with their script."""
_NAMES = """
Adlam Ahom Arabic Armenian Balinese Bamum Batak Bengali Bopomofo Braille Buginese Buhid
Canadian_Aboriginal Chakma Cham Cherokee Coptic Cuneiform Cyrillic Deseret Devanagari Ethiopic
Georgian Glagolitic Gothic Greek Gujarati Gurmukhi Han Hangul Hanunoo Hebrew Hiragana Javanese
Kannada Katakana Kayah_Li Khmer Khojki Lao Latin Lepcha Limbu Lisu Malayalam Mandaic
Meetei_Mayek Mongolian Myanmar New_Tai_Lue Nko Ogham Ol_Chiki Old_Italic Old_Persian
Old_Turkic Oriya Osage Osmanya Phoenician Rejang Runic Samaritan Saurashtra Sharada Shavian
Siddham Sinhala Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri
Tamil Telugu Thaana Thai Tibetan Tifinagh Tirhuta Ugaritic Vai Yi
"""
SCRIPTS = tuple(_NAMES.split())
"""Scripts that tokens can be kept by, as Unicode spells them."""
ANY_SCRIPT = ("Common", "Inherited")
"""What text of every script has: digits, punctuation, white space, signs; accents that combine."""
_LANGUAGES = {
    "Latin": """
        af az bs ca cs cy da de en eo es et eu fi fil fo fr ga gd gl ha hr ht hu id ig is it jv ku
        la lb ln lt lv mg mi ms mt nb nl nn no oc pl pt qu rm ro rw sk sl sm sn so sq st su sv sw
        tk tl tn tr uz vi wo xh yo zu
    """,
    "Cyrillic": "ba be bg ce cv kk ky mk mn os ru tg tt uk",
    "Arabic": "ar ckb fa ps sd ug ur",
    "Devanagari": "bho hi mai mr ne sa",
    "Bengali": "as bn",
    "Hebrew": "he yi",
    "Ethiopic": "am ti",
    "Greek": "el",
    "Armenian": "hy",
    "Georgian": "ka",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Malayalam": "ml",
    "Myanmar": "my",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thaana": "dv",
    "Thai": "th",
    "Tibetan": "bo dz",
}
LANGUAGES: dict[str, tuple[str, ...]] = {
    **{code: (script,) for script, codes in _LANGUAGES.items() for code in codes.split()},
    "sr": ("Cyrillic", "Latin"),
    "zh": ("Han", "Bopomofo"),
    "ja": ("Han", "Hiragana", "Katakana"),
    "ko": ("Hangul", "Han"),
}
"""The scripts that languages are mostly written in today, by their ISO 639 codes."""


def script_of(text: str) -> str | None:
    """Return the script of most letters: Latin, Han, Cyrillic, …; None where there is no letter.

    Examples
    --------
    >>> script_of("the и"), script_of(" 日本"), script_of("12.")
    ('Latin', 'Han', None)
    """
    counts = Counter(_script_of(c) for c in text if unicodedata.category(c)[0] == "L")
    return max(sorted(counts), key=lambda name: counts[name], default=None)


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str:
    name = unicodedata.name(character, "")
    first = name.split("-")[0].split(" ")[0].capitalize()
    return _SPECIAL.get(first, first)


def scripts_named(names: Iterable[str]) -> tuple[str, ...]:
    """Return scripts as Unicode spells them, each once; case and ``-`` for ``_`` do not matter.

    Raises
    ------
    UnknownNameError
        Naming the one that is no script, and the nearest that is.
    """
    known = {script.lower(): script for script in SCRIPTS}
    found: dict[str, None] = {}
    for name in names:
        key = name.strip().lower().replace("-", "_").replace(" ", "_")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{known[near[0]]}'?" if near else "give one such as Latin, Han"
            raise UnknownNameError(f"no script '{name}'; {hint}")
        found[known[key]] = None
    return tuple(found)


def scripts_of_language(code: str) -> tuple[str, ...]:
    """Return the scripts of `LANGUAGES` that a language is written in.

    Raises
    ------
    UnknownNameError
        If the table does not have it.
    """
    scripts = LANGUAGES.get(code.strip().lower())
    if scripts is None:
        raise UnknownNameError(
            f"no language '{code}' in the table of languages and scripts; name its scripts "
            f"(--keep-script), or give text of it ({code}=FILE)"
        )
    return scripts


@dataclass(frozen=True)
class Writable:
    """What text of some scripts can be made of, to the byte.

    Attributes
    ----------
    characters : frozenset of str
        Those of the scripts, and of `ANY_SCRIPT`.
    heads, tails, insides : frozenset of bytes
        First, last and inner bytes of characters that are not whole: a token of a tokenizer over
        bytes may begin or end within a character.
    """

    characters: frozenset[str]
    heads: frozenset[bytes]
    tails: frozenset[bytes]
    insides: frozenset[bytes]

    @classmethod
    def of(cls, scripts: Sequence[str]) -> Writable:
        """Return what the scripts, as `scripts_named` returns them, can be written with."""
        return _writable(tuple(scripts))

    def has(self, data: bytes) -> bool:
        r"""Whether a text of the scripts can hold these bytes.

        Examples
        --------
        >>> cyrillic = Writable.of(["Cyrillic"])
        >>> cyrillic.has(" и, 1".encode()), cyrillic.has(b"and"), cyrillic.has(b" \xd0")
        (True, False, True)
        """
        begin = 0
        while begin < len(data) and data[begin] & 0xC0 == 0x80:
            begin += 1
        if begin == len(data):
            return not data or data in self.insides
        end = _whole_until(data)
        try:
            whole = data[begin:end].decode("utf-8")
        except UnicodeDecodeError:
            return False
        return (
            self.characters.issuperset(whole)
            and (not begin or data[:begin] in self.tails)
            and (end == len(data) or data[end:] in self.heads)
        )


def _whole_until(data: bytes) -> int:
    """Return where a character begins that the bytes do not end; their number if there is none."""
    for start in range(len(data) - 1, max(-1, len(data) - 4), -1):
        first = data[start]
        if first & 0xC0 != 0x80:
            length = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return start if start + length > len(data) else len(data)
    return len(data)


@lru_cache(maxsize=8)
def _writable(scripts: tuple[str, ...]) -> Writable:
    from tokenizers import Regex, normalizers

    points = (*range(0xD800), *range(0xE000, sys.maxunicode + 1))  # without halves of pairs
    named = "".join(rf"\p{{{script}}}" for script in (*scripts, *ANY_SCRIPT))
    only = normalizers.Replace(Regex(f"[^{named}]"), "")
    characters = only.normalize_str("".join(map(chr, points)))
    parts: dict[str, set[bytes]] = {"heads": set(), "tails": set(), "insides": set()}
    for character in characters:
        data = character.encode("utf-8")
        for cut in range(1, len(data)):
            parts["heads"].add(data[:cut])
            parts["tails"].add(data[cut:])
            parts["insides"] |= {data[cut:end] for end in range(cut + 1, len(data) + 1)}
    return Writable(frozenset(characters), **{key: frozenset(own) for key, own in parts.items()})
