"""Which documents a vocabulary is not trained on, so that it can be measured on them.

Every twentieth document is held out. If there are fewer than twenty, the last twentieth of each is.
If that is more than `HELD_OUT_BYTES`, only the documents with the lowest hashes stay held out, a
sample of the whole corpus; the others are trained on after all.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from tokensurgeon.text.corpus import Document

EVERY = 20
"""One in twenty documents is held out: 5 % of the text."""
HELD_OUT_BYTES = 2_000_000
"""Most bytes held out: figures on more text would hardly differ, and training would have less."""


class HeldOut:
    """Splits a stream of documents into text to train on and text to measure on.

    Attributes
    ----------
    documents : dict of str to list of Document
        The documents held out, by part of the corpus.
    """

    def __init__(self, max_bytes: int = HELD_OUT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.documents: dict[str, list[Document]] = {}

    def split(self, part: str, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents to train on; at the end the others are in `self.documents`."""
        stream = iter(documents)
        first = list(islice(stream, EVERY))
        if len(first) < EVERY:
            tails = []
            for document in first:
                text = document.text
                cut = len(text) - len(text) // EVERY
                # At a line end, so that no word is cut.
                cut = text.rfind("\n", 0, cut) + 1 or cut
                if cut < len(text):
                    tails.append(replace(document, text=text[cut:]))
                yield replace(document, text=text[:cut])
            self.documents[part] = tails
            return
        # A heap of (-hash, index, document): its first entry has the highest hash.
        held: list[tuple[int, int, Document]] = []
        total = 0
        for number, document in enumerate(chain(first, stream)):
            if number % EVERY != EVERY - 1:
                yield document
                continue
            digest = hashlib.sha256(document.text.encode("utf-8")).digest()
            heapq.heappush(held, (-int.from_bytes(digest[:8], "big"), number, document))
            total += document.n_bytes
            while total > self.max_bytes and len(held) > 1:
                evicted = heapq.heappop(held)[2]
                total -= evicted.n_bytes
                yield evicted
        held.sort(key=lambda entry: entry[1])
        self.documents[part] = [document for _, _, document in held]
