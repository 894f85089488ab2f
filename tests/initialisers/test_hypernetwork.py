"""The hypernetwork: it starts as the ridge composer, finds planted rules, and goes on as it was."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers import build, check_initialiser
from tokensurgeon.initialisers.check import example_context
from tokensurgeon.initialisers.hypernetwork.composition import (
    arrays_of,
    composer_of,
    new_network,
    rows_of,
)
from tokensurgeon.initialisers.hypernetwork.network_file import Hypernet
from tokensurgeon.initialisers.hypernetwork.row_network import MOST_PIECES, pack
from tokensurgeon.initialisers.hypernetwork.staged_fit import StagedFit
from tokensurgeon.initialisers.hypernetwork.vocabulary_sampling import OneTarget, Sampler


def fit(context, rows: int = 0, **settings) -> StagedFit:
    return StagedFit(context, 0.0, size=32, steps=(rows, 0), **settings)


@pytest.mark.parametrize("tied", [False, True])
def test_without_training_it_is_the_ridge_composer(tied: bool):
    context = example_context(tied=tied)
    made, plain = build("hypernetwork", {"minutes": 0})(context), build("ridge-composer")(context)
    for one, other in ((made.input, plain.input), (made.output, plain.output)):
        assert one.dense == pytest.approx(other.dense, abs=1e-5)


def test_a_new_network_corrects_nothing():
    context = example_context()
    found = fit(context).run()
    started = dataclasses.replace(found, network=arrays_of(new_network(found, context)))
    for one, other in zip(rows_of(started, context), rows_of(found, context), strict=True):
        assert np.array_equal(one, other)


def test_a_planted_composition_is_found():
    """A linear rule, planted in the rows of the longer tokens, is found for tokens held out."""
    context = example_context()
    rng = np.random.default_rng(3)
    rows = rng.standard_normal(context.output_rows.shape).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((context.width, context.width)))[0].astype(np.float32)
    table = context.source.token_bytes
    short = [i for i in range(context.source.n_rows) if len(table[i] or b"") < 2]
    for token in range(context.source.n_rows):
        if len(table[token] or b"") > 1 and context.anchors[token]:
            pieces = context.source.pieces_of(
                table[token], forbid=set(range(len(table))) - {*short}
            )
            if pieces:
                rows[token] = rows[list(pieces)].mean(axis=0) @ turn
    planted = dataclasses.replace(context, input_rows=rows, output_rows=rows.copy())
    rungs = fit(planted, rows=150).run().card["rungs"]
    mean, ridge, network = (rung["held_out"] for rung in rungs)
    assert ridge < mean
    assert network < 0.9 * ridge


def test_it_keeps_the_contract():
    check_initialiser(build("hypernetwork", {"minutes": 0}))


def test_the_same_seed_gives_the_same_rows():
    context = example_context()
    first, again = (rows_of(fit(context, rows=6).run(), context) for _ in range(2))
    other = fit(dataclasses.replace(context, seed=1), rows=6).run()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(other.sides[0].linear.coefficients, 0)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("at", [3, 7])
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(tmp_path, at: int):
    context, path = example_context(), tmp_path / "net.partial"
    whole = fit(context, rows=24, card={"source": "a"}).run()

    def stop(done: int, total: int, what: str) -> None:
        if "on rows" in what and done == 1000 * at // 24:
            raise StoppedError

    broken = dataclasses.replace(context, progress=stop)
    with pytest.raises(StoppedError):
        fit(broken, rows=24, partial=path, card={"source": "a"}).run()
    assert path.is_file()
    with pytest.raises(InitialiserError, match="another training"):
        fit(context, rows=24, partial=path, card={"source": "b"}).run()
    resumed = fit(context, rows=24, partial=path, card={"source": "a"}).run()
    assert not path.exists()
    for one, other in zip(resumed.card["rungs"], whole.card["rungs"], strict=True):
        assert one["held_out"] == other["held_out"]
        assert one["steps"] == other["steps"]
    for one, other in zip(rows_of(resumed, context), rows_of(whole, context), strict=True):
        assert np.array_equal(one, other)


def test_a_file_holds_all_of_it(tmp_path):
    context = example_context()
    made = fit(context, rows=8).run()
    network = new_network(made, context)
    for head in network.heads:
        torch.nn.init.constant_(head.get_parameter("bias"), 0.25)
    made = dataclasses.replace(made, network=arrays_of(network))
    made.save(tmp_path / "net.safetensors")
    back, extra = Hypernet.load(tmp_path / "net.safetensors")
    assert not extra
    assert back.card == json.loads(json.dumps(made.card))
    for one, other in zip(rows_of(back, context), rows_of(made, context), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    rows = build("hypernetwork", {"network": str(tmp_path / "net.safetensors")})(context)
    assert rows.output.dense == pytest.approx(rows_of(made, context)[1], abs=1e-6)


def test_a_fine_tuned_variant_passes_and_another_source_does_not(tmp_path):
    context, path = example_context(), tmp_path / "net.safetensors"
    fit(context).run().save(path)
    use = build("hypernetwork", {"network": str(path)})
    rng = np.random.default_rng(99)
    noise = rng.standard_normal(context.input_rows.shape).astype(np.float32)
    tuned = dataclasses.replace(
        context, input_rows=context.input_rows + 0.2 * noise * context.input_rows.std()
    )
    assert not np.array_equal(use(tuned).input.dense, use(context).input.dense)
    other = dataclasses.replace(context, input_rows=noise)
    with pytest.raises(InitialiserError, match="trained for another model"):
        use(other)
    with pytest.raises(InitialiserError, match="2 matrices of width"):
        use(example_context(tied=True))
    found, _ = Hypernet.load(path)
    dataclasses.replace(found, vocabulary="0" * 64).save(path)
    with pytest.raises(InitialiserError, match="another vocabulary"):
        use(context)


def test_bad_files_and_settings_are_said(tmp_path):
    with pytest.raises(SettingError, match="no file"):
        build("hypernetwork", {"network": str(tmp_path / "none")})
    with pytest.raises(SettingError, match="needs a file"):
        build("hypernetwork")
    with pytest.raises(SettingError, match="minutes must be"):
        build("hypernetwork", {"minutes": -1})
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InitialiserError, match="not a hypernetwork"):
        Hypernet.load(bad)
    bad.write_bytes(b"nothing")
    with pytest.raises(InitialiserError, match="damaged"):
        Hypernet.load(bad)
    with pytest.raises(InitialiserError, match="hypernet train"):
        Hypernet.load(tmp_path / "none")


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, facts: tensors.pop("side.0.turn"),
        lambda tensors, facts: tensors.update({"sketch.ids": np.array([10**6])}),
        lambda tensors, facts: tensors.update({"sketch.ids": np.array([[0.5]])}),
        lambda tensors, facts: tensors.update({"side.0.mean": np.zeros((), np.float32)}),
        lambda tensors, facts: tensors.update({"side.1.coefficients": np.zeros(3, np.float32)}),
        lambda tensors, facts: tensors.update({"network.odd": np.zeros(3, np.float32)}),
        lambda tensors, facts: facts.update(sides=3),
        lambda tensors, facts: facts.update(sides=[]),
        lambda tensors, facts: facts.update(size=None),
        lambda tensors, facts: facts["sides"][0].pop("alpha"),
    ],
)
def test_a_damaged_file_is_blamed(tmp_path, damage):
    from safetensors.numpy import save_file

    context, path = example_context(), tmp_path / "net.safetensors"
    fit(context).run().save(path)
    with safe_open(path, framework="numpy") as file:
        told = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts = json.loads(told["facts"])
    damage(tensors, facts)
    save_file(tensors, path, metadata={**told, "facts": json.dumps(facts)})
    with pytest.raises(InitialiserError, match=r"net\.safetensors is damaged: .*; train it again"):
        build("hypernetwork", {"network": str(path)})(context)


def test_long_tokens_show_both_their_ends():
    packed = pack([list(range(20)), [5]])
    half = MOST_PIECES // 2
    assert packed.shown[0].tolist() == [*range(half), *range(20 - half, 20)]
    assert packed.real.sum(dim=1).tolist() == [MOST_PIECES, 1]
    assert packed.counts.tolist() == [20, 1]
    assert pack([]).shown.shape == (0, MOST_PIECES)


def test_rows_do_not_depend_on_what_they_are_made_with():
    context = example_context()
    composer = composer_of(fit(context, rows=10).run(), context)
    together, alone = composer.values(context.pieces), composer.values(context.pieces[3:4])
    for one, other in zip(together, alone, strict=True):
        assert one[3] == pytest.approx(other[0], abs=1e-5)
    few = composer.values(context.pieces, at_once=7)
    for one, other in zip(together, few, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


TEXTS = [
    f"Chapter {n}: the quick brown foxes jumped over {n * 37} lazy dogs, and the dogs slept "
    f"beside the warm stove in room number {n}." + " They were sleeping soundly." * (n % 4)
    for n in range(120)
]


def sampler(seed: int = 0) -> Sampler:
    context = example_context()
    usable = np.ones(context.n_source, dtype=bool)
    return Sampler(TEXTS, context.source, usable, seed)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_drawn_vocabulary_is_lossless_and_spelled_by_the_source(number: int):
    table = example_context().source.token_bytes
    sample = sampler().draw(number)
    new = np.flatnonzero(sample.source_ids < 0)
    assert 0 < len(new) < len(sample.source_ids) == len(sample.spellings)
    for text in (*TEXTS[:5], "naïve\tcafé\n\n  end", "日本"):
        spelled = b""
        for token in sample.encode([text])[0]:
            one = int(sample.source_ids[token])
            pieces = sample.spellings[token] if one < 0 else [one]
            spelled += b"".join(table[piece] for piece in pieces)
        assert spelled == text.encode()


def test_drawn_vocabularies_are_a_matter_of_seed_and_number():
    def cuts(seed: int, number: int) -> list[list[int]]:
        return [ids.tolist() for ids in sampler(seed).draw(number).encode(TEXTS[:3])]

    assert cuts(0, 0) == cuts(0, 0)
    assert cuts(0, 1) == cuts(0, 1)
    assert cuts(0, 0) != cuts(1, 0)
    assert cuts(0, 0) != cuts(0, 2)


def test_of_one_target_every_draw_is_the_target():
    context = example_context()
    pieces = dict(zip(context.missing.tolist(), context.pieces, strict=True))
    draws = OneTarget(context.alignment, pieces, context.n_source)
    sample = draws.draw(3)
    assert sample is draws.draw(0)
    assert np.flatnonzero(sample.source_ids < 0).tolist() == sorted(
        {*context.missing.tolist()} | {*np.flatnonzero(context.alignment.source_ids < 0).tolist()}
    )
    text = "the cat sat on the mat"
    assert sample.encode([text])[0].tolist() == context.target.encode(text)


def test_too_little_text_to_sample_from_is_said():
    context = example_context()
    with pytest.raises(InitialiserError, match="too few"):
        Sampler(["ab"], context.source, np.ones(context.n_source, dtype=bool))
