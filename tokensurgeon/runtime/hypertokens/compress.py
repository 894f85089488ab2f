"""What hypertokens save on texts, and what they cost: lengths by file, and bits per byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.runtime.hypertokens.code_loss import code_nll
from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits
from tokensurgeon.runtime.hypertokens.composers import DEFAULT_COMPOSER
from tokensurgeon.runtime.hypertokens.contexts import cut_contexts
from tokensurgeon.runtime.hypertokens.zip_model import ZippedModel, limits_for, load_zip
from tokensurgeon.text import find_sources, read_documents, start_of_texts
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

CONTEXT_BYTES = 8192
"""Of a chunk: about 2,000 tokens. What can be shorter grows with what has been read."""
MEASURED_BYTES = 32_768
"""Of each file, measured through the model: four chunks, half a minute for a small model."""


@dataclass(frozen=True)
class FileFigures:
    """One file.

    Attributes
    ----------
    file : str
    n_bytes, n_chunks : int
    n_ids, n_codes : int
        Length of all chunks before and after.
    n_hypertokens : int
        Made, over all chunks.
    n_used : int
        Codes that are hypertokens.
    n_lost : int
        Chunks that the tokenizer loses text of, or that are too long for the model, in none of the
        figures.
    plain, zipped : float or None
        Bits per byte of the ids, and of the codes; None where they were not measured.
    n_measured : int
        Bytes that they were measured on.
    n_read : int
        Bytes that were read; chunks leave out white space where they are cut.
    """

    file: str
    n_bytes: int
    n_chunks: int
    n_ids: int
    n_codes: int
    n_hypertokens: int
    n_used: int
    n_lost: int
    plain: float | None = None
    zipped: float | None = None
    n_measured: int = 0
    n_read: int = 0

    @property
    def saved(self) -> float:
        """Share of the length that is saved."""
        return 1 - self.n_codes / self.n_ids if self.n_ids else 0.0


@dataclass(frozen=True)
class Compression:
    """Figures by file, with the settings.

    Attributes
    ----------
    files : tuple of FileFigures
    limits : Limits
    context_bytes : int
    composer : str or None
    max_bytes : int or None
        Where reading ended; None if all was read.
    not_read : tuple of str
        Files that come after that.
    """

    files: tuple[FileFigures, ...]
    limits: Limits
    context_bytes: int
    composer: str | None
    max_bytes: int | None = None
    not_read: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "context_bytes": self.context_bytes,
            "max_hypertokens": self.limits.max_hypertokens,
            "max_ids": self.limits.max_ids,
            "composer": self.composer,
            "max_bytes": self.max_bytes,
            "not_read": list(self.not_read),
            "files": [{**asdict(one), "saved": one.saved} for one in self.files],
        }


def compress_files(
    checkpoint: str | Path,
    texts: Sequence[str | Path],
    *,
    measure: bool = False,
    composer: str | Path = DEFAULT_COMPOSER,
    bias: float | None = None,
    max_hypertokens: int | None = None,
    max_ids: int | None = None,
    context_bytes: int = CONTEXT_BYTES,
    max_bytes: int | None = None,
    measured_bytes: int = MEASURED_BYTES,
    field: str = "text",
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> Compression:
    """Compress texts as a model would read them, and measure what that costs it.

    Parameters
    ----------
    checkpoint : str or Path
        Its tokenizer is enough unless `measure`.
    texts : sequence of str or Path
        Files, folders or globs; see `tokensurgeon.text.read_corpus`.
    measure : bool
        Run the model too: bits per byte of the first `measured_bytes` of each file, as ids and as
        codes, whole chunks after the same prefix.
    composer, bias, max_hypertokens, max_ids
        As in `load_zip`.
    context_bytes : int
        Longest chunk; each begins with an empty codebook. Where the model is run and has too few
        positions for it, a half, a quarter and so on.
    max_bytes : int or None
        Read so many bytes of all texts together, in their order, the last document in part.
    measured_bytes : int
    field : str
        The key that holds the text in JSON objects.
    device, dtype, trust_remote_code
        As in `load_zip`.
    progress : callable(done, total, what)

    Raises
    ------
    CorpusError
        If no chunk of a file can be spelled by the tokenizer, or `max_bytes` hold no character.
    """
    by_file, is_whole = _read(texts, field, max_bytes)
    sources = [] if is_whole else [str(source) for source in find_sources(texts)]
    zipped: ZippedModel | None = None
    if measure:
        zipped = load_zip(
            checkpoint,
            composer,
            max_hypertokens=max_hypertokens,
            max_ids=max_ids,
            bias=bias,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        vocabulary, limits = zipped.vocabulary, zipped.hyper.limits
    else:
        vocabulary = load_vocabulary(checkpoint)
        limits = limits_for(vocabulary, None, max_hypertokens, max_ids)
    figures = []
    for done, (file, documents) in enumerate(by_file.items()):
        progress(done, len(by_file), "compressing")
        figures.append(
            _figures(file, documents, vocabulary, limits, context_bytes, zipped, measured_bytes)
        )
    progress(len(by_file), len(by_file), "compressing")
    return Compression(
        tuple(figures),
        limits,
        context_bytes,
        str(composer) if measure else None,
        None if is_whole else max_bytes,
        tuple(source for source in sources if source not in by_file),
    )


def _read(
    texts: Sequence[str | Path], field: str, max_bytes: int | None
) -> tuple[dict[str, list[str]], bool]:
    """Return the documents by file, and whether reading did not end at `max_bytes`."""
    documents = read_documents(texts, field=field, max_bytes=max_bytes)
    own = [document.text for document in documents]
    is_whole = max_bytes is None or sum(one.n_bytes for one in documents) < max_bytes
    if max_bytes is not None:
        own = start_of_texts(own, max_bytes)
    if not own:
        raise CorpusError(f"max_bytes = {max_bytes} ends inside the first character; raise it")
    by_file: dict[str, list[str]] = {}
    for document, text in zip(documents, own, strict=False):  # the last may have nothing left
        by_file.setdefault(document.file or document.source, []).append(text)
    return by_file, is_whole


def _figures(
    file: str,
    documents: Sequence[str],
    vocabulary: Vocabulary,
    limits: Limits,
    context_bytes: int,
    zipped: ZippedModel | None,
    measured_bytes: int,
) -> FileFigures:
    """Return the figures of one file."""
    most = None if zipped is None else zipped.hyper.model.max_positions
    chunks, encoded = cut_contexts(vocabulary, documents, context_bytes, most)
    fits = encoded.fits(most)
    n_ids = n_codes = n_hyper = n_used = n_bytes = n_chunks = n_measured = 0
    plain = coded = 0.0
    for chunk, ids, usable in zip(chunks, encoded.ids, encoded.lossless & fits, strict=True):
        if not usable or not len(ids):
            continue
        sequence = [*encoded.prefix, *ids.tolist()]
        book = Codebook(limits)
        codes = book.encode(sequence)
        n_chunks += 1
        n_bytes += chunk.n_bytes
        n_ids += len(ids)
        n_codes += len(codes) - len(encoded.prefix)
        n_hyper += len(book.phrases)
        n_used += sum(code >= limits.n_ids for code in codes)
        if zipped is not None and n_measured < measured_bytes:
            # Where there is no prefix, neither is asked for the first id.
            plain += float(zipped.hyper.model.nll([sequence])[0].sum())
            coded += float(code_nll(zipped.hyper, codes).sum())
            n_measured += chunk.n_bytes
    if not n_chunks:
        raise CorpusError(
            f"the tokenizer spells none of {len(chunks):,} chunks of {file} without loss; give "
            "other text"
        )
    return FileFigures(
        file=file,
        n_bytes=n_bytes,
        n_chunks=n_chunks,
        n_ids=n_ids,
        n_codes=n_codes,
        n_hypertokens=n_hyper,
        n_used=n_used,
        n_lost=len(chunks) - n_chunks,
        plain=bits_per_byte(plain, n_measured) if n_measured else None,
        zipped=bits_per_byte(coded, n_measured) if n_measured else None,
        n_measured=n_measured,
        n_read=sum(len(text.encode()) for text in documents),
    )
