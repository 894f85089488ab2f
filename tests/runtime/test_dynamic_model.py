"""A model that reads merged tokens: its own logits without merges, a cache that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.world import FAMILIES, SENTENCES, byte_level_bpe, save_tokenizer
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import (
    EvaluationError,
    InitialiserError,
    SettingError,
    UnknownNameError,
)
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.hypernetwork.staged_fit import StagedFit
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.models.other_kinds import HeadlessModel, MaskedModel
from tokensurgeon.runtime.merging.dynamic_model import DynamicModel
from tokensurgeon.runtime.merging.merged_batch import MergedBatch
from tokensurgeon.runtime.merging.merged_rows import MergedRows, context_of, merged_rows
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

TEXTS = [SENTENCES[0], SENTENCES[1], "the calendar says: the calendar, the days"]
AFTER = [" and days", " the rows of it", " or"]
CLOSE = 1e-4


def mean_rows(model: LanguageModel) -> MergedRows:
    table = model.model.get_input_embeddings().weight.detach().float().numpy()

    def compose(merged: Sequence[Sequence[int]]) -> np.ndarray:
        return np.stack([table[list(pieces)].mean(axis=0) for pieces in merged])

    return MergedRows("mean of pieces", compose, table.shape[1])


@pytest.fixture(scope="module")
def causal(checkpoints: Callable[..., Path], world: Path) -> Callable[..., DynamicModel]:
    """Return a maker of dynamic models of a family, which loads each once."""
    vocabulary = load_vocabulary(world / "source")
    made: dict[str, LanguageModel] = {}

    def get(family: str, positions: str = "packed") -> DynamicModel:
        if family not in made:
            made[family] = gemma() if family == "gemma3" else load_model(checkpoints(family))
        model = made[family]
        return DynamicModel(model, vocabulary, mean_rows(model), positions=positions)

    return get


def gemma() -> LanguageModel:
    """A model whose embedding multiplies its rows."""
    import transformers

    torch.manual_seed(4)
    config = transformers.Gemma3TextConfig(
        vocab_size=330, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
        pad_token_id=None, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return LanguageModel(model)


ALL = [*FAMILIES, "gemma3"]


@pytest.mark.parametrize("family", ALL)
def test_without_merges_the_logits_are_the_models_own(causal, family: str) -> None:
    """Bit for bit, alone and padded."""
    model = causal(family)
    ids = model.encode(TEXTS)
    for one in ids:
        batch = model.merge([one], merges=0)
        assert np.array_equal(model.logits(batch)[0], model.model.logits(one))
    batch = model.merge(ids, merges=0)
    longest = max(map(len, ids))
    padded = torch.tensor([[*one, *[0] * (longest - len(one))] for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    told = {"position_ids": torch.arange(longest) * mask} if model._told else {}
    with torch.inference_mode():
        own = model.model.model(input_ids=padded, attention_mask=mask, **told).logits
    for row, one in zip(model.logits(batch), own.float().numpy(), strict=True):
        assert np.array_equal(row, one[: len(row)])


@pytest.mark.parametrize("positions", ["packed", "spread"])
@pytest.mark.parametrize("family", ALL)
def test_a_batch_is_as_one_by_one(causal, family: str, positions: str) -> None:
    model = causal(family, positions)
    batch = model.merge(TEXTS, least_count=1)
    assert batch.saving > 0.2
    together = model.logits(batch)
    prefilled = model.prefill(batch)
    for i, sequence in enumerate(batch.sequences):
        alone = MergedBatch((sequence,), batch.merged, batch.n_own, batch.n_merges)
        np.testing.assert_allclose(model.logits(alone)[0], together[i], rtol=CLOSE, atol=CLOSE)
        np.testing.assert_allclose(prefilled.logits[i], together[i][-1], rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("positions", ["packed", "spread"])
@pytest.mark.parametrize("family", ALL)
def test_the_cache_after_a_merged_prefill_goes_on_as_without(causal, family, positions) -> None:
    """The losses of what follows are those of one pass over all; and so is what is written."""
    model = causal(family, positions)
    batch = model.merge(TEXTS, least_count=1)
    after = [model.vocabulary.encode(text) for text in AFTER]
    losses = model.nll_after(model.prefill(batch), after)
    whole = MergedBatch(
        tuple(np.concatenate([a, b]) for a, b in zip(batch.sequences, after, strict=True)),
        batch.merged, batch.n_own, batch.n_merges,
    )  # fmt: skip
    for own, logits, ids, loss in zip(
        batch.sequences, model.logits(whole), after, losses, strict=True
    ):
        chances = torch.log_softmax(torch.from_numpy(logits).double(), dim=1).numpy()
        places = np.arange(len(own) - 1, len(own) - 1 + len(ids))
        np.testing.assert_allclose(loss, -chances[places, ids], rtol=CLOSE, atol=CLOSE)
    for sequence, written in zip(batch.sequences, model.generate(batch, 4), strict=True):
        here = sequence
        for token in written:
            alone = MergedBatch((here,), batch.merged, batch.n_own, batch.n_merges)
            assert int(model.logits(alone)[0][-1].argmax()) == token
            here = np.append(here, token)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_merged_token_of_a_known_row_is_that_token(causal, family: str) -> None:
    """Its row passes through the scale that the model gives its own."""
    model = causal(family)
    ids = model.encode([TEXTS[0]])[0]
    table = model.model.model.get_input_embeddings().weight.detach().float().numpy()
    rows = MergedRows("row of 7", lambda merged: np.stack([table[7] for _ in merged]), 32)
    batch = MergedBatch.of_spans([ids], [[(2, 5)]], model.model.n_rows)
    plain = [*ids[:2], 7, *ids[5:]]
    np.testing.assert_allclose(
        model.with_rows(rows).logits(batch)[0], model.model.logits(plain), rtol=CLOSE, atol=CLOSE
    )


# -- encoders ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    folder = tmp_path_factory.mktemp("encoder")
    roles = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "mask_token": "<mask>"}
    return load_vocabulary(
        save_tokenizer(byte_level_bpe(330, ("<s>", "<pad>", "</s>", "<mask>")), folder, **roles)
    )


@pytest.fixture(scope="module")
def encoder(encoder_vocabulary: Vocabulary) -> Callable[[str], DynamicModel]:
    made: dict[str, DynamicModel] = {}

    def get(name: str) -> DynamicModel:
        import transformers

        if name not in made:
            torch.manual_seed(3)
            found: Any = getattr(transformers, name)
            config = found.config_class(
                vocab_size=330, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=200, pad_token_id=1,
            )  # fmt: skip
            model = (HeadlessModel if name == "BertModel" else MaskedModel)(found(config))
            made[name] = DynamicModel(model, encoder_vocabulary, mean_rows(model))
        return made[name]

    return get


ENCODERS = ["BertForMaskedLM", "RobertaForMaskedLM", "ModernBertForMaskedLM", "BertModel"]


@pytest.mark.parametrize("name", ENCODERS)
def test_laws_hold_for_encoders(encoder, name: str) -> None:
    model = encoder(name)
    zero = model.merge([TEXTS[0]], merges=0)
    ids = zero.sequences[0].tolist()
    assert ids[0] == 0
    assert ids[-1] == 2
    if name == "BertModel":
        assert np.array_equal(model.states(zero)[0], model.model.logits(ids))
    else:
        assert np.array_equal(model.logits(zero)[0], model.model.logits(ids))
        assert np.array_equal(model.states(zero)[0], model.model.all_states([ids], 2))
    batch = model.merge(TEXTS, least_count=1)
    assert batch.saving > 0.2
    assert batch.unmerged() == model.encode(TEXTS)
    together = model.states(batch)
    for i, sequence in enumerate(batch.sequences):
        alone = MergedBatch((sequence,), batch.merged, batch.n_own, batch.n_merges)
        np.testing.assert_allclose(model.states(alone)[0], together[i], rtol=CLOSE, atol=CLOSE)


def test_what_a_model_cannot_do_is_refused(causal, encoder, checkpoints) -> None:
    bert, llama = encoder("BertForMaskedLM"), causal("llama")
    with pytest.raises(EvaluationError, match="a masked model continues nothing"):
        bert.prefill(bert.merge(TEXTS))
    with pytest.raises(SettingError, match="is not told positions"):
        DynamicModel(bert.model, bert.vocabulary, bert.rows, positions="spread")
    with pytest.raises(UnknownNameError, match="no positions 'loose'"):
        causal("llama", "loose")
    with pytest.raises(UnknownNameError, match="no policy 'luck'"):
        llama.merge(TEXTS, policy="luck")
    with pytest.raises(EvaluationError, match="the last token of a sequence was merged"):
        llama.generate(llama.merge(["the calendar"], least_count=1, keep_last=0), 1)
    with pytest.raises(EvaluationError, match="at least one token"):
        llama.logits(llama.merge([[]]))
    with pytest.raises(EvaluationError, match="needs 300 positions and the model has 256"):
        llama.logits(llama.merge([[5] * 300], merges=0))
    batch = llama.merge(TEXTS)
    other = MergedBatch(batch.sequences, batch.merged, 299, batch.n_merges)
    with pytest.raises(EvaluationError, match="a model of 299 rows and this one has 330"):
        llama.logits(other)


# -- rows ----------------------------------------------------------------------------------------

SHIPPED = Path(__file__).parents[2] / "tokensurgeon" / "data" / "source"


@pytest.fixture(scope="module")
def context() -> Any:
    return context_of(Checkpoint.open(SHIPPED), load_vocabulary(SHIPPED))


MERGED = [(300, 301), (300, 302, 303), (400, 401)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("subword-mean", lambda rows, pieces: rows[list(pieces)].mean(axis=0)),
        ("subword-last", lambda rows, pieces: rows[pieces[-1]]),
        ("subword-ends", lambda rows, pieces: rows[pieces[-1]]),
    ],
)
def test_rows_are_those_of_the_input_side(context, name: str, expected) -> None:
    made = merged_rows(context, name)(MERGED)
    want = np.stack([expected(context.input_rows, pieces) for pieces in MERGED])
    np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-7)


def test_rows_that_are_kept_are_not_made_again_and_the_table_is_bounded(context) -> None:
    calls: list[int] = []

    def compose(merged: Sequence[Sequence[int]]) -> np.ndarray:
        calls.append(len(merged))
        return context.input_rows[[pieces[0] for pieces in merged]]

    rows = MergedRows("first", compose, context.width, most=2)
    first = rows(MERGED[:2])
    assert np.array_equal(rows(MERGED[:2]), first)
    assert (calls, rows.n_made, rows.n_kept) == ([2], 2, 2)
    rows(MERGED[:1])  # used last, so it stays
    rows(MERGED[2:])
    assert len(rows) == 2
    rows(MERGED[:1])
    assert calls == [2, 1]
    rows(MERGED[1:2])
    assert calls == [2, 1, 1]
    assert np.array_equal(rows([*MERGED, *MERGED]), rows(MERGED)[[0, 1, 2, 0, 1, 2]])
    rows.forget()
    assert len(rows) == 0


def test_learned_rows_depend_on_the_pieces_alone(context) -> None:
    """Other tokens in the batch change nothing."""
    rows = merged_rows(context, "ridge-composer", {"cuts": 0})
    together = rows(MERGED)
    rows.forget()
    np.testing.assert_allclose(rows(MERGED[1:2])[0], together[1], rtol=1e-4, atol=1e-5)
    mean = merged_rows(context)(MERGED)
    assert np.abs(together - mean).max() > 1e-3


def test_a_trained_network_makes_the_rows_that_it_makes_in_a_surgery(
    checkpoints: Callable[..., Path], world: Path, tmp_path: Path
) -> None:
    small = context_of(Checkpoint.open(checkpoints("llama")), load_vocabulary(world / "source"))
    file = tmp_path / "network.safetensors"
    StagedFit(small, 0.0, size=8, steps=(3, 0), parts=(2,)).run().save(file)
    pieces = ((270, 271), (280, 281, 282))
    made = merged_rows(small, "hypernetwork", {"network": str(file)})(pieces)
    asked = replace(small, missing=np.arange(2), pieces=pieces)
    answer = build("hypernetwork", {"network": str(file)})(asked).input
    assert answer is not None
    np.testing.assert_allclose(made, answer.values(small.input_rows), rtol=1e-5, atol=1e-6)


def test_methods_that_need_more_than_pieces_are_refused(context) -> None:
    for name in ("bil", "anchors"):
        with pytest.raises(InitialiserError, match="use 'subword-mean'"):
            merged_rows(context, name)(MERGED)
    with pytest.raises(UnknownNameError):
        merged_rows(context, "no-such-method")
    with pytest.raises(SettingError, match="hypernetwork needs a file"):
        merged_rows(context, "hypernetwork")
    with pytest.raises(SettingError, match="rows kept must be 1 or more"):
        merged_rows(context, most=0)
    broken = MergedRows("broken", lambda merged: np.full((len(merged), 4), np.nan), 4)
    with pytest.raises(InitialiserError, match="not finite"):
        broken(MERGED)
