"""The token map: every row sums to one, bytes agree, and both formats say the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tests.world import SENTENCES, byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.cli.main import main
from tokensurgeon.errors import UsageError
from tokensurgeon.vocabulary import load_vocabulary


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    source = make_model(tmp_path / "source", n_rows=300, width=32, noise=0.15)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), source, bos_token="<s>")
    longer = byte_level_bpe(360, ("<s>", "<extra>"), [text.upper() for text in SENTENCES])
    return source, save_tokenizer(longer, tmp_path / "target", bos_token="<s>")


def test_both_formats_say_how_each_token_is_spelled(pair, tmp_path: Path, capsys) -> None:
    source, target = pair
    for suffix in ("jsonl", "npz"):
        with pytest.raises(SystemExit) as left:
            main(["align", str(source), str(target), "--export-map", str(tmp_path / f"m.{suffix}")])
        assert left.value.code == 0
    weights = sp.csr_array(sp.load_npz(tmp_path / "m.npz"))
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    old, new = load_vocabulary(source), load_vocabulary(target)
    assert weights.shape == (new.n_rows, old.n_rows)
    sums = weights @ np.ones(old.n_rows)
    for line in lines:
        token, ids = line["id"], line["source"]
        assert sums[token] == pytest.approx(1.0 if ids else 0.0)
        assert set(weights.indices[slice(*weights.indptr[token : token + 2])]) == set(ids)
        assert (line["match"] == "none") == (not ids)
        if line["match"] in ("exact", "byte", "pieces"):
            assert b"".join(old.token_bytes[i] for i in ids) == new.token_bytes[token]
    assert {"exact", "pieces", "none"} <= {line["match"] for line in lines}
    made = transplant(
        source=source,
        tokenizer=target,
        export_map=tmp_path / "t.npz",
        init={"input": "subword-mean", "output": "subword-mean"},
    )
    assert np.array_equal(sp.load_npz(tmp_path / "t.npz").toarray(), weights.toarray())
    assert made.output is None


def test_a_path_that_cannot_be_written_is_refused_first(pair, tmp_path: Path) -> None:
    source, target = pair
    (tmp_path / "old.npz").touch()
    for name, message in (
        ("map.txt", "jsonl or an .npz"),
        ("old.npz", "exists already"),
        ("no/map.npz", "cannot be written"),
    ):
        with pytest.raises(UsageError, match=message):
            transplant(source=source, tokenizer=target, export_map=tmp_path / name)
