"""The conformance kit: does an initialiser keep its contract? For plug-ins as for built-ins.

`check_initialiser` runs it on small made-up surgeries: byte-level vocabularies built in memory,
random rows, a toy forward pass. It checks form, never quality.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Alignment, align
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError, SettingError, reason
from tokensurgeon.initialisers.contract import (
    DonorRows,
    InitContext,
    Initialiser,
    NewRows,
    SideRows,
)
from tokensurgeon.vocabulary import Kind, Vocabulary, vocabulary_from_tokenizer

_WIDTH, _DONOR_WIDTH = 16, 12
"""They differ, so that rows of one cannot be taken for rows of the other."""
_MULTIPLIER = 2.0
"""Not 1, so that a method that forgets it is seen to."""
_SHARED_WORDS = ("the", " the", " and", " cat", "ing", "er", " on", "at", " mat", "it", "en", "s a")
_MISSING_WORDS = (
    " sitting", " kitten", "table", " mitten", "letter", " running", "world", " water", "été",
)  # fmt: skip
_TEXTS = ("the cat sat on the mat and the kitten ran", "a mitten on the table; water in the world")


def check_initialiser(candidate: type[Any] | Initialiser) -> None:
    """Raise unless the initialiser keeps every law of the contract.

    The laws: a frozen dataclass with a name, whose settings survive `dataclasses.replace`; rows
    of the right shape and dtype, finite; the same bytes at a second call; the context left
    untouched; 0, 1 and many missing tokens; tied and untied; with and without a donor and forward
    passes. Where something it needs is absent it may refuse with an InitialiserError, a fact and
    a next step in one line, but somewhere it must work.

    Parameters
    ----------
    candidate : class or instance
        A class is instantiated without arguments; pass an instance if it has a setting without a
        default.

    Raises
    ------
    InitialiserError
        Naming the law, and the made-up surgery on which it was broken.

    Examples
    --------
    >>> from tokensurgeon.initialisers import check_initialiser, get
    >>> check_initialiser(get("subword-mean"))
    """
    instance = _instance(candidate)
    name = instance.name
    worked = 0
    refusal = ""
    for label, context in example_contexts():
        before = _digest(context)
        try:
            first = instance(context)
            context.cache.clear()  # what is kept there must not hide that it is random
            second = instance(context)
        except InitialiserError as error:
            refusal = str(error)
            if "\n" in refusal or len(refusal.split()) < 4:
                raise InitialiserError(
                    f"'{name}' refuses {label} with {refusal!r}; say a fact and the next step, "
                    "in one line"
                ) from error
            _demand(_digest(context) == before, name, label, "changes the context")
            continue
        except Exception as error:
            raise InitialiserError(
                f"'{name}' fails on {label}: {type(error).__name__}: {reason(error)}; raise "
                "InitialiserError where it cannot work"
            ) from error
        _demand(_digest(context) == before, name, label, "changes the context")
        _check_rows(name, label, context, first)
        same = _digest(first) == _digest(second)
        _demand(same, name, label, "gives other rows at a second call; use context.generator()")
        worked += 1
    if not worked:
        raise InitialiserError(f"'{name}' works on none of the example surgeries: {refusal}")


def example_contexts() -> Iterator[tuple[str, InitContext]]:
    """Yield a label and a fresh context for each made-up surgery of the kit."""
    for tied in (False, True):
        for extras in ("bare", "donor", "states", "everything"):
            for count in (0, 1, None):
                number = "many" if count is None else str(count)
                label = f"{'a tied' if tied else 'an untied'} source, {extras}, {number} missing"
                yield label, example_context(tied=tied, extras=extras, n_missing=count)


def example_context(
    *, tied: bool = False, extras: str = "everything", n_missing: int | None = None, seed: int = 0
) -> InitContext:
    """Return one made-up surgery with at most `n_missing` missing tokens; all if None.

    `extras` is ``bare``, ``donor``, ``states`` or ``everything`` (both, and a calibration text).
    """
    alignment = _example_alignment()
    source, target = alignment.source, alignment.target
    generator = np.random.default_rng(seed)
    n_source = source.n_rows + 3  # padding rows
    input_rows = _random_rows(generator, n_source, _WIDTH)
    output_rows = input_rows if tied else _random_rows(generator, n_source, _WIDTH)
    anchors = np.zeros(n_source, dtype=bool)
    anchors[: source.n_rows] = source.kinds == Kind.ORDINARY
    spelled = [(int(i), source.pieces_of(target.token_bytes[i] or b"")) for i in alignment.missing]
    pairs = [(i, pieces) for i, pieces in spelled if pieces][:n_missing]
    everything = extras == "everything"
    donor = None
    if extras == "donor" or everything:
        known = generator.random(target.n_rows) < 0.95
        known[alignment.missing[:1]] = True
        rows = [_random_rows(generator, target.n_rows, _DONOR_WIDTH) for _ in range(2)]
        for side in rows:
            side[~known] = 0
        donor = DonorRows(input=rows[0], output=rows[1], known=known)
    states = None
    if extras == "states" or everything:
        states = ExampleStates(input_rows * np.float32(_MULTIPLIER))
    return InitContext(
        alignment=alignment,
        missing=np.array([i for i, _ in pairs], dtype=np.int64),
        pieces=tuple(tuple(pieces) for _, pieces in pairs),
        input_rows=input_rows,
        output_rows=output_rows,
        tied=tied,
        anchors=anchors,
        embedding_multiplier=_MULTIPLIER,
        donor=donor,
        source_counts=_counts(source, n_source) if everything else None,
        target_counts=_counts(target, target.n_rows) if everything else None,
        texts=_TEXTS if everything else (),
        states=states,
        prefix=() if source.bos_id is None else (source.bos_id,),
        seed=seed,
    )


class ExampleStates:
    """A toy causal model of two blocks, in numpy: each adds a tanh of a decaying sum."""

    n_layers = 2
    max_positions: int | None

    def __init__(self, embeddings: Float32, seed: int = 0, max_positions: int = 64) -> None:
        self.max_positions = max_positions
        self.width = int(embeddings.shape[1])
        self._embeddings = embeddings
        generator = np.random.default_rng(seed)
        self._blocks = generator.standard_normal((self.n_layers, self.width, self.width)) / 4
        self._positions = generator.standard_normal((max_positions, self.width)) / 10

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Float32:
        """See `tokensurgeon.initialisers.contract.States`."""
        result = np.zeros((len(ids), self.width), dtype=np.float32)
        for i, sequence in enumerate(ids):
            positions = range(len(sequence)) if position_ids is None else position_ids[i]
            state = self._embeddings[list(sequence)] + self._positions[list(positions)]
            distance = np.arange(len(sequence))[:, None] - np.arange(len(sequence))
            mix = np.where(distance >= 0, 0.5 ** np.abs(distance), 0.0)
            for block in self._blocks[:layer]:
                state = state + np.tanh(mix @ state @ block)
            result[i] = state[-1]
        return result


def _instance(candidate: type[Any] | Initialiser) -> Initialiser:
    """Return an instance of the candidate, its class checked."""
    cls = candidate if isinstance(candidate, type) else type(candidate)
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise InitialiserError(f"{cls.__qualname__} is not a frozen dataclass")
    name = getattr(cls, "name", None)
    if not isinstance(name, str):
        raise InitialiserError(f"{cls.__qualname__} has no name; decorate it with @initialiser")
    instance: Any = candidate
    if isinstance(candidate, type):
        try:
            instance = candidate()
        except (TypeError, SettingError) as error:
            raise InitialiserError(
                f"'{name}' has a setting without a default; check an instance of it instead"
            ) from error
    if not isinstance(instance, Initialiser):
        raise InitialiserError(f"'{name}' has no __call__(context)")
    copy: Any = dataclasses.replace(cast(Any, instance))
    if type(copy) is not type(instance) or copy != instance:
        raise InitialiserError(f"the settings of '{name}' do not survive dataclasses.replace")
    return instance


def _demand(kept: bool, name: str, label: str, what: str) -> None:
    if not kept:
        raise InitialiserError(f"'{name}' {what} (on {label})")


def _check_rows(name: str, label: str, context: InitContext, new: NewRows) -> None:
    if not isinstance(new, NewRows):
        raise InitialiserError(f"'{name}' returns {type(new).__name__}, not NewRows (on {label})")
    answered = new.input is not None or new.output is not None
    _demand(answered, name, label, "returns rows of neither side")
    for which in ("input", "output"):
        side, rows = getattr(new, which), getattr(context, f"{which}_rows")
        if side is not None:
            _check_side(name, f"{which} side, {label}", context, side, rows)


def _check_side(
    name: str, label: str, context: InitContext, side: SideRows, source_rows: Float32
) -> None:
    """Check one side's shapes, dtypes and finiteness, and that the weights give the values."""
    shape = (context.n_missing, context.width)
    expected = np.zeros(shape)
    if side.virtual is not None:
        good = side.virtual.ndim == 2 and side.virtual.shape[1] == context.width
        _demand(good, name, label, f"has virtual rows of shape {side.virtual.shape}")
        _demand(bool(np.isfinite(side.virtual).all()), name, label, "has a virtual row not finite")
    if side.dense is not None:
        _demand(side.dense.shape == shape, name, label, f"has dense rows of {side.dense.shape}")
        _demand(side.dense.dtype == np.float32, name, label, f"has {side.dense.dtype} dense rows")
        expected += side.dense
    if side.weights is not None:
        is_csr = isinstance(side.weights, sp.csr_array)
        _demand(is_csr, name, label, f"has weights as {type(side.weights).__name__}, not csr_array")
        n_virtual = 0 if side.virtual is None else len(side.virtual)
        wanted = (context.n_missing, context.n_source + n_virtual)
        _demand(side.weights.shape == wanted, name, label, f"has weights of {side.weights.shape}")
        _demand(bool(np.isfinite(side.weights.data).all()), name, label, "has weights not finite")
        stacked = source_rows if side.virtual is None else np.vstack([source_rows, side.virtual])
        expected += side.weights.astype(np.float64) @ stacked.astype(np.float64)
    values = side.values(source_rows)
    _demand(values.shape == shape, name, label, f"returns rows of shape {values.shape}")
    _demand(values.dtype == np.float32, name, label, f"returns {values.dtype} rows")
    _demand(bool(np.isfinite(values).all()), name, label, "returns rows that are not finite")
    slack = 1e-3 * (1.0 + float(np.abs(expected).max(initial=0.0)))
    close = np.allclose(values, expected, rtol=1e-3, atol=slack)
    _demand(close, name, label, "has values that its weights do not give")


def _arrays(value: Any) -> Iterator[Any]:
    """Yield the arrays and scalars inside a dataclass, vocabularies and callables left out."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, sp.csr_array):
        yield from (value.data, value.indices, value.indptr)
    elif isinstance(value, tuple | list):
        yield np.frombuffer(repr(value).encode(), dtype=np.uint8)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name))


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    for array in _arrays(value):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _random_rows(generator: np.random.Generator, count: int, width: int) -> Float32:
    return generator.standard_normal((count, width)).astype(np.float32)


def _counts(vocabulary: Vocabulary, n_rows: int) -> Ids:
    counts = np.zeros(n_rows, dtype=np.int64)
    for text in _TEXTS:
        np.add.at(counts, vocabulary.encode(text), 1)
    return counts


@functools.cache
def _example_alignment() -> Alignment:
    return align(
        vocabulary_from_tokenizer(_byte_level(_SHARED_WORDS)),
        vocabulary_from_tokenizer(_byte_level((*_MISSING_WORDS, *_SHARED_WORDS))),
    )


def _byte_level(words: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer that has every prefix of the words as a token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in words:
        letters = level.pre_tokenize_str(word)[0][0]
        for end in range(1, len(letters)):
            if letters[: end + 1] not in symbols:
                symbols.append(letters[: end + 1])
                merges.append((letters[:end], letters[end]))
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(symbol, special=True) for symbol in symbols[:2]])
    return tokenizer
