"""From a surgery to an anchor space: vectors of the missing tokens and of the anchors.

An anchor is a token that has a trained source row. Spaces made of spellings, of a text encoder or
of hidden states know every token of either vocabulary, so each trained source token is an anchor.
A donor's rows and co-occurrence know the target's tokens only, so there the anchors are the
shared tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Ids, Mask
from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.spaces import (
    Space,
    co_occurrence_space,
    encoder_space,
    ngram_space,
    row_space,
    state_space,
)
from tokensurgeon.spaces.states import state_tokens

SpaceName = Literal["donor", "co-occurrence", "encoder", "hidden-states", "ngrams"]

EARLY = 0.4
"""Share of a model's depth that hidden states are read after where no layer is named: a model
fuses the pieces of a word in its early layers."""


@dataclass(frozen=True)
class SpaceSpec:
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
                "space 'encoder' needs the folder of a text encoder; "
                f"give --set {name}.encoder=FOLDER"
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

    def forward_tokens(self, context: InitContext) -> int:
        """Return how many tokens building it runs through the source."""
        states = context.states
        if states is None or self.resolved_space(context) != "hidden-states":
            return 0
        n_anchors = len(_anchor_ids(context, self))
        words = state_tokens(context.pieces, context.prefix, states.max_positions)
        return words + n_anchors * (len(context.prefix) + 1)


@dataclass(frozen=True)
class AnchorSpace:
    """Vectors of the missing tokens and of the anchors, in one space.

    Attributes
    ----------
    missing : float32 (n_missing, dim)
    known : bool (n_missing,)
        Which missing tokens the space knows.
    anchors : float32 (n_anchors, dim)
    source_ids : int64 (n_anchors,)
        The source row of each anchor; each once, all trained.
    """

    missing: Float32
    known: Mask
    anchors: Float32
    source_ids: Ids

    def anchor_of(self, n_source: int) -> Ids:
        """Return the anchor of each source id, or -1, int64 (n_source,)."""
        anchor = np.full(n_source, -1, dtype=np.int64)
        anchor[self.source_ids] = np.arange(len(self.source_ids))
        return anchor

    def over_source(self, weights: sp.csr_array, n_source: int) -> sp.csr_array:
        """Return weights over anchors as weights over source ids."""
        columns = self.source_ids[weights.indices]
        shape = (weights.shape[0], n_source)
        result = sp.csr_array((weights.data, columns, weights.indptr), shape=shape, copy=True)
        result.sort_indices()
        return result

    def centred(self) -> AnchorSpace:
        """Return the space with the anchors' mean at its origin; unknown tokens stay 0."""
        mean = self.anchors.mean(axis=0, dtype=np.float64).astype(np.float32)
        missing = self.missing - mean
        missing[~self.known] = 0.0
        return replace(self, missing=missing, anchors=self.anchors - mean)


def locate(context: InitContext, spec: SpaceSpec, side: str, name: str) -> AnchorSpace:
    """Return the vectors of the missing tokens and of the anchors.

    Spaces are kept in `context.cache`; only hidden states are not, so that every method answers
    for the forward passes that it asked for.

    Parameters
    ----------
    context : InitContext
    spec : SpaceSpec
    side : 'input' or 'output'
        Which of the donor's matrices; other spaces are the same on both sides.
    name : str
        Who asks, for messages.

    Raises
    ------
    InitialiserError
        If what the space is made of is not at hand.
    """
    kind = spec.resolved_space(context)
    if kind in ("donor", "co-occurrence"):
        if kind == "co-occurrence":
            space = _text(context, spec, name)
        elif (donor := context.donor) is not None:
            space = row_space(donor.input if side == "input" else donor.output, donor.known)
        else:
            raise InitialiserError(
                f"'{name}' with space 'donor' reads the rows of a model that has the target "
                "tokenizer. Give one with --donor, or choose another space."
            )
        targets, source_ids = shared_pairs(context, space.known)
        missing = context.missing
        return AnchorSpace(
            space.vectors[missing], space.known[missing], space.vectors[targets], source_ids
        )
    source_ids = _anchor_ids(context, spec)
    if kind == "hidden-states":
        space = _states(context, spec, source_ids, name)
    else:
        space = _spelled(context, spec, kind, source_ids, name)
    n = context.n_missing
    vectors, known = space.vectors, space.known[n:]
    return AnchorSpace(vectors[:n], space.known[:n], vectors[n:][known], source_ids[known])


def _anchor_ids(context: InitContext, spec: SpaceSpec) -> Ids:
    """Return the source ids of the anchors in a space that knows both vocabularies."""
    if spec.shared_only:
        _, shared = shared_pairs(context, np.ones(context.target.n_rows, dtype=bool))
        return np.sort(shared)
    return np.flatnonzero(context.anchors).astype(np.int64)


def shared_pairs(context: InitContext, known: Mask) -> tuple[Ids, Ids]:
    """Return (target ids, source ids) of the shared tokens whose source row is trained.

    `known`, bool (≥ n_target,), says which target ids may be used. Where two of them share a
    source row, the first counts.
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


def _text(context: InitContext, spec: SpaceSpec, name: str) -> Space:
    texts = context.texts
    if not texts:
        raise InitialiserError(
            f"'{name}' with space 'co-occurrence' counts neighbours in a text. Give one with "
            "--calibration-text, or choose another space."
        )
    key = ("co-occurrence", spec.dim, spec.window)
    if key not in context.cache:
        context.progress(0, 1, f"{name}: counting neighbours")
        documents = [np.asarray(e.ids, dtype=np.int64) for e in context.target.encode_many(texts)]
        context.cache[key] = co_occurrence_space(
            documents, context.target.n_rows, dim=spec.dim, window=spec.window, seed=context.seed
        )
        context.progress(1, 1, f"{name}: counting neighbours")
    space: Space = context.cache[key]
    return space


def _spelled(context: InitContext, spec: SpaceSpec, kind: str, source_ids: Ids, name: str) -> Space:
    """Return the space of the missing tokens and then the anchors, from their bytes."""
    key: tuple[Any, ...] = (kind, spec.dim, spec.encoder, spec.shared_only)
    if key not in context.cache:
        data = [context.target.token_bytes[i] for i in context.missing.tolist()]
        data += [context.source.token_bytes[i] for i in source_ids.tolist()]
        if kind == "ngrams":
            context.progress(0, 1, f"{name}: comparing spellings")
            context.cache[key] = ngram_space(data, dim=spec.dim, seed=context.seed)
            context.progress(1, 1, f"{name}: comparing spellings")
        else:
            if spec.encoder is None:
                raise InitialiserError(
                    f"'{name}' with space 'encoder' needs the folder of a text encoder. Give "
                    f"--set {name}.encoder=FOLDER, or choose another space."
                )
            context.cache[key] = encoder_space(
                [_text_of(token) for token in data],
                spec.encoder,
                device=context.device,
                progress=context.steps(f"{name}: encoding"),
            )
    space: Space = context.cache[key]
    return space


def _states(context: InitContext, spec: SpaceSpec, source_ids: Ids, name: str) -> Space:
    """Return the space of the missing tokens and then the anchors, from the source's states."""
    states = context.states
    if states is None:
        raise InitialiserError(
            f"'{name}' with space 'hidden-states' runs the source model, which is not at hand "
            "here. Choose another space."
        )
    return state_space(
        [*context.pieces, *((token,) for token in source_ids.tolist())],
        states,
        resolved_layer(spec.layer, states.n_layers, name),
        states.width,
        prefix=context.prefix,
        max_positions=states.max_positions,
        progress=context.steps(f"{name}: reading states"),
    )


def resolved_layer(layer: int | None, n_layers: int, name: str) -> int:
    """Return the layer asked for, two fifths of the depth where none is.

    Raises
    ------
    SettingError
        If the model has fewer blocks.
    """
    if layer is None:
        return max(1, min(n_layers, round(EARLY * n_layers)))
    if layer > n_layers:
        raise SettingError(
            f"{name}.layer is {layer}; this model has {n_layers} blocks; take {n_layers} or less"
        )
    return layer


def _text_of(data: bytes | None) -> str | None:
    """Return a token's bytes as text; None for bytes that are no whole text."""
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError:
        return None
