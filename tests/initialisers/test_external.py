"""External weights: what is in the file is what the rows are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.check import example_context


@pytest.fixture
def context():
    return example_context()


@pytest.fixture
def matrix(context) -> sp.csr_array:
    """Weights for all but the first two missing tokens."""
    rng = np.random.default_rng(0)
    rows = np.repeat(context.missing[2:], 3)
    columns = rng.integers(0, context.n_source, len(rows))
    shape = (context.target.n_rows, context.n_source)
    return sp.csr_array((rng.random(len(rows)), (rows, columns)), shape=shape)


def write_csv(path: Path, header: list[str], rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write(kind: str, folder: Path, matrix: sp.csr_array, context) -> Path:
    path = folder / f"weights.{kind.split('-')[0]}"
    coo = matrix.tocoo()
    if kind == "npz":
        sp.save_npz(path, matrix)
    elif kind == "safetensors-dense":
        save_file({"weights": matrix.toarray()}, path)
    elif kind == "safetensors-csr":
        parts = {name: getattr(matrix, name) for name in ("indptr", "indices", "data")}
        save_file(parts, path)
    elif kind == "csv-id":
        write_csv(
            path,
            ["target_id", "source_id", "weight"],
            zip(coo.row, coo.col, map(repr, coo.data.tolist()), strict=True),
        )
    else:
        names = context.target.spellings, context.source.spellings
        write_csv(
            path,
            ["weight", "source", "target"],
            [
                (repr(float(w)), names[1][j], names[0][i])
                for i, j, w in zip(coo.row, coo.col, coo.data, strict=True)
            ],
        )
    return path


def values(path: Path, context, **settings):
    new = build("external", {"file": str(path), **settings})(context)
    return new.input.values(context.input_rows), new.output.values(context.output_rows)


@pytest.mark.parametrize(
    "kind", ["npz", "safetensors-dense", "safetensors-csr", "csv-id", "csv-spelling"]
)
def test_each_format_gives_the_weights_times_the_rows(kind, tmp_path, matrix, context):
    if kind == "csv-spelling":  # the padding rows have no spelling
        matrix = sp.csr_array(matrix * (np.arange(context.n_source) < context.source.n_rows))
        matrix.eliminate_zeros()
    path = write(kind, tmp_path, matrix, context)
    for found, rows in zip(
        values(path, context), (context.input_rows, context.output_rows), strict=True
    ):
        wanted = matrix[context.missing] @ rows
        empty = np.diff(matrix[context.missing].indptr) == 0
        assert found[~empty] == pytest.approx(wanted[~empty], abs=1e-4)
        for i in np.flatnonzero(empty):
            pieces = rows[list(context.pieces[i])].mean(axis=0)
            assert found[i] == pytest.approx(pieces, abs=1e-4)


def test_normalised_weights_sum_to_one(tmp_path, matrix, context):
    path = write("npz", tmp_path, matrix, context)
    new = build("external", {"file": str(path), "normalise": "yes"})(context)
    assert new.input.weights.sum(axis=1) == pytest.approx(np.ones(context.n_missing))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["target", "weight"], ["t", "1"], "'source' or 'source_id'"),
        (["target_id", "source_id"], ["1", "2"], "needs 'weight'"),
        (["target_id", "source_id", "weight"], ["1", "999999", "1"], "line 2: '999999'"),
        (["target_id", "source_id", "weight"], ["-1", "2", "1"], "line 2: '-1'"),
        (["target_id", "source_id", "weight"], ["1", "2", "much"], "line 2: 'much'"),
        (["target_id", "source_id", "weight"], ["1", "2", "nan"], "not finite"),
        (["target", "source_id", "weight"], ["qqqqqq", "2", "1"], "no token 'qqqqqq'"),
    ],
)
def test_a_wrong_csv_is_refused_with_the_line(tmp_path, context, header, row, message):
    path = write_csv(tmp_path / "w.csv", header, [row])
    with pytest.raises(InitialiserError, match=message) as caught:
        values(path, context)
    assert "\n" not in str(caught.value)


def test_a_matrix_of_another_shape_is_refused_with_both(tmp_path, context):
    path = tmp_path / "w.npz"
    sp.save_npz(path, sp.csr_array((3, context.n_source + 1)))
    with pytest.raises(InitialiserError, match=f"the\\s+source {context.n_source} rows"):
        values(path, context)


def test_a_matrix_of_fewer_ids_is_padded(tmp_path, context):
    path = tmp_path / "w.npz"
    sp.save_npz(path, sp.csr_array((2, 2)))
    plain = build("subword-mean", {})(context).input.values(context.input_rows)
    assert values(path, context)[0] == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "csv"])
def test_a_file_of_noise_is_refused(tmp_path, context, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"\x93\x00noise\xff\n" * 4)
    with pytest.raises(InitialiserError, match="no weight file"):
        values(path, context)
    with pytest.raises(InitialiserError, match=r"check external\.file"):
        values(tmp_path / f"absent.{suffix}", context)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_indices_past_the_matrix_are_refused_before_they_are_followed(tmp_path, context, kind):
    path = tmp_path / "w.npz"
    matrix = kind(np.eye(3))
    matrix.indices[1] = 10**6
    sp.save_npz(path, matrix)
    with pytest.raises(InitialiserError, match="no weight file"):
        values(path, context)


def test_indices_that_point_nowhere_are_refused(tmp_path, context):
    path = tmp_path / "w.safetensors"
    broken = {"indptr": np.array([0, 5]), "indices": np.array([1]), "data": np.array([1.0])}
    save_file(broken, path)
    with pytest.raises(InitialiserError, match="no weight file"):
        values(path, context)
    save_file({"data": np.array([1.0])}, path)
    with pytest.raises(InitialiserError, match="neither 'weights' nor 'indices'"):
        values(path, context)
