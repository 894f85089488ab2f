"""Laws of the source as teacher: what it implies of the target, and what learns from it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.calibration.conftest import TEXTS, pair_of, same_of
from tests.world import SENTENCES, byte_level_bpe, make_model, make_tokenizer
from tokensurgeon.calibration import CalibrationData, Matrices, Stage
from tokensurgeon.calibration.byte_positions import BytePositions, positions_of
from tokensurgeon.calibration.stages.distil import Distil
from tokensurgeon.calibration.stages.follows import Follows
from tokensurgeon.calibration.stages.marginal import Marginal, follows_of
from tokensurgeon.calibration.stages.quiet import Quiet
from tokensurgeon.calibration.stages.refit import Refit
from tokensurgeon.calibration.stages.regression import Regression
from tokensurgeon.calibration.teacher.cells import SampledRows, cell_gradients
from tokensurgeon.calibration.teacher.implied import Implied, ImpliedTokens
from tokensurgeon.calibration.teacher.lessons import Teacher, batches
from tokensurgeon.calibration.training.distillation import CALM, distil
from tokensurgeon.calibration.training.teaching import Taught
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.body_update import changeable_weights
from tokensurgeon.evaluation.breakdown import token_kind
from tokensurgeon.progress import Clock
from tokensurgeon.text.chunks import Chunk, chunk_documents
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Kind, Vocabulary, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.spellings import Spellings

SURE = 0.3
"""Noise in every parameter: 64 of a model's tokens then hold nearly three quarters of the mass."""
EVERYTHING = 10_000
"""More cells and branches than any of these vocabularies has tokens."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tokenizer(tmp_path_factory.mktemp("sure"), 320)
    return make_model(folder, n_rows=320, width=32, noise=SURE, seed=1)


@pytest.fixture(scope="module")
def same(source: Path) -> CalibrationData:
    return same_of(source)


@pytest.fixture(scope="module")
def pair(source: Path, tiny_donor: Path, text_file: Path) -> tuple[CalibrationData, Matrices]:
    return pair_of(source, tiny_donor, text_file)


def letters(*merges: str) -> Vocabulary:
    """Return a byte-level BPE of `<s>`, the letters a to d and merges of two tokens, in order."""
    tokens = ["<s>", *"abcd", *(merge.replace(" ", "") for merge in merges)]
    pairs = [(merge.split()[0], merge.split()[1]) for merge in merges]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, pairs)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    return vocabulary_from_tokenizer(tokenizer, {"bos_token": "<s>"})


def trained(size: int) -> Vocabulary:
    tokenizer = byte_level_bpe(size, ["<s>"])
    return vocabulary_from_tokenizer(tokenizer, {"bos_token": "<s>"})


def positions(vocabulary: Vocabulary, texts: Sequence[str]) -> BytePositions:
    chunks = chunk_documents(texts, max_bytes_per_chunk=256)
    return positions_of(encode_chunks(vocabulary, chunks), chunks)


def ordinary(vocabulary: Vocabulary) -> np.ndarray:
    return np.array([bool(data) for data in vocabulary.token_bytes])


def distributions(vocabulary: Vocabulary, n: int, seed: int = 0) -> torch.Tensor:
    """Return random log-probabilities, none of them a control's."""
    logits = 2 * np.random.default_rng(seed).normal(size=(n, vocabulary.n_rows))
    logits[:, ~ordinary(vocabulary)] = -np.inf
    return torch.from_numpy(logits.astype(np.float32)).log_softmax(1)


def imply(
    source: Vocabulary, target: Vocabulary, texts: Sequence[str], log_probs: torch.Tensor
) -> tuple[Implied, BytePositions, BytePositions]:
    implied = ImpliedTokens(Spellings(source, target), EVERYTHING, 0.0, EVERYTHING)
    one, other = positions(source, texts), positions(target, texts)
    return implied.of(one, other, log_probs), one, other


def whole(implied: Implied, row: int, n_rows: int) -> dict[tuple[str, int], float]:
    """Return the cells that have mass, by their kind and token."""
    found = {}
    for cell, mass in zip(implied.ids[row].tolist(), implied.masses[row].tolist(), strict=True):
        if cell >= 0 and mass > 0:
            key = ("token", cell - n_rows) if cell >= n_rows else ("group", cell)
            assert key not in found
            found[key] = mass
    return found


def test_a_finer_target_has_the_mass_of_all_tokens_that_go_on_so() -> None:
    source, target = trained(330), trained(257)
    text = SENTENCES[:3]
    log_probs = distributions(source, positions(source, text).n_states)
    implied, one, other = imply(source, target, text, log_probs)
    borders = dict(zip(one.boundaries.tolist(), one.boundary_states.tolist(), strict=True))
    p = log_probs.double().exp().numpy()
    spelt = [data or b"" for data in source.token_bytes]
    read = b"\n".join(
        chunk.text.encode() for chunk in chunk_documents(text, max_bytes_per_chunk=256)
    )
    n_inside = 0
    assert len(implied.positions) == len(other.ids)
    for row, position in enumerate(implied.positions.tolist()):
        start = int(other.starts[position])
        border = max(offset for offset in borders if offset <= start)
        begun = read[border:start]
        n_inside += start > border
        q = np.zeros(target.n_rows)
        for token, data in enumerate(spelt):
            if len(data) > len(begun) and data.startswith(begun):
                (following,) = target.pieces_of(data[len(begun) : len(begun) + 1])
                q[following] += p[borders[border], token]
        found = np.zeros(target.n_rows)
        for (_, token), mass in whole(implied, row, target.n_rows).items():
            found[token] = mass
        np.testing.assert_allclose(found, q / q.sum(), atol=1e-5)
    assert n_inside > 50


def test_the_source_s_own_tokens_have_its_own_distribution() -> None:
    vocabulary = trained(330)
    log_probs = distributions(vocabulary, positions(vocabulary, SENTENCES[:2]).n_states)
    implied, one, _ = imply(vocabulary, vocabulary, SENTENCES[:2], log_probs)
    assert np.array_equal(implied.positions, np.arange(len(one.ids)))
    found = np.zeros((len(one.ids), vocabulary.n_rows), np.float32)
    row, cell = np.nonzero(implied.ids >= 0)
    found[row, implied.ids[row, cell] % vocabulary.n_rows] = implied.masses[row, cell]
    np.testing.assert_allclose(found, log_probs[one.before].exp().numpy(), atol=1e-6)


ALPHABET = "abcd"


def chain(seed: int = 0) -> np.ndarray:
    """Return a Markov table over the letters: after a letter, or at the start, the next one's p."""
    return np.random.default_rng(seed).dirichlet(np.ones(4), size=5)


def first_tokens(target: Vocabulary, before: int, table: np.ndarray) -> dict[int, float]:
    """Return how likely each target token is next, over all runs of five letters."""
    found: dict[int, float] = {}
    for run in itertools.product(range(4), repeat=5):
        p = np.prod([table[a, b] for a, b in zip((before, *run), run, strict=False)])
        (token, *_) = target.pieces_of("".join(ALPHABET[i] for i in run).encode())
        found[token] = found.get(token, 0.0) + float(p)
    return found


def test_longer_tokens_have_the_product_along_the_chain() -> None:
    source, target = letters(), letters("a b", "ab c", "c d")
    table = chain()
    texts = ["abcabdacdbabcdaabbcdcab"]
    one = positions(source, texts)
    last = [4, *[ALPHABET.index(chr(97 + token - 1)) for token in one.sequences[0][1:]]]
    log_probs = torch.full((one.n_states, source.n_rows), -torch.inf)
    log_probs[:, 1:] = torch.from_numpy(np.log(table[last])).float()
    implied, _, other = imply(source, target, texts, log_probs)
    assert np.array_equal(implied.positions, np.arange(len(other.ids)))
    ids = {data.decode(): i for i, data in enumerate(target.token_bytes) if data}
    seen = set()
    for row, start in enumerate(other.starts.tolist()):
        true = first_tokens(target, last[start], table)
        found = whole(implied, int(row), target.n_rows)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        ahead = texts[0][start:]
        own = {token for kind, token in found if kind == "token"}
        for (kind, token), mass in found.items():
            # A token that the text does not go on with is told apart one link ahead at most.
            covered = {token}
            if kind == "group":
                group = {"a": ("a", "ab", "abc"), "c": ("c", "cd")}.get(ALPHABET[token - 1], ())
                covered |= {ids[name] for name in group} - own
                covered -= {ids["abc"]} if ids["ab"] in own else set()
            elif token == ids["ab"] and ids["abc"] not in own:
                covered |= {ids["abc"]}
            wanted = sum(true[one] for one in covered)
            assert mass == pytest.approx(wanted, abs=1e-5), (ahead, kind, token)
        if ahead.startswith("ab") and len(ahead) > 2:
            assert {ids["ab"], ids["abc"]} <= own
            seen.add(ahead[:3])
        if ahead.startswith("c") and len(ahead) > 1:
            assert ids["cd"] in own
    assert {"abc", "abd"} <= seen


def test_a_token_across_borders_is_conditioned_on_the_source_s_chain() -> None:
    source, target = letters("b c", "b d"), letters("a b")
    texts = ["abcabd"]
    one = positions(source, texts)
    log_probs = distributions(source, one.n_states, seed=3)
    implied, _, other = imply(source, target, texts, log_probs)
    ids = {data.decode(): i for i, data in enumerate(target.token_bytes) if data}
    of = {data.decode(): i for i, data in enumerate(source.token_bytes) if data}
    assert [target.token_bytes[token] for token in other.ids] == [b"ab", b"c", b"ab", b"d"]
    for position, number in ((1, 0), (3, 2)):
        assert other.starts[position] not in one.boundaries
        p = log_probs[one.after[number]].exp()
        both = float(p[of["bc"]] + p[of["bd"]])
        (row,) = np.flatnonzero(implied.positions == position)
        found = whole(implied, int(row), target.n_rows)
        wanted = {("token", ids[x]): float(p[of[f"b{x}"]]) / both for x in "cd"}
        assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("sizes", [(300, 400), (400, 300), (257, 400)])
def test_masses_are_no_more_than_one(sizes: tuple[int, int]) -> None:
    source, target = map(trained, sizes)
    log_probs = distributions(source, positions(source, SENTENCES).n_states, seed=1)
    for settings in ((EVERYTHING, 0.0, EVERYTHING), ()):
        implied = ImpliedTokens(Spellings(source, target), *settings)
        found = implied.of(positions(source, SENTENCES), positions(target, SENTENCES), log_probs)
        assert (found.masses >= 0).all()
        total = found.masses.sum(1, dtype=np.float64)
        assert total.max() < 1 + 1e-4
        assert (np.diff(found.positions) > 0).all()
        if settings:  # nothing is left out
            np.testing.assert_allclose(total, 1, atol=1e-4)
        else:
            assert total.min() < 0.99


def test_nothing_is_said_before_the_first_token_of_a_chunk_without_a_prefix() -> None:
    source, target = (vocabulary_from_tokenizer(byte_level_bpe(size), {}) for size in (320, 300))
    assert source.start_id is target.start_id is None
    texts = SENTENCES[:3]
    log_probs = distributions(source, positions(source, texts).n_states)
    implied, one, other = imply(source, target, texts, log_probs)
    firsts = np.flatnonzero(other.before < 0)
    assert len(firsts) == len(one.sequences)
    assert not np.isin(firsts, implied.positions).any()
    # Inside the first source token nothing is known either, and everything is after it.
    after = one.ends[one.before < 0]
    start = other.starts - np.repeat(other.starts[firsts], np.diff([*firsts, len(other.ids)]))
    length = np.repeat(after - other.starts[firsts], np.diff([*firsts, len(other.ids)]))
    assert np.array_equal(implied.positions, np.flatnonzero(start >= length))


# --- the divergence and its gradients ---

GROUP = np.array([0, 1, 2, 3, 1, 1, 2, 7, 8, 9, 10, 11])
"""Of twelve rows: 4 and 5 count for 1, and 6 for 2."""
CELLS = np.array(
    [
        [1, 12 + 4, 3, 12 + 7, -1],  # a group, one of its own tokens apart, and two tokens
        [2, 1, -1, -1, -1],
        [12 + 0, 12 + 5, 12 + 2, -1, -1],  # tokens of groups that have no cell themselves
        [10, 12 + 1, 0, 1, 12 + 6],  # the leading token apart from its group
    ]
)
MASSES = np.array(
    [
        [0.3, 0.2, 0.1, 0.2, 0.0],
        [0.5, 0.4, 0.0, 0.0, 0.0],
        [0.2, 0.3, 0.4, 0.0, 0.0],
        [0.1, 0.3, 0.2, 0.3, 0.1],
    ],
    dtype=np.float32,
)


def written_out(logits: torch.Tensor) -> torch.Tensor:
    """Return the divergence of `MASSES` from the cells of a softmax, cell by cell."""
    loss = logits.new_zeros(())
    n_rows = len(GROUP)
    for cells, masses, p in zip(CELLS, MASSES, logits.softmax(1), strict=True):
        own = [int(cell) - n_rows for cell in cells if cell >= n_rows]
        left, rest = 1.0, set(range(n_rows))
        for cell, mass in zip(cells.tolist(), masses.tolist(), strict=True):
            if cell < 0:
                continue
            members = [cell - n_rows]
            if cell < n_rows:
                members = [i for i in np.flatnonzero(cell == GROUP).tolist() if i not in own]
            held = p[members].sum()
            left -= mass
            rest -= set(members)
            if mass > 0:
                loss = loss + mass * torch.log(mass / held)
        if left > 1e-6:
            loss = loss + left * torch.log(left / p[sorted(rest)].sum())
    return loss


def everything(seed: int = 0) -> SampledRows:
    implied = Implied(np.arange(len(CELLS)), CELLS, MASSES)
    nothing = np.zeros(0, dtype=np.int64)
    generator = np.random.default_rng(seed)
    return SampledRows.draw(implied, nothing, nothing, GROUP, len(GROUP), generator)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_are_those_of_the_divergence(
    with_bias: bool, scale: float, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 6, generator=generator, requires_grad=True)
    rows = torch.randn(12, 6, generator=generator, requires_grad=True)
    bias = torch.randn(12, generator=generator, requires_grad=True)
    logits = states @ rows.T + (bias if with_bias else 0)
    logits = logits * scale if softcap is None else softcap * torch.tanh(logits * scale / softcap)
    loss = written_out(logits)
    loss.backward()
    sampled = everything()
    assert sorted(sampled.ids.tolist()) == list(range(12))
    assert not sampled.log_weights.any()
    given = rows.detach()[sampled.ids]
    of_bias = bias.detach()[sampled.ids] if with_bias else None
    found = cell_gradients(
        states.detach(), given, sampled, CELLS, MASSES, bias=of_bias, scale=scale, softcap=softcap
    )
    assert found.loss == pytest.approx(float(loss.detach()), abs=1e-4)
    torch.testing.assert_close(found.states, states.grad, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.rows, rows.grad[sampled.ids], atol=1e-5, rtol=1e-3)
    if with_bias:
        torch.testing.assert_close(found.bias, bias.grad[sampled.ids], atol=1e-5, rtol=1e-3)
    assert torch.equal(given, rows.detach()[sampled.ids])


def test_sampled_rows_count_for_those_that_were_not_drawn() -> None:
    n, width = 400, 8
    generator = np.random.default_rng(0)
    states = torch.from_numpy(generator.normal(size=(3, width)).astype(np.float32))
    rows = torch.from_numpy(generator.normal(size=(n, width)).astype(np.float32)) * 0.3
    implied = Implied(np.arange(3), np.array([[5], [n + 9], [7]]), np.full((3, 1), 0.5, np.float32))
    group, nothing = np.arange(n), np.zeros(0, dtype=np.int64)

    def gradients(n_others: int) -> tuple[torch.Tensor, torch.Tensor]:
        sampled = SampledRows.draw(implied, nothing, nothing, group, n_others, generator)
        found = cell_gradients(states, rows[sampled.ids], sampled, implied.ids, implied.masses)
        of_all = torch.zeros(n, width)
        of_all[sampled.ids] = found.rows
        return found.states, of_all

    exact = gradients(n)
    drawn = [gradients(n // 2) for _ in range(400)]
    for true, tries in zip(exact, zip(*drawn, strict=True), strict=True):
        mean = torch.stack(tries).mean(0)
        assert (mean - true).norm() < 0.1 * true.norm()
        assert (tries[0] - true).norm() > (mean - true).norm()


# --- the stages ---


def tied_pair(pair: tuple[CalibrationData, Matrices]) -> tuple[CalibrationData, Matrices]:
    data, rows = pair
    return dataclasses.replace(data), Matrices(rows.output, rows.output)


def mass_of_new(data: CalibrationData, rows: Matrices) -> tuple[float, float]:
    """Return the mean mass of new rows at a patched model's own states, and their share."""
    states, after = data.next_tokens(rows)
    p = data.head(rows).log_softmax(states).exp()
    return float(p[:, data.new].sum(1).mean()), float(np.isin(after, data.new).mean())


@pytest.mark.parametrize("tied", [False, True])
def test_quiet_gives_new_rows_the_share_that_new_tokens_have(
    pair: tuple[CalibrationData, Matrices], tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokensurgeon.calibration.stages import quiet

    monkeypatch.setattr(quiet, "MOST_STATES", 1_000_000)  # so that the share is that of all text
    data, rows = tied_pair(pair) if tied else pair
    mass, share = mass_of_new(data, rows)
    assert abs(mass - share) > 0.1
    candidates = list(Quiet().propose(data, rows))
    found = candidates[0].matrices
    assert found.tied == tied
    assert mass_of_new(data, found)[0] == pytest.approx(share, rel=0.05)
    assert np.array_equal(found.output[data.shared], rows.output[data.shared])
    if not tied:
        assert found.input is rows.input
    half = candidates[1].matrices.output[data.new] - rows.output[data.new]
    full = found.output[data.new] - rows.output[data.new]
    np.testing.assert_allclose(2 * half, full, atol=1e-5)


def test_nothing_is_quietened_where_nothing_is_new(same: CalibrationData, own: Matrices) -> None:
    assert list(Quiet().propose(same, own)) == []


def divergence(data: CalibrationData, rows: Matrices, chunks: tuple[Chunk, ...]) -> float:
    """Return nats a position from what the source implies on chunks, all rows scored."""
    implied = Teacher(data.model, data.spellings).read(chunks)
    where = data.positions(chunks)
    nothing = np.zeros(0, dtype=np.int64)
    sampled = SampledRows.draw(
        implied, nothing, nothing, data.spellings.group, EVERYTHING, np.random.default_rng(0)
    )
    head = data.head(rows)
    found = cell_gradients(
        torch.from_numpy(data.final_states(rows, chunks)[where.before[implied.positions]]),
        torch.from_numpy(rows.output)[sampled.ids],
        sampled,
        implied.ids,
        implied.masses,
        scale=head.scale,
        softcap=head.softcap,
    )
    return found.loss / len(implied.positions)


def last(data: CalibrationData, rows: Matrices) -> Matrices:
    *_, candidate = Marginal().propose(data, rows)
    return candidate.matrices


def test_marginal_comes_nearer_to_what_the_source_implies(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    held_out = data.texts.selection
    found = last(data, rows)
    assert divergence(data, found, held_out) < 0.8 * divergence(data, rows, held_out)
    assert found.input is rows.input
    others = np.setdiff1d(np.arange(len(rows.output)), data.new_and_shared)
    assert np.array_equal(found.output[others], rows.output[others])


def test_marginal_leaves_the_source_where_it_is(same: CalibrationData, own: Matrices) -> None:
    text = same.context.target.kinds[same.shared] == Kind.ORDINARY
    data = dataclasses.replace(same, shared=same.shared[text])
    # All of its distribution: 64 of the random model's tokens would have little of the mass.
    implied = ImpliedTokens(data.spellings, EVERYTHING)
    positions = data.target_positions
    log_probs = data.head(own).log_softmax(data.final_states(own, data.texts.fit))
    data.implied = implied.of(data.source_positions, positions, log_probs)
    found = last(data, own)
    held_out = data.texts.selection
    assert divergence(data, found, held_out) <= divergence(data, own, held_out) + 1e-4
    moved = np.linalg.norm(found.output - own.output, axis=1) / np.linalg.norm(own.output, axis=1)
    assert moved.max() < 0.01


def test_what_follows_states_sums_to_one(pair: tuple[CalibrationData, Matrices]) -> None:
    data, _ = pair
    follows = follows_of(data.implied, data.target_positions.before, data.spellings)
    total = np.bincount(follows.states, follows.weights)
    np.testing.assert_allclose(total[total > 0], 1, atol=1e-4)
    assert np.isin(data.target_positions.before[data.implied.positions], follows.states).all()
    assert (np.diff(follows.states) >= 0).all()


def test_a_regression_over_all_rows_is_one_over_rows_that_take_part(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    states, after = data.next_tokens(rows)
    n_rows, follows = len(rows.output), Follows.of_text(after)

    def rounds(active: np.ndarray | None) -> list[Matrices]:
        regression = Regression(
            data.head(rows),
            rows,
            states,
            follows if active is None else follows.among(active),
            data.new_and_shared,
            active,
        )
        return [regression.advance(ridge) for ridge in (256.0, 64.0, 16.0)]

    for plain, named in zip(rounds(None), rounds(np.arange(n_rows)), strict=True):
        np.testing.assert_allclose(named.output, plain.output, atol=1e-4)
    active = np.unique(after)
    others = np.setdiff1d(np.arange(n_rows), active)
    assert len(others) > 20
    *_, found = rounds(active)
    assert np.array_equal(found.output[others], rows.output[others])
    assert (found.output[active] != rows.output[active]).any()
    # The rows that stay take their share of the mass: with few moving rows the loss falls too.
    before, then = (
        -float(data.head(m).log_softmax(states)[range(len(after)), after].mean())
        for m in (rows, found)
    )
    assert then < before


# --- training ---


def taught(
    data: CalibrationData,
    rows: Matrices,
    *,
    ids: np.ndarray | None = None,
    max_tokens: int | None = 1500,
    seconds: float = float("inf"),
    **settings: object,
) -> Taught:
    teacher = Teacher(data.model, data.spellings)
    chunks = [chunk for text in TEXTS for chunk in chunk_documents([text], max_bytes_per_chunk=96)]
    ids = data.new_and_shared if ids is None else ids
    seed = settings.get("seed", 0)
    assert isinstance(seed, int)
    return distil(
        data.model,
        teacher,
        batches(data.spellings, chunks, size=2, seed=seed),
        rows,
        ids,
        clock=Clock(seconds),
        max_tokens=max_tokens,
        **settings,  # type: ignore[arg-type]
    )


def test_the_same_seed_gives_the_same_rows_and_the_loss_falls(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    start = rows.input.copy(), rows.output.copy()
    one, again, other = (taught(data, rows, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.matrices.input, again.matrices.input)
    assert np.array_equal(one.matrices.output, again.matrices.output)
    assert one.losses == again.losses
    assert not np.array_equal(one.matrices.output, other.matrices.output)
    assert one.n_steps == len(one.losses) > 8
    assert 1500 <= one.n_tokens < 2500
    assert np.mean(one.losses[-3:]) < np.mean(one.losses[:3])
    held_out = data.texts.selection
    assert divergence(data, one.matrices, held_out) < divergence(data, rows, held_out)
    assert np.array_equal(rows.input, start[0])
    assert np.array_equal(rows.output, start[1])


def test_rows_that_may_not_change_stay_bit_for_bit(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = pair
    ids = data.new[::2]
    found = taught(data, rows, ids=ids).matrices
    others = np.setdiff1d(np.arange(len(rows.output)), ids)
    for after, before in ((found.input, rows.input), (found.output, rows.output)):
        assert np.array_equal(after[others], before[others])
        assert (after[ids] != before[ids]).any()


def test_rows_that_are_right_as_they_are_move_at_a_lower_rate(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    alike, calm = (taught(data, rows, calm=c, max_tokens=1) for c in (None, data.shared))
    assert alike.n_steps == calm.n_steps == 1
    for side in ("input", "output"):
        start = getattr(rows, side)
        far, near = (getattr(done.matrices, side) - start for done in (alike, calm))
        assert np.abs(far[data.shared]).max() > 0
        np.testing.assert_allclose(near[data.shared], CALM * far[data.shared], atol=1e-6)
        np.testing.assert_array_equal(near[data.new], far[data.new])


def test_tied_rows_are_taught_as_one_array(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = tied_pair(pair)
    found = taught(data, rows)
    assert found.matrices.tied
    held_out = data.texts.selection
    assert divergence(data, found.matrices, held_out) < divergence(data, rows, held_out)
    assert rows.tied


@pytest.mark.parametrize("bound", [{"seconds": 0.0}, {"max_tokens": 0}])
def test_no_time_gives_no_step(
    pair: tuple[CalibrationData, Matrices], bound: dict[str, float]
) -> None:
    data, rows = pair
    found = taught(data, rows, **bound)  # type: ignore[arg-type]
    assert (found.n_steps, found.n_tokens, found.losses) == (0, 0, ())
    assert np.array_equal(found.matrices.output, rows.output)


@pytest.mark.parametrize("names", [True, False])
def test_the_body_is_taught_only_where_it_may_change(
    pair: tuple[CalibrationData, Matrices], source: Path, names: bool
) -> None:
    data, rows = pair
    allowed = frozenset(changeable_weights(Checkpoint.open(source))) if names else frozenset()
    data = dataclasses.replace(data, body_weights=allowed, forward_tokens=0, gradient_steps=0)
    before = {name: tensor.clone() for name, tensor in data.model.model.state_dict().items()}
    (candidate, *_) = Distil().propose(data, rows)
    found = candidate.matrices
    if names:
        assert found.body is not None
        assert 0 < len(found.body.factors) <= len(allowed)
        assert set(found.body.factors) <= allowed
        assert any(np.abs(a).max() > 0 for a, _ in found.body.factors.values())
        held_out = data.texts.selection
        assert divergence(data, found, held_out) < divergence(data, rows, held_out)
    else:
        assert found.body is None
    for name, tensor in data.model.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(tensor.requires_grad for tensor in data.model.model.parameters())
    assert rows.body is None
    assert data.gradient_steps == candidate.settings["steps"] > 0
    assert data.forward_tokens > candidate.settings["tokens"] > 0


@pytest.mark.parametrize(
    ("stage", "sides", "all_move"),
    [(Distil(), ("input", "output"), False), (Refit(), ("output",), True)],
)
def test_line_ends_and_punctuation_stay_in_distil_and_move_in_refit(
    pair: tuple[CalibrationData, Matrices], stage: Stage, sides: tuple[str, ...], all_move: bool
) -> None:
    data, rows = pair
    candidate = next(stage.propose(data, rows))
    spellings = data.context.target.token_bytes
    kinds = np.array([token_kind(spellings[i]) for i in data.shared.tolist()])
    still = np.isin(kinds, ["newlines", "punctuation"])
    for side in sides:
        changed = getattr(candidate.matrices, side) != getattr(rows, side)
        assert changed[data.shared[still]].any() == all_move
        assert changed[data.shared[~still]].any()
        assert changed[data.new].any()
    assert {"newlines", "punctuation"} <= set(kinds[still].tolist())


def test_distil_says_that_it_had_no_time(pair: tuple[CalibrationData, Matrices]) -> None:
    proposed = Distil(seconds=0.0).propose(*pair)
    with pytest.raises(StopIteration) as why:
        next(proposed)
    assert why.value.value == "no gain: no time, or no text, for a step"
