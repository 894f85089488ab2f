"""A projection: rows that sum to one, one-hot where a token is shared, and files that agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import CliRunner

from tests.world import permute
from tokensurgeon import transplant
from tokensurgeon.alignment import Alignment, align
from tokensurgeon.cli import align as align_command
from tokensurgeon.cli.main import main
from tokensurgeon.errors import (
    AlignmentError,
    CheckpointError,
    OutputError,
    SettingError,
    UsageError,
)
from tokensurgeon.handover.projection import (
    RULES,
    Projection,
    inverted,
    project,
    recorded_weights,
)
from tokensurgeon.handover.projection_files import (
    check_projection_path,
    teacher_to_student,
    top_arrays,
    write_projection,
)
from tokensurgeon.surgery.prepare import spell
from tokensurgeon.vocabulary import load_vocabulary


@pytest.fixture(scope="module", params=["target", "source"])
def alignment(request: pytest.FixtureRequest, made: Path) -> Alignment:
    """The pair in both directions."""
    source, target = load_vocabulary(made / "source"), load_vocabulary(made / "target")
    return align(source, target) if request.param == "target" else align(target, source)


def of(alignment: Alignment, rule: str = "mean", top_k: int | None = None) -> Projection:
    return project(alignment, spell(alignment, alignment.source.n_rows)[0], rule, top_k)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("top_k", [None, 1, 2, 1000])
def test_rows_sum_to_one_and_shared_rows_are_one_hot(alignment, rule, top_k) -> None:
    projection = of(alignment, rule, top_k)
    weights, counts = projection.weights, np.diff(projection.weights.indptr)
    pieces = spell(alignment, alignment.source.n_rows)[0]
    known = (alignment.source_ids >= 0) | np.isin(np.arange(len(counts)), list(pieces))
    assert np.array_equal(counts > 0, known)
    np.testing.assert_allclose(weights.sum(axis=1)[known], 1.0, rtol=1e-12)
    assert (weights.data > 0).all()
    assert counts.max() <= (top_k or 1000)
    shared = np.flatnonzero(alignment.source_ids >= 0)
    one_hot = sp.csr_array(weights[shared])
    assert np.array_equal(one_hot.indices, alignment.source_ids[shared])
    assert (one_hot.data == 1).all()
    assert {"rows", "columns", "weights"} <= set(projection.facts())
    assert projection.facts()["empty_rows"] == int((~known).sum())


def test_a_distribution_keeps_its_mass(alignment: Alignment) -> None:
    """Mass of tokens that have a row arrives; that of a shared token arrives at its twin."""
    projection = of(alignment)
    rows = projection.weights.shape[0]
    distribution = np.random.default_rng(0).dirichlet(np.ones(rows))
    known = np.diff(projection.weights.indptr) > 0
    arrived = distribution @ projection.weights
    assert arrived.sum() == pytest.approx(distribution[known].sum())
    alone = np.where(alignment.source_ids >= 0, distribution, 0.0)
    expected = np.bincount(
        alignment.source_ids[alone > 0], alone[alone > 0], projection.weights.shape[1]
    )
    np.testing.assert_allclose(alone @ projection.weights, expected)


def test_the_rules_weigh_pieces_as_they_say(alignment: Alignment) -> None:
    pieces = spell(alignment, alignment.source.n_rows)[0]
    token, ids = next((t, p) for t, p in pieces.items() if len(set(p)) == len(p) == 3)
    lengths = np.array([len(alignment.source.token_bytes[i] or b"") for i in ids])
    wanted = {
        "mean": np.full(3, 1 / 3),
        "bytes": lengths / lengths.sum(),
        "first": np.array([1.0, 0, 0]),
        "last": np.array([0, 0, 1.0]),
        "decay": np.array([100.0, 10, 1]) / 111,
    }
    for rule, weights in wanted.items():
        row = of(alignment, rule).weights[[token]].toarray().ravel()
        np.testing.assert_allclose(row[list(ids)], weights, atol=1e-12)
    kept = of(alignment, "decay", 2).weights[[token]].toarray().ravel()
    np.testing.assert_allclose(kept[list(ids)], np.array([10, 1, 0]) / 11)


def test_of_equal_weights_the_lower_columns_stay(alignment: Alignment) -> None:
    pieces = spell(alignment, alignment.source.n_rows)[0]
    cut = of(alignment, "mean", 1).weights
    for token, ids in pieces.items():
        most = max(map(ids.count, ids))
        assert cut[[token]].indices.tolist() == [min(i for i in ids if ids.count(i) == most)]


def test_other_ids_permute_the_projection(made: Path, tmp_path: Path) -> None:
    source, target = load_vocabulary(made / "source"), load_vocabulary(made / "target")
    moved = load_vocabulary(permute(made / "target", tmp_path / "moved"))
    other_id = np.array([moved.require_id(spelling or "") for spelling in target.spellings])
    plain = of(align(source, target)).weights.toarray()
    np.testing.assert_array_equal(of(align(source, moved)).weights.toarray()[other_id], plain)
    as_columns = of(align(target, source)).weights.toarray()
    moved_columns = of(align(moved, source)).weights.toarray()[:, other_id]
    np.testing.assert_allclose(moved_columns, as_columns)


def test_a_vocabulary_projects_onto_itself_as_it_is(made: Path) -> None:
    source = load_vocabulary(made / "source")
    weights = of(align(source, source)).weights.toarray()
    np.testing.assert_array_equal(weights, np.eye(source.n_rows))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_external_makes_the_initialisers_rows_of_the_file(made, tmp_path, suffix) -> None:
    alignment = align(load_vocabulary(made / "source"), load_vocabulary(made / "target"))
    file = write_projection(of(alignment), tmp_path / f"projection.{suffix}")
    pair = {"source": made / "source", "tokenizer": made / "target"}
    plain = transplant(**pair, init={"input": "subword-mean", "output": "subword-mean"})
    settings = {"external": {"file": str(file)}}
    both = {"input": "external", "output": "external", "settings": settings}
    external = transplant(**pair, init=both)
    for side in ("input", "output"):
        ours, theirs = getattr(external.rows, side).rows, getattr(plain.rows, side).rows
        np.testing.assert_array_equal(ours, theirs)


def test_tensors_for_x_token_say_the_same_matrix(alignment: Alignment, tmp_path: Path) -> None:
    """Parsed as its loader does: entries of -1 dropped, the first as large as any."""
    import torch

    projection = of(alignment, "decay", 4)
    file = write_projection(projection, tmp_path / "projection.pt")
    loaded = torch.load(file, weights_only=True)
    assert set(loaded) == {"indices", "likelihoods"}
    indices, likelihoods = loaded["indices"], loaded["likelihoods"]
    assert (indices.dtype, likelihoods.dtype) == (torch.int64, torch.float32)
    assert indices.shape == likelihoods.shape == (projection.weights.shape[0], 4)
    rows, places = np.nonzero(indices.numpy() >= 0)
    entries = likelihoods.numpy()[rows, places], (rows, indices.numpy()[rows, places])
    dense = sp.coo_array(entries, shape=projection.weights.shape).toarray()
    wanted = projection.weights.toarray().astype(np.float32)
    np.testing.assert_array_equal(dense, wanted)
    assert (likelihoods[:, 0] == likelihoods.max(dim=1).values).all()
    exact = (likelihoods[:, 0] == 1) & (indices[:, 1] == -1)
    assert exact[torch.from_numpy(np.flatnonzero(projection.matched >= 0))].all()
    narrow, _ = top_arrays(of(alignment, top_k=1))
    assert narrow.shape[1] == 2  # its loss reads the second entry of each row


def test_the_mapping_for_gold_is_one_to_one(alignment: Alignment, tmp_path: Path) -> None:
    projection = of(alignment)
    file = write_projection(projection, tmp_path / "mapping.json")
    mapping = {int(key): value for key, value in json.loads(file.read_text()).items()}
    assert mapping == teacher_to_student(projection)
    assert len(set(mapping.values())) == len(mapping)
    for column, row in mapping.items():
        assert alignment.source_ids[row] == column or alignment.output_source_ids[row] == column
        assert alignment.source.token_bytes[column] == alignment.target.token_bytes[row]


def test_recorded_weights_are_those_of_the_checkpoint(made: Path) -> None:
    alignment = align(load_vocabulary(made / "source"), load_vocabulary(made / "target"))
    pieces = spell(alignment, alignment.source.n_rows)[0]
    for side in ("input", "output"):
        records = recorded_weights(made / "patched", alignment, side)
        projection = project(alignment, pieces, "last", records=records)
        plain = project(alignment, pieces, "mean").weights
        np.testing.assert_allclose(projection.weights.toarray(), plain.toarray(), atol=1e-6)
        assert (projection.from_records, projection.fallback) == (len(pieces), 0)


def test_negative_recorded_weights_are_left_out_and_said(made: Path) -> None:
    alignment = align(load_vocabulary(made / "source"), load_vocabulary(made / "target"))
    pieces = spell(alignment, alignment.source.n_rows)[0]
    first, second = list(pieces)[:2]
    records = sp.lil_array((alignment.target.n_rows + 8, alignment.source.n_rows + 4))
    records[first, 3], records[first, 5], records[first, 7] = 3.0, -1.0, 1.0
    records[second, 3] = -1.0
    projection = project(alignment, pieces, records=sp.csr_array(records))
    row = projection.weights[[first]].toarray().ravel()
    assert (row[3], row[5], row[7]) == (0.75, 0.0, 0.25)
    plain = project(alignment, pieces).weights
    rest = [token for token in range(alignment.target.n_rows) if token != first]
    np.testing.assert_array_equal(projection.weights.toarray()[rest], plain.toarray()[rest])
    assert (projection.from_records, projection.fallback) == (1, len(pieces) - 1)
    assert projection.dropped == pytest.approx(0.2)


def test_what_cannot_be_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    alignment = align(load_vocabulary(made / "source"), load_vocabulary(made / "target"))
    with pytest.raises(SettingError, match="no rule 'median' for pieces; known: mean"):
        project(alignment, {}, "median")
    with pytest.raises(SettingError, match="top-k is 0: a row keeps at least 1"):
        project(alignment, {}, top_k=0)
    for ids in ((3, 300), (-1,)):
        with pytest.raises(AlignmentError, match="the source's last id is 299"):
            project(alignment, {7: ids})
    with pytest.raises(UsageError, match=r"ends in \.npz, \.safetensors, \.pt, \.json"):
        check_projection_path(tmp_path / "projection.csv")
    with pytest.raises(OutputError, match="lie in each other"):
        check_projection_path(made / "source" / "projection.npz", [made / "source"])
    (tmp_path / "there.npz").touch()
    with pytest.raises(UsageError, match="exists already"):
        write_projection(of(alignment), tmp_path / "there.npz")
    with pytest.raises(AlignmentError, match="leave one out"):
        inverted({"<a>": "<s>", "<b>": "<s>"})
    assert inverted({"<a>": "<s>"}) == {"<s>": "<a>"}
    with pytest.raises(CheckpointError, match=r"has no surgery/tokens\.json"):
        recorded_weights(made / "source", alignment)
    with pytest.raises(CheckpointError, match="was made of other tokenizers"):
        recorded_weights(made / "patched", align(alignment.target, alignment.source))


def test_damaged_records_are_refused(made: Path, patched: Path) -> None:
    alignment = align(load_vocabulary(made / "source"), load_vocabulary(made / "target"))
    (patched / "surgery/input_weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        recorded_weights(patched, alignment)


def test_the_command_writes_either_direction(made: Path, tmp_path: Path) -> None:
    assert tuple(RULES) == align_command.RULES
    pair = ["align", str(made / "source"), str(made / "target"), "--export-projection"]
    run = CliRunner().invoke(main, [*pair, str(tmp_path / "a.npz"), "--top-k", "2", "--json"])
    facts = json.loads(run.output)["projection"]
    weights = sp.load_npz(tmp_path / "a.npz")
    assert (facts["rows"], facts["columns"]) == weights.shape == (360, 300)
    assert facts["bytes"] == (tmp_path / "a.npz").stat().st_size
    again = [str(tmp_path / "b.npz"), "--projection-rows", "source", "--projection-rule", "decay"]
    words = CliRunner().invoke(main, [*pair, *again]).output
    assert "Projection: 300 rows over 360 columns" in words
    records = [str(tmp_path / "c.npz"), "--weights-of", str(made / "patched")]
    words = CliRunner().invoke(main, [*pair, *records]).output
    assert "have the weights of the checkpoint" in words
    for wrong in (
        [*pair[:-1], "--top-k", "2"],
        [*pair[:-1], "--projection-rule", "decay"],
        [*pair, str(tmp_path / "d.npz"), "--weights-side", "output"],
        [*pair, str(tmp_path / "d.npz"), "--top-k", "0"],
        [*pair, str(tmp_path / "d.npz"), *again[1:3], *records[1:]],
    ):
        assert CliRunner().invoke(main, wrong).exit_code == 2
    assert not (tmp_path / "d.npz").exists()
