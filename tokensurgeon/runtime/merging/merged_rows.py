"""Rows for merged tokens, made from their pieces when a batch needs them, and kept.

Any initialiser that needs no more than the pieces can make them: the subword family, the plain
baselines, a plug-in. The ridge composer and the hypernetwork learn first how a token's row follows
from the rows of its pieces; that is done once. Rows are kept in a table of bounded size, and what
was not used for longest leaves it first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from tokensurgeon.alignment import align
from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.trained_rows import looks_trained
from tokensurgeon.errors import InitialiserError, SettingError, reading
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.registry import build
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.runtime.merging.merged_batch import Pieces
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary

DEFAULT_ROWS = "subword-mean"
DEFAULT_KEPT = 65_536
"""Rows kept, at most: 144 MiB at a width of 576, and more merged tokens than a day of text has."""
LEARNED = ("hypernetwork", "ridge-composer")
"""Methods that are fitted to the source once, and then make rows from pieces alone."""

Side = Literal["input", "output"]
Compose = Callable[[Sequence[Pieces]], Float32]
"""From the pieces of tokens to their rows, (n, width)."""


class MergedRows:
    """Rows of merged tokens, of one side.

    Parameters
    ----------
    name : str
        Of the method.
    compose : callable
    width : int
    most : int
        Rows kept, at most; at least 1.

    Attributes
    ----------
    n_made, n_kept : int
        Rows that were made so far, and rows that were there when asked for.
    """

    def __init__(self, name: str, compose: Compose, width: int, most: int = DEFAULT_KEPT) -> None:
        if most < 1:
            raise SettingError(f"rows kept must be 1 or more; got {most}")
        self.name, self.width, self._compose, self._most = name, width, compose, most
        self._table: OrderedDict[Pieces, Float32] = OrderedDict()
        self.n_made = self.n_kept = 0

    def __call__(self, merged: Sequence[Pieces]) -> Float32:
        """Return the rows of tokens by their pieces, float32 (len(merged), width).

        Raises
        ------
        InitialiserError
            If the method needs more than the pieces, or gives a row that is not finite.
        """
        rows = np.empty((len(merged), self.width), dtype=np.float32)
        missing: dict[Pieces, list[int]] = {}
        for i, pieces in enumerate(merged):
            known = self._table.get(pieces)
            if known is None:
                missing.setdefault(pieces, []).append(i)
            else:
                self._table.move_to_end(pieces)
                rows[i] = known
        self.n_made += len(missing)
        self.n_kept += len(merged) - sum(map(len, missing.values()))
        if missing:
            made = self._compose(list(missing))
            if made.shape != (len(missing), self.width) or not np.isfinite(made).all():
                raise InitialiserError(
                    f"'{self.name}' gives rows for merged tokens that are not finite or of another "
                    f"shape than {len(missing)} × {self.width}; use '{DEFAULT_ROWS}'"
                )
            for (pieces, at), row in zip(missing.items(), made, strict=True):
                rows[at] = row
                self._table[pieces] = row.copy()
            while len(self._table) > self._most:
                self._table.popitem(last=False)
        return rows

    def __len__(self) -> int:
        return len(self._table)

    def forget(self) -> None:
        """Drop the rows that are kept."""
        self._table.clear()


def context_of(
    checkpoint: Checkpoint,
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> InitContext:
    """Return what a method sees of a checkpoint whose tokens will be merged: no token yet."""
    layout = checkpoint.layout
    input_rows = checkpoint.input_rows()
    output_rows = input_rows
    if not layout.tied and layout.output_names:
        output_rows = checkpoint.output_rows()
    return InitContext(
        alignment=align(vocabulary, vocabulary),
        missing=np.zeros(0, dtype=np.int64),
        pieces=(),
        input_rows=input_rows,
        output_rows=output_rows,
        tied=output_rows is input_rows,
        anchors=looks_trained(vocabulary, input_rows, output_rows),
        embedding_multiplier=layout.embedding_multiplier,
        prefix=prefix_of(vocabulary),
        device=device,
        seed=seed,
        progress=progress,
    )


def merged_rows(
    context: InitContext,
    name: str = DEFAULT_ROWS,
    settings: Mapping[str, Any] | None = None,
    most: int = DEFAULT_KEPT,
    side: Side = "input",
) -> MergedRows:
    """Return rows of merged tokens by a method.

    Parameters
    ----------
    context : InitContext
        Of `context_of`.
    name : str
        A registered initialiser.
    settings : mapping of str to value, optional
        Its settings; `hypernetwork` needs ``network``, a file of ``tokensurgeon hypernet train``,
        or ``minutes`` to train on the source's own rows.
    most : int
        Rows kept, at most.
    side : {"input", "output"}
        What a model reads the tokens by, or what it would write them by.

    Raises
    ------
    UnknownNameError, SettingError
        If there is no such method or setting.
    InitialiserError
        If the method needs more than the pieces, or a network is another model's.
    """
    method = build(name, settings)
    made = _learned if name in LEARNED else _plain
    compose = made(context, method, side)
    return MergedRows(name, compose, context.width, most)


def _plain(context: InitContext, method: Any, side: Side) -> Compose:
    """Return a function that asks an initialiser for one side."""
    # One side is wanted, so a method that gives the sides different rows may do so.
    apart = replace(context, tied=False)

    def compose(merged: Sequence[Pieces]) -> Float32:
        # No token of a vocabulary has these ids: a method that looks its tokens up finds none.
        ids = apart.alignment.n_target + np.arange(len(merged), dtype=np.int64)
        try:
            answer = getattr(method(replace(apart, missing=ids, pieces=tuple(merged))), side)
        except (IndexError, InitialiserError) as error:
            raise InitialiserError(
                f"'{method.name}' needs more of a token than its pieces, and a merged token has no "
                f"more; use '{DEFAULT_ROWS}'"
            ) from error
        if answer is None:
            raise InitialiserError(f"'{method.name}' makes no {side} rows; use '{DEFAULT_ROWS}'")
        rows: Float32 = answer.values(_rows_of(context, side))
        return rows

    return compose


def _rows_of(context: InitContext, side: Side) -> Float32:
    return context.input_rows if side == "input" else context.output_rows


def _learned(context: InitContext, method: Any, side: Side) -> Compose:
    """Return a function that composes rows as the source's own tokens taught."""
    from tokensurgeon.initialisers.hypernetwork.composition import composer_of
    from tokensurgeon.initialisers.hypernetwork.network_file import AGAIN, Hypernet
    from tokensurgeon.initialisers.hypernetwork.staged_fit import PARTS, StagedFit

    if method.name == "ridge-composer":
        return _ridge(context, method, PARTS, side)
    if method.network is not None:
        hypernet, _ = Hypernet.load(method.network)
        if len(hypernet.sides) > 1:  # of a surgery that unties; its input side serves here too
            context = replace(context, tied=False)
        with reading(method.network, AGAIN, InitialiserError):
            hypernet.check(context)
    else:
        steps = None if method.minutes else (0, 0)
        hypernet = StagedFit(context, 60.0 * method.minutes, steps=steps).run()
    composer = composer_of(hypernet, context)
    number = -1 if side == "output" else 0  # a network of one side serves both
    return lambda merged: composer.values(merged)[number]


def _ridge(context: InitContext, method: Any, parts: Sequence[int], side: Side) -> Compose:
    from tokensurgeon.initialisers.fallback_rows import trained_rows
    from tokensurgeon.initialisers.numerics.clip import longest_norm, shortened
    from tokensurgeon.initialisers.numerics.composer import finite, fit_composer
    from tokensurgeon.initialisers.respelling import spell_trained

    rows = finite(_rows_of(context, side))
    owners, spellings = spell_trained(context, method.cuts, parts, method.name)
    composer = fit_composer(
        rows,
        context.anchors,
        owners,
        spellings,
        method.alpha,
        generator=context.generator(),
        work=context.work(f"{method.name}: fitting"),
    )
    limit = longest_norm(trained_rows(rows, context.anchors))

    def compose(merged: Sequence[Pieces]) -> Float32:
        # Only rows of pieces are whitened: a vocabulary would take longer than a batch's forward.
        known, flat = np.unique([i for pieces in merged for i in pieces], return_inverse=True)
        ends = np.cumsum([len(pieces) for pieces in merged])
        local = [part.tolist() for part in np.split(flat, ends[:-1])]
        return shortened(composer.values(rows[known], local), limit)

    return compose
