"""Training: rows are trained, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.world import SENTENCES
from tokensurgeon.calibration import CalibrationData, Matrices
from tokensurgeon.calibration.stages.train import Bounds, TrainToConvergence
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.calibration.training.loop import MOST_CUTS, Trained, train_rows
from tokensurgeon.calibration.training.steps import RowAdam
from tokensurgeon.errors import EvaluationError, UsageError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

TEXTS = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(10)]
Heal = Callable[..., Trained]


@pytest.fixture(scope="module")
def model(tiny_source: Path) -> LanguageModel:
    return load_model(tiny_source)


@pytest.fixture(scope="module")
def vocabulary(tiny_source: Path) -> Vocabulary:
    return load_vocabulary(tiny_source)


@pytest.fixture(scope="module")
def heal(vocabulary: Vocabulary) -> Heal:
    """Train with all rows in the masks unless told otherwise, bounded by tokens."""

    def run(model: LanguageModel, texts: list[str] = TEXTS, **settings: object) -> Trained:
        every = np.ones(model.n_rows, dtype=bool)
        defaults = {
            "train_input": every,
            "train_output": every,
            "tied": False,
            "minutes": 60.0,
            "max_tokens": 3000,
            "max_passes": None,
            "tokens_per_step": 256,
            "learning_rate": 0.5,
        }
        return train_rows(model, vocabulary, texts, **(defaults | settings))  # type: ignore[arg-type]

    return run


def loss(model: LanguageModel, vocabulary: Vocabulary) -> float:
    return evaluate([Entry("model", model, vocabulary)], TEXTS).entries[0].bits_per_byte or 0.0


def rows_of(model: LanguageModel) -> tuple[np.ndarray, np.ndarray]:
    inner, outer = model.model.get_input_embeddings(), model.model.get_output_embeddings()
    return inner.weight.numpy().copy(), outer.weight.numpy().copy()


def test_the_loss_falls_and_the_given_model_stays(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal
) -> None:
    weights = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    before = loss(model, vocabulary)
    healed = heal(model)
    after = loss(model.patched(healed.matrices.input, healed.matrices.output), vocabulary)
    assert after < 0.85 * before
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert loss(model, vocabulary) == before


@pytest.mark.parametrize("tied", [False, True])
def test_rows_outside_the_masks_stay_bit_for_bit(
    model: LanguageModel, heal: Heal, tied: bool
) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, model.n_rows)) < 0.5
    before = rows_of(model)
    healed = heal(model, train_input=first, train_output=second, tied=tied)
    if tied:
        assert healed.matrices.input is healed.matrices.output
        np.testing.assert_array_equal(
            healed.matrices.input[~(first | second)], before[0][~(first | second)]
        )
        assert (healed.matrices.input != before[0]).any()
        return
    np.testing.assert_array_equal(healed.matrices.input[~first], before[0][~first])
    np.testing.assert_array_equal(healed.matrices.output[~second], before[1][~second])
    assert (healed.matrices.input[first] != before[0][first]).any()
    assert (healed.matrices.output[second] != before[1][second]).any(axis=1).all()


@pytest.mark.parametrize("side", ["train_input", "train_output"])
def test_a_side_can_be_left_out(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal, side: str
) -> None:
    nothing = np.zeros(model.n_rows, dtype=bool)
    healed = heal(model, **{side: nothing})
    kept, moved = (0, 1) if side == "train_input" else (1, 0)
    rows = (healed.matrices.input, healed.matrices.output)
    np.testing.assert_array_equal(rows[kept], rows_of(model)[kept])
    assert (rows[moved] != rows_of(model)[moved]).any()
    assert loss(model.patched(*rows), vocabulary) < loss(model, vocabulary)


def test_a_seed_gives_the_same_rows_again_and_another_seed_others(
    model: LanguageModel, heal: Heal
) -> None:
    one, same, other = heal(model), heal(model), heal(model, seed=1)
    np.testing.assert_array_equal(one.matrices.input, same.matrices.input)
    np.testing.assert_array_equal(one.matrices.output, same.matrices.output)
    assert (one.n_steps, one.n_tokens) == (same.n_steps, same.n_tokens)
    assert (one.matrices.output != other.matrices.output).any()


@pytest.mark.parametrize("bound", [{"minutes": 0.0}, {"max_tokens": 0}])
def test_no_time_and_no_tokens_give_the_rows_back(
    model: LanguageModel, heal: Heal, bound: dict[str, float]
) -> None:
    healed = heal(model, **bound)
    np.testing.assert_array_equal(healed.matrices.input, rows_of(model)[0])
    np.testing.assert_array_equal(healed.matrices.output, rows_of(model)[1])
    assert (healed.n_steps, healed.n_tokens, healed.history) == (0, 0, ())


def test_a_bound_of_tokens_is_kept_to_a_step(model: LanguageModel, heal: Heal) -> None:
    healed = heal(model, max_tokens=1000)
    assert 1000 <= healed.n_tokens < 1000 + 256
    assert healed.n_steps >= 1000 // 256


def test_a_bound_of_passes_is_kept_to_a_step(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal
) -> None:
    n = TrainingText.read(vocabulary, TEXTS, model.max_positions).n_tokens
    healed = heal(model, max_passes=1.5, max_tokens=100 * n)
    assert 1.5 * n - 1 <= healed.n_tokens < 1.5 * n + 256


def test_a_bound_of_time_ends_the_training(model: LanguageModel, heal: Heal) -> None:
    assert heal(model, minutes=1e-9, max_tokens=None).n_steps == 0


def test_the_best_rows_by_the_selection_are_kept(model: LanguageModel, heal: Heal) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def selection(one: LanguageModel) -> float:
        seen.append(rows_of(one))
        return {0: 3.0, 1: 1.0, 2: 0.5}.get(len(seen) - 1, 2.0)

    healed = heal(model, selection=selection)
    assert [value for _, value in healed.history[:4]] == [3.0, 1.0, 0.5, 2.0]
    np.testing.assert_array_equal(healed.matrices.input, seen[2][0])
    np.testing.assert_array_equal(healed.matrices.output, seen[2][1])
    assert len(healed.history) == 2 + 1 + MOST_CUTS + 1
    assert [n for n, _ in healed.history] == sorted({n for n, _ in healed.history})


def test_steps_get_smaller_where_rows_get_worse(model: LanguageModel, heal: Heal) -> None:
    seen: list[np.ndarray] = []

    def selection(one: LanguageModel) -> float:
        seen.append(rows_of(one)[1])
        return float(len(seen))

    healed = heal(model, selection=selection)
    moved = [float(np.abs(rows - seen[0]).mean()) for rows in seen[1:]]
    assert len(moved) == MOST_CUTS + 1
    assert all(later < 0.5 * before for before, later in pairwise(moved))
    np.testing.assert_array_equal(healed.matrices.input, rows_of(model)[0])
    assert healed.n_tokens < 3000


def test_the_selection_sees_the_rows_that_are_returned(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal
) -> None:
    healed = heal(model, selection=lambda one: loss(one, vocabulary))
    best = min(value for _, value in healed.history)
    assert loss(model.patched(healed.matrices.input, healed.matrices.output), vocabulary) == best
    assert best < healed.history[0][1]


def test_tied_rows_are_one_matrix_and_are_trained_as_one(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal
) -> None:
    start = rows_of(model)[0]
    before = loss(model.patched(start, start), vocabulary)
    healed = heal(model, tied=True)
    assert healed.matrices.input is healed.matrices.output
    assert loss(model.patched(healed.matrices.input, healed.matrices.output), vocabulary) < before


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["phi", "gemma2", "gpt_neox"])
def test_other_families_are_trained_as_they_are_run(
    vocabulary: Vocabulary, heal: Heal, family: str, tied: bool
) -> None:
    import transformers

    common = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 32,
              "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128,
              "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}  # fmt: skip
    config = {
        "phi": lambda: transformers.PhiConfig(**common),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**common),
        "gemma2": lambda: transformers.Gemma2Config(
            **common, num_key_value_heads=2, head_dim=16, final_logit_softcapping=3.0
        ),
    }[family]()
    torch.manual_seed(0)
    softcap = 3.0 if family == "gemma2" else None
    model = LanguageModel(transformers.AutoModelForCausalLM.from_config(config), softcap=softcap)
    healed = heal(model, tied=tied, max_tokens=2000)
    assert (healed.matrices.bias is not None) == (family == "phi")
    first = model.patched(rows_of(model)[0], rows_of(model)[0 if tied else 1], bias_of(model))
    last = model.patched(healed.matrices.input, healed.matrices.output, healed.matrices.bias)
    assert loss(last, vocabulary) < loss(first, vocabulary) - 0.05


def bias_of(model: LanguageModel) -> np.ndarray | None:
    bias = getattr(model.model.get_output_embeddings(), "bias", None)
    return None if bias is None else bias.numpy().copy()


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_is_more_than_a_product_is_trained_through_itself(
    tiny_source: Path, vocabulary: Vocabulary, heal: Heal, tied: bool
) -> None:
    # The scale is not told to the wrapper, so that logits are not what it thinks they are.
    plain = load_model(tiny_source)
    whole = LanguageModel(plain.model, logit_scale=0.5)
    assert not whole.plain_head
    ours = heal(plain, max_tokens=500, tied=tied)
    theirs = heal(whole, max_tokens=500, tied=tied)
    np.testing.assert_allclose(theirs.matrices.output, ours.matrices.output, atol=2e-4)
    np.testing.assert_allclose(theirs.matrices.input, ours.matrices.input, atol=2e-4)


def test_adam_moves_the_rows_it_is_told_and_by_the_rate_at_first() -> None:
    rows = torch.zeros(4, 3)
    adam = RowAdam(rows)
    gradient = torch.tensor([[1.0, -2.0, 0.0], [5.0, 0.1, -3.0]])
    adam.step(torch.tensor([2, 0]), gradient, 0.01)
    torch.testing.assert_close(rows[[2, 0]], -0.01 * gradient.sign())
    assert not rows[[1, 3]].any()
    before = rows.clone()
    adam.step(torch.tensor([0]), gradient[1:], 0.01)
    assert torch.equal(rows[2], before[2])


def test_even_steps_leave_a_row_that_has_next_to_no_gradient() -> None:
    gradient = torch.tensor([[1.0, -1.0, 1.0], [1e-4, -1e-4, 1e-4]])
    moved = {}
    for even in (False, True):
        rows = torch.zeros(2, 3)
        adam = RowAdam(rows, even=even)
        for _ in range(5):
            adam.step(torch.tensor([0, 1]), gradient, 0.01)
        moved[even] = rows.norm(dim=1)
    torch.testing.assert_close(moved[False][0], moved[False][1])
    assert moved[True][1] < 1e-3 * moved[True][0]
    assert moved[True][0] > 0.5 * moved[False][0]


def test_rows_that_no_text_shows_move_with_the_others(
    model: LanguageModel, vocabulary: Vocabulary, heal: Heal
) -> None:
    """What trained rows have in common is learnt once, and reaches the rare ones."""
    healed = heal(model)
    ids = TrainingText.read(vocabulary, TEXTS, None).sequences
    unseen = np.setdiff1d(np.arange(model.n_rows), np.concatenate(ids))
    assert unseen.size
    assert (healed.matrices.input[unseen] != rows_of(model)[0][unseen]).any(axis=1).all()


def test_a_pass_has_every_chunk_once_in_batches_within_their_bound(vocabulary: Vocabulary) -> None:
    text = TrainingText.read(vocabulary, [*TEXTS, "", "x"], 128)
    for seed in range(3):
        batches = list(text.batches(np.random.default_rng(seed), 300))
        assert sorted(i for batch in batches for i in batch) == list(range(len(text.sequences)))
        for batch in batches:
            ids, real = text.padded(batch)
            assert ids.size <= 300 or len(batch) == 1
            for row, i in enumerate(batch):
                np.testing.assert_array_equal(ids[row][real[row]], text.sequences[i])


def test_chunks_are_cut_to_the_model_s_positions(vocabulary: Vocabulary) -> None:
    text = TrainingText.read(vocabulary, TEXTS, 40)
    assert max(map(len, text.sequences)) <= 40
    spelled = "".join(chunk.text for chunk in text.chunks)
    assert len(spelled) > 0.9 * sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("falls", "rounds", "converged"),
    [
        ((0.0, 0.5, 0.001), 3, True),  # the first was too fast, the last brings next to nothing
        ((0.001, 0.5), 1, True),
        ((0.5, 0.0), 2, True),
        ((0.5, 0.5, 0.5), 3, False),
        ((0.0, 0.0), 2, True),
    ],
)
def test_a_training_goes_on_slower_until_a_round_brings_next_to_nothing(
    same: CalibrationData, own: Matrices, falls: Sequence[float], rounds: int, converged: bool
) -> None:
    left, bounds, bits = iter(falls), [], 5.0

    def train_round(data: CalibrationData, rows: Matrices, bound: Bounds) -> Trained:
        nonlocal bits
        bounds.append(bound)
        before, bits = bits, bits - next(left)
        return Trained(rows, 1, 10, 1.0, 1.0, ((0, before), (10, bits)))

    stage = TrainToConvergence(train_round, minutes=1.0)
    list(stage.propose(same, own))
    assert stage.training is not None
    assert stage.training.converged is converged
    assert [bound.slower for bound in bounds] == [1.0, 0.25, 0.0625][:rounds]


def test_what_cannot_be_trained_is_refused(model: LanguageModel, heal: Heal) -> None:
    with pytest.raises(UsageError, match="negative"):
        heal(model, minutes=-1.0)
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        heal(model, train_input=np.ones(3, dtype=bool))
    with pytest.raises(EvaluationError, match="no text"):
        heal(model, texts=["", ""])
