"""Control strings in a text end a document: they are what a tokenizer writes, not what it reads.

A dump of a corpus or of chats often holds ``<|endoftext|>`` or ``<|im_start|>`` as plain
characters. A vocabulary that learned from them would spend ids on ``endoftext`` and ``.<|``. So a
text is cut where such a string stands, and the string itself is left out and counted. What stands
between two of them is a document of its own; blank ones are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tokensurgeon.errors import UnknownNameError
from tokensurgeon.text.corpus import Document

_KNOWN = """
<|endoftext|> <|startoftext|> <|begin_of_text|> <|end_of_text|> <|endofprompt|> <|bos|> <|eos|>
<|pad|> <|padding|> <|im_start|> <|im_end|> <|im_sep|> <|start_header_id|> <|end_header_id|>
<|eot_id|> <|eom_id|> <|system|> <|user|> <|assistant|> <|end|> <|start|> <|message|> <|channel|>
<|return|> <|call|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <start_of_turn> <end_of_turn>
<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜>
"""
KNOWN = tuple(_KNOWN.split())
"""Control strings that end a document whoever trains: spellings that only tokenizers write. Those
that text holds too, such as the <s> of HTML, count where a vocabulary has them as controls."""
BORDERS = ("known", "own")
"""What ends a document: the controls of the vocabulary and `KNOWN`, or these controls alone."""


class Borders:
    """The strings that end a document, and how often each occurred.

    Parameters
    ----------
    strings : iterable of str

    Attributes
    ----------
    counts : Counter of str
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        # Of two that begin alike the longer one counts, as in a tokenizer.
        self.strings = tuple(sorted(set(strings), key=lambda string: (-len(string), string)))
        self.counts: Counter[str] = Counter()
        self._pattern = re.compile("|".join(map(re.escape, self.strings)) or r"(?!)")

    def split(self, document: Document) -> Iterator[Document]:
        """Yield what stands between the borders; a document without any, as it is."""
        end = 0
        for match in self._pattern.finditer(document.text):
            self.counts[match[0]] += 1
            yield from _unless_blank(document, document.text[end : match.start()])
            end = match.end()
        if end:
            yield from _unless_blank(document, document.text[end:])
        else:
            yield document

    def facts(self) -> dict[str, int]:
        """Return how often each string ended a document, the most frequent first."""
        return dict(sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0])))


def borders_of(own: Iterable[str], which: str = "known") -> Borders:
    """Return the borders for a vocabulary with these controls.

    Parameters
    ----------
    own : iterable of str
    which : {"known", "own"}
        Whether `KNOWN` strings count too.

    Raises
    ------
    UnknownNameError
        If it is another word.
    """
    if which not in BORDERS:
        raise UnknownNameError(f"no borders '{which}'; there are {', '.join(BORDERS)}")
    return Borders((*own, *(KNOWN if which == "known" else ())))


def _unless_blank(document: Document, text: str) -> Iterator[Document]:
    if text.strip():
        yield replace(document, text=text)
