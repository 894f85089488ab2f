"""Which documents a vocabulary is not trained on, so that it can be measured on them.

Every twentieth document is held out; where there are fewer than twenty, the last twentieth of each.
Of more than `HELD_OUT_BYTES` a sample over the whole corpus is kept (the documents with the lowest
hashes), and the others are trained on after all.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from tokensurgeon.text.corpus import Document

EVERY = 20
HELD_OUT_BYTES = 2_000_000


class HeldOut:
    """Parts a stream of documents into what is trained on and what is measured on.

    Attributes
    ----------
    documents : dict of str to list of Document
        What was held out, by part of the corpus.
    """

    def __init__(self, most_bytes: int = HELD_OUT_BYTES) -> None:
        self.most_bytes = most_bytes
        self.documents: dict[str, list[Document]] = {}

    def split(self, part: str, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield what is trained on; the rest is in `documents` at the end."""
        stream = iter(documents)
        first = list(islice(stream, EVERY))
        if len(first) < EVERY:
            held = []
            for document in first:
                head, tail = _cut(document)
                if tail is not None:
                    held.append(tail)
                yield head
            self.documents[part] = held
            return
        # Lowest hashes are kept; the heap's first is the highest.
        kept: list[tuple[int, int, Document]] = []
        total = 0
        for number, document in enumerate(chain(first, stream)):
            if number % EVERY != EVERY - 1:
                yield document
                continue
            digest = hashlib.sha256(document.text.encode("utf-8")).digest()
            heapq.heappush(kept, (-int.from_bytes(digest[:8], "big"), number, document))
            total += document.n_bytes
            while total > self.most_bytes and len(kept) > 1:
                evicted = heapq.heappop(kept)[2]
                total -= evicted.n_bytes
                yield evicted
        kept.sort(key=lambda each: each[1])
        self.documents[part] = [document for _, _, document in kept]


def _cut(document: Document) -> tuple[Document, Document | None]:
    text = document.text
    cut = len(text) - len(text) // EVERY
    # At a line end, so that no word is cut.
    cut = text.rfind("\n", 0, cut) + 1 or cut
    head = Document(text[:cut], document.source, document.file)
    tail = Document(text[cut:], document.source, document.file) if cut < len(text) else None
    return head, tail
