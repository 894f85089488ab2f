"""A model that writes tokens of a large vocabulary: as by a product with all rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, BertForMaskedLM

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import EvaluationError, SettingError
from tokensurgeon.models.other_kinds import MaskedModel
from tokensurgeon.runtime.merging.dynamic_model import DynamicModel
from tokensurgeon.runtime.merging.large_vocabulary import LargeVocabulary
from tokensurgeon.runtime.merging.merged_rows import context_of, merged_rows
from tokensurgeon.vocabulary import load_vocabulary

TEXTS = ["the calendar and the calendars", "the days of the calendar", "a row of the table"]


@pytest.fixture(scope="module")
def opened(checkpoints: Callable[..., Path], world: Path) -> Callable[..., DynamicModel]:
    made: dict[tuple[str, str], DynamicModel] = {}

    def get(family: str, positions: str = "packed") -> DynamicModel:
        if (family, positions) not in made:
            made[family, positions] = DynamicModel.open(checkpoints(family), positions=positions)
        return made[family, positions]

    return get


def large(
    model: DynamicModel, checkpoints: Callable[..., Path], family: str, bias: float
) -> LargeVocabulary:
    tokens = model.merge(TEXTS, least_count=1).merged
    context = context_of(Checkpoint.open(checkpoints(family)), model.vocabulary)
    rows = merged_rows(context, "subword-last", side="output")
    return LargeVocabulary(model, tokens, rows, "exact", bias=bias)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_own_tokens_alone_it_writes_as_generate_does(
    family: str, opened: Callable[..., DynamicModel], checkpoints: Callable[..., Path]
) -> None:
    model = opened(family)
    batch = model.merge(TEXTS, saving=0.2, least_count=1)
    written = large(model, checkpoints, family, -1e9).generate(batch, 6)
    plain = model.generate(batch, 6)
    assert [list(one.ids) for one in written] == plain
    assert [list(one.own_ids) for one in written] == plain


@pytest.mark.parametrize("positions", ["packed", "spread"])
def test_each_token_is_the_best_of_all_rows_after_what_was_written(
    positions: str, opened: Callable[..., DynamicModel], checkpoints: Callable[..., Path]
) -> None:
    model = opened("llama", positions)
    vocabulary = large(model, checkpoints, "llama", 1.0)
    batch = model.merge(TEXTS, least_count=1)
    extra = vocabulary.index._rows[:, :-1], vocabulary.index._rows[:, -1]
    for sequence, written in zip(batch.sequences, vocabulary.generate(batch, 5), strict=True):
        pieces = [batch.pieces_of(int(token)) for token in sequence]
        pieces += [vocabulary.pieces_of(token) for token in written.ids]
        merged = tuple(sorted({one for one in pieces if len(one) > 1}))
        ids = [one[0] if len(one) == 1 else batch.n_own + merged.index(one) for one in pieces]
        whole = type(batch)((np.array(ids),), merged, batch.n_own, 0)
        states = model.states(whole)[0]
        scores = states @ extra[0].T + extra[1]
        best = scores[len(sequence) - 1 : -1].argmax(axis=1).tolist()
        assert best == list(written.ids)
        assert written.own_ids == tuple(i for one in pieces[len(sequence) :] for i in one)
    assert any(token >= batch.n_own for one in vocabulary.generate(batch, 5) for token in one.ids)


def test_draws_are_of_a_seed_and_an_end_ends(
    opened: Callable[..., DynamicModel], checkpoints: Callable[..., Path]
) -> None:
    model = opened("llama")
    vocabulary = large(model, checkpoints, "llama", 0.0)
    batch = model.merge(TEXTS, least_count=1)
    drawn = [vocabulary.generate(batch, 6, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    first = drawn[0][0].ids[0]
    ended = vocabulary.generate(batch, 6, temperature=2.0, seed=1, stop=[first])[0]
    assert ended.ids == (first,)
    assert all(len(one.ids) == 6 for one in drawn[2])


def test_what_cannot_be_written_is_told(
    opened: Callable[..., DynamicModel], checkpoints: Callable[..., Path], world: Path
) -> None:
    model = opened("llama")
    vocabulary = large(model, checkpoints, "llama", 0.0)
    with pytest.raises(EvaluationError, match="set keep_last=1"):
        vocabulary.generate(model.merge(["the calendar"], least_count=1, keep_last=0), 3)
    with pytest.raises(SettingError, match="each named once"):
        LargeVocabulary(model, [(5, 6), (5, 6)], model.rows)
    config = BertConfig(
        vocab_size=330, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    encoder = DynamicModel(
        MaskedModel(BertForMaskedLM(config)), load_vocabulary(world / "source"), model.rows
    )
    with pytest.raises(EvaluationError, match="an index needs a causal model"):
        LargeVocabulary(encoder, [], model.rows)
