"""From a surgery to an anchor space: where the missing tokens and the anchors lie.

An anchor is a token that has a trained source row. Spaces made of spellings, of a text encoder or
of hidden states place every token of either vocabulary, so each trained source token is an
anchor. A donor's rows and co-occurrence know the target's tokens only, so there the anchors are
the shared tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.contract import Ids, InitContext, Rows
from tokensurgeon.spaces import (
    Space,
    co_occurrence_space,
    encoder_space,
    ngram_space,
    row_space,
    state_space,
)

SpaceName = Literal["donor", "co-occurrence", "encoder", "hidden-states", "ngrams"]


@dataclass(frozen=True)
class Place:
    """Which space, and how it is built.

    Attributes
    ----------
    space : str or None
        None takes the first of: the encoder where a path is given, the donor's rows, co-occurrence
        where there is a text, n-grams.
    encoder : str or None
        Folder of a text encoder.
    layer : int or None
        Of the hidden states; None takes two fifths of the depth.
    dim : int
        Most dimensions of co-occurrence and n-grams.
    window : int
        Of co-occurrence, in tokens.
    shared_only : bool
        Anchors are the shared tokens, whatever the space.
    """

    space: SpaceName | None = None
    encoder: str | None = None
    layer: int | None = None
    dim: int = 128
    window: int = 4
    shared_only: bool = False

    def check(self, name: str) -> None:
        """Raise a SettingError, in the name of an initialiser, if a setting is out of range."""
        for key in ("dim", "window"):
            if getattr(self, key) < 1:
                raise SettingError(f"{name}.{key} must be 1 or more; got {getattr(self, key)}")
        if self.layer is not None and self.layer < 0:
            raise SettingError(f"{name}.layer must be at least 0; got {self.layer}")
        if self.space == "encoder" and self.encoder is None:
            raise SettingError(
                f"{name}.encoder must name the folder of a text encoder when space is 'encoder'; "
                "got none"
            )

    def resolved_space(self, context: InitContext) -> SpaceName:
        """Return the space that is used in this surgery."""
        if self.space is not None:
            return self.space
        if self.encoder is not None:
            return "encoder"
        if context.donor is not None:
            return "donor"
        return "co-occurrence" if context.texts else "ngrams"


@dataclass(frozen=True)
class Placed:
    """Vectors of the missing tokens and of the anchors.

    Attributes
    ----------
    missing : float32 (n_missing, dim)
    known : bool (n_missing,)
        Which missing tokens the space knows.
    anchors : float32 (n_anchors, dim)
    source_ids : int64 (n_anchors,)
        The source row of each anchor; each once, all trained.
    """

    missing: Rows
    known: npt.NDArray[np.bool_]
    anchors: Rows
    source_ids: Ids

    def anchor_of(self, n_source: int) -> Ids:
        """Return the anchor of each source id, or -1, int64 (n_source,)."""
        result = np.full(n_source, -1, dtype=np.int64)
        result[self.source_ids] = np.arange(len(self.source_ids))
        return result


def place(context: InitContext, where: Place, side: str, name: str) -> Placed:
    """Return where the missing tokens and the anchors lie.

    Spaces are kept in `context.cache`; only hidden states are not, so that every method answers
    for the forward passes that it asked for.

    Parameters
    ----------
    context : InitContext
    where : Place
    side : 'input' or 'output'
        Which of the donor's matrices; other spaces are the same on both sides.
    name : str
        Who asks, for messages.

    Raises
    ------
    InitialiserError
        If what the space is made of is not at hand.
    """
    space = where.resolved_space(context)
    if space in ("donor", "co-occurrence"):
        found = _donor(context, side, name) if space == "donor" else _text(context, where, name)
        targets, source_ids = shared_pairs(context, found.known)
        return Placed(
            found.vectors[context.missing],
            found.known[context.missing],
            found.vectors[targets],
            source_ids,
        )
    source_ids = np.flatnonzero(context.anchors).astype(np.int64)
    if where.shared_only:
        _, shared = shared_pairs(context, np.ones(context.target.n_rows, dtype=bool))
        source_ids = np.sort(shared)
    if space == "hidden-states":
        found = _states(context, where, source_ids, name)
    else:
        found = _spelled(context, where, space, source_ids, name)
    n = context.n_missing
    known = found.known[n:]
    return Placed(found.vectors[:n], found.known[:n], found.vectors[n:][known], source_ids[known])


def shared_pairs(context: InitContext, known: npt.NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """Return (target ids, source ids) of the shared tokens whose source row is trained.

    Parameters
    ----------
    context : InitContext
    known : bool (≥ n_target,)
        Target ids that may be used. Where two of them share a source row, the first counts.
    """
    targets = context.alignment.shared
    targets = targets[targets < len(known)]
    source_ids = context.alignment.source_ids[targets]
    good = (source_ids >= 0) & (source_ids < context.n_source) & known[targets]
    targets, source_ids = targets[good], source_ids[good]
    good = context.anchors[source_ids]
    targets, source_ids = targets[good], source_ids[good]
    _, first = np.unique(source_ids, return_index=True)
    first = np.sort(first)
    return np.asarray(targets[first], np.int64), np.asarray(source_ids[first], np.int64)


def _donor(context: InitContext, side: str, name: str) -> Space:
    donor = context.donor
    if donor is None:
        raise InitialiserError(
            f"'{name}' with space 'donor' reads the rows of a model that has the target "
            "tokenizer. Give one with --donor, or choose another space."
        )
    return row_space(donor.input if side == "input" else donor.output, donor.known)


def _text(context: InitContext, where: Place, name: str) -> Space:
    texts = context.texts
    if not texts:
        raise InitialiserError(
            f"'{name}' with space 'co-occurrence' counts neighbours in a text. Give one with "
            "--calibration-text, or choose another space."
        )
    key = ("co-occurrence", where.dim, where.window)
    if key not in context.cache:
        context.progress(0, 1, f"{name}: counting neighbours")
        n_target = context.target.n_rows
        encoded = context.target.encode_many(texts)
        documents = [np.asarray(each.ids, dtype=np.int64) for each in encoded]
        context.cache[key] = co_occurrence_space(
            documents, n_target, dim=where.dim, window=where.window, seed=context.seed
        )
        context.progress(1, 1, f"{name}: counting neighbours")
    found: Space = context.cache[key]
    return found


def _spelled(context: InitContext, where: Place, space: str, source_ids: Ids, name: str) -> Space:
    """Return the space of the missing tokens and then the anchors, from their bytes."""
    source, target = context.source.token_bytes, context.target.token_bytes
    key: tuple[Any, ...] = (space, where.dim, where.encoder, where.shared_only)
    if key not in context.cache:
        data = [target[i] for i in context.missing.tolist()]
        data += [source[i] for i in source_ids.tolist()]
        if space == "ngrams":
            context.progress(0, 1, f"{name}: comparing spellings")
            found = ngram_space(data, dim=where.dim, seed=context.seed)
            context.progress(1, 1, f"{name}: comparing spellings")
        else:
            if where.encoder is None:
                raise InitialiserError(
                    f"'{name}' with space 'encoder' needs the folder of a text encoder. Give "
                    f"--set {name}.encoder=FOLDER, or choose another space."
                )
            found = encoder_space(
                [_text_of(each) for each in data],
                where.encoder,
                device=context.device,
                progress=lambda done, total: context.progress(done, total, f"{name}: encoding"),
            )
        context.cache[key] = found
    result: Space = context.cache[key]
    return result


def _states(context: InitContext, where: Place, source_ids: Ids, name: str) -> Space:
    """Return the space of the missing tokens and then the anchors, from the source's states."""
    states = context.states
    if states is None:
        raise InitialiserError(
            f"'{name}' with space 'hidden-states' runs the source model, which is not at hand "
            "here. Choose another space."
        )
    pieces: Sequence[Sequence[int]] = [*context.pieces, *([int(i)] for i in source_ids)]
    return state_space(
        pieces,
        states,
        resolved_layer(where.layer, states.n_layers, name),
        states.width,
        prefix=context.prefix,
        max_positions=states.max_positions,
        progress=lambda done, total: context.progress(done, total, f"{name}: reading states"),
    )


def resolved_layer(layer: int | None, n_layers: int, name: str) -> int:
    """Return the layer asked for, two fifths of the depth where none is.

    Raises
    ------
    SettingError
        If the model has fewer blocks.
    """
    if layer is None:
        return max(1, min(n_layers, round(0.4 * n_layers)))
    if layer > n_layers:
        raise SettingError(f"{name}.layer is {layer}; this model has {n_layers} blocks")
    return layer


def _text_of(data: bytes | None) -> str | None:
    """Return a token's bytes as text; None for bytes that are no whole text."""
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError:
        return None
