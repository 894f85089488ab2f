"""Documents in batches, without those held out and those counted before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.corpus import Document
from tokensurgeon.trainers.counting.held_out import HeldOut

BATCH_BYTES = 4_000_000
"""Text that a worker counts at once: counting it takes far longer than sending it."""


@dataclass
class Batch:
    """Documents of one part that are counted together.

    Attributes
    ----------
    part : int
        Number of the part of the corpus.
    texts : list of str
    hashes : list of bytes
        The sha256 of each document.
    n_bytes : int
    """

    part: int
    texts: list[str] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    n_bytes: int = 0


@dataclass(frozen=True)
class Chain:
    """Which documents were counted, in their order: each link is the hash of all before it.

    Attributes
    ----------
    n : int
        Number of documents.
    link : str
        Hexadecimal.
    """

    n: int = 0
    link: str = ""

    def plus(self, hashes: Iterable[bytes]) -> Chain:
        """Return the chain with further documents."""
        n, link = self.n, self.link
        for own in hashes:
            n, link = n + 1, hashlib.sha256(link.encode() + own).hexdigest()[:32]
        return Chain(n, link)


class Stream:
    """The documents of a corpus, batch by batch.

    Parameters
    ----------
    parts : mapping of str to iterable of (Document, int)
        By name, documents with the number of characters replaced in each.
    held_out : HeldOut or None
        Which documents are held out; None counts all.
    counted : Chain
        Documents that were counted before: these come first, and are passed over.

    Attributes
    ----------
    n_replaced : int
        Characters that were replaced so far.
    files : dict of str to None
        Files that were read so far, in their order.
    """

    def __init__(
        self,
        parts: Mapping[str, Iterable[tuple[Document, int]]],
        held_out: HeldOut | None,
        counted: Chain,
    ) -> None:
        self._parts, self._held_out, self._counted = parts, held_out, counted
        self._digest = hashlib.sha256()
        self.n_replaced = 0
        self.files: dict[str, None] = {}

    def batches(self) -> Iterator[Batch]:
        """Yield the documents to be counted.

        Raises
        ------
        CorpusError
            If those counted before are not the first of these.
        """
        before = Chain()
        for number, (name, documents) in enumerate(self._parts.items()):
            read = self._read(documents)
            training = read if self._held_out is None else self._held_out.split(name, read)
            batch = Batch(number)
            for document in training:
                data = document.text.encode("utf-8")
                own = hashlib.sha256(data).digest()
                if before.n < self._counted.n:
                    before = before.plus([own])
                    if before.n == self._counted.n and before.link != self._counted.link:
                        raise CorpusError("the counts kept are of other text; remove them")
                    continue
                batch.texts.append(document.text)
                batch.hashes.append(own)
                batch.n_bytes += len(data)
                if batch.n_bytes >= BATCH_BYTES:
                    yield batch
                    batch = Batch(number)
            if batch.texts:
                yield batch
        if before.n < self._counted.n:
            raise CorpusError("the counts kept are of more text than this; remove them")

    def _read(self, documents: Iterable[tuple[Document, int]]) -> Iterator[Document]:
        for document, replaced in documents:
            self.n_replaced += replaced
            self._digest.update(document.text.encode("utf-8") + b"\xff")
            if document.file:
                self.files[document.file] = None
            yield document

    @property
    def sha256(self) -> str:
        """Hash of all documents read so far, each followed by a byte 0xFF."""
        return self._digest.hexdigest()
