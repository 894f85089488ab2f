"""A model that is run: its states, losses and patched copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.world import CASES, N_ROWS
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.load import load_model

IDS = [[3, 40, 5, 9], [7, 80], [1, 2, 3, 95], [5]]


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_states_are_transformers_hidden_states_at_every_layer(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    model = load_model(model_of(family, tied))
    for layer in range(model.n_layers + 1):
        states = model.states(IDS, layer)
        for one, state in zip(IDS, states, strict=True):
            told = model.model(torch.tensor([one]), output_hidden_states=True)
            wanted = told.hidden_states[layer][0, -1].numpy()
            np.testing.assert_allclose(state, wanted, atol=1e-5)
    final = model.every_state(IDS[:1], model.n_layers)[0]
    np.testing.assert_allclose(final[-1], model.states(IDS[:1], model.n_layers)[0], atol=1e-5)


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_losses_are_those_of_the_logits(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    model = load_model(model_of(family, tied))
    for one, losses in zip(IDS, model.nll(IDS), strict=True):
        scores = torch.log_softmax(torch.tensor(model.logits(one)).double(), -1)
        wanted = [-float(scores[i, one[i + 1]]) for i in range(len(one) - 1)]
        assert losses.dtype == np.float64
        np.testing.assert_allclose(losses, wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "tied"), CASES)
def test_losses_are_those_after_the_states_that_are_shown(
    model_of: Callable[..., Path], family: str, tied: bool, dtype: str
) -> None:
    model = load_model(model_of(family, tied), dtype=dtype)
    shown: dict[int, np.ndarray] = {}
    for i, losses in enumerate(model.nll(IDS, shown.__setitem__)):
        if len(IDS[i]) < 2:
            assert i not in shown
            continue
        assert shown[i].dtype == np.float32
        after = model.nll_after(shown[i], np.array(IDS[i][1:]))
        np.testing.assert_allclose(after, losses, rtol=1e-6)
    assert shown
    assert model.nll_after(np.zeros((0, model.width), np.float32), np.zeros(0, int)).size == 0


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gptj"])
def test_rotary_models_see_distances_and_not_positions(
    model_of: Callable[..., Path], family: str
) -> None:
    model = load_model(model_of(family))
    shifted = model.states([[5, 6, 7]], 2, [[7, 8, 9]])
    np.testing.assert_allclose(shifted, model.states([[5, 6, 7]], 2), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_a_gap_in_positions_does_not_cut_the_sequence(
    model_of: Callable[..., Path], family: str
) -> None:
    model = load_model(model_of(family))
    gap = model.states([[5, 6, 7]], 2, [[0, 1, 6]])
    assert np.abs(gap - model.states([[7]], 2, [[6]])).max() > 1e-2


def test_a_batch_gives_what_its_members_give(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of())
    many = [[i, i + 1, i + 2] for i in range(2, 20)] + [[4, 5]]
    together = model.states(many, 1)
    alone = np.concatenate([model.states([one], 1) for one in many])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_permuted_rows_give_permuted_logits_and_leave_the_model_alone(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    folder = model_of(family, tied)
    model, checkpoint = load_model(folder), Checkpoint.open(folder)
    before = model.logits(IDS[0])
    moved = np.random.default_rng(0).permutation(N_ROWS)
    old = np.argsort(moved)
    bias = checkpoint.output_bias()
    patched = model.patched(
        checkpoint.input_rows()[old],
        checkpoint.output_rows()[old],
        None if bias is None else bias[old],
    )
    ids = [int(moved[i]) for i in IDS[0]]
    np.testing.assert_allclose(patched.logits(ids)[:, moved], before, atol=1e-5)
    np.testing.assert_array_equal(model.logits(IDS[0]), before)
    shared = {id(p) for p in model.model.parameters()} & {id(p) for p in patched.model.parameters()}
    assert len(shared) > len(list(model.model.parameters())) // 2


def test_what_the_model_lacks_is_refused_before_it_is_run(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of())
    with pytest.raises(EvaluationError, match="33 positions"):
        model.nll([[1] * 33])
    with pytest.raises(EvaluationError, match="40 positions"):
        model.states([[1, 2]], 1, [[0, 39]])
    with pytest.raises(EvaluationError, match=f"{N_ROWS} rows"):
        model.logits([N_ROWS])
    with pytest.raises(EvaluationError, match="layer 3"):
        model.states([[1]], 3)


def test_samples_are_seeded_and_stop(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of())
    first = model.generate([1, 2], 8, seed=4, starts=[[]] * 3)
    assert first == model.generate([1, 2], 8, seed=4, starts=[[]] * 3)
    assert first != model.generate([1, 2], 8, seed=5, starts=[[]] * 3)
    assert [len(one) for one in first] == [8, 8, 8]
    stop = first[0][2]
    stopped = model.generate([1, 2], 8, seed=4, starts=[[]] * 3, stop=[stop])[0]
    assert stopped == first[0][: first[0].index(stop) + 1]
    assert len(model.generate([1] * 30, 8, seed=0)[0]) == 2
    greedy = model.generate([1, 2], 1, seed=0, temperature=0)[0][0]
    assert greedy == int(model.logits([1, 2])[-1].argmax())
    begun = model.generate([1], 4, seed=0, starts=[[2], [3]], temperature=0)
    assert begun == [model.generate([1, i], 4, seed=0, temperature=0)[0] for i in (2, 3)]


def test_empty_sequences_have_no_losses(model_of: Callable[..., Path]) -> None:
    assert [len(one) for one in load_model(model_of()).nll([[], [4], [4, 5]])] == [0, 0, 1]
