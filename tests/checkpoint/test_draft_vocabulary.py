"""The cut head of a draft: which tokens it keeps, and the files that engines read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.checkpoint.draft_vocabulary import (
    MAPS,
    TOKEN_MAP,
    kept_tokens,
    map_files,
    read_kept,
)
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CheckpointError, RecipeError, UsageError
from tokensurgeon.vocabulary import load_vocabulary

TEXT = "stone river winter garden silver morning letter window " * 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small and a big model, and a text."""
    folder = tmp_path_factory.mktemp("models")
    big = make_model(folder / "big", n_rows=352, width=32, seed=1)
    save_tokenizer(byte_level_bpe(340, ("<s>", "</s>"), [TEXT]), big, bos_token="<s>")
    small = make_model(folder / "small", "gpt2", 300, tied=True, width=32, seed=2)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), small, bos_token="<s>")
    (folder / "text.txt").write_text("\n\n".join([TEXT] * 6))
    return folder


def test_controls_come_first_then_what_the_text_has_then_low_ids(models: Path) -> None:
    vocabulary = load_vocabulary(models / "big")
    counts = np.zeros(vocabulary.n_rows, dtype=np.int64)
    counts[[290, 200]] = 7, 9
    controls = {vocabulary.require_id("<s>"), vocabulary.require_id("</s>")}
    assert set(kept_tokens(vocabulary, counts, 3)) == controls | {200}
    assert set(kept_tokens(vocabulary, counts, 4)) == controls | {200, 290}
    lowest = min(set(range(vocabulary.n_rows)) - controls)
    assert set(kept_tokens(vocabulary, counts, 5)) == controls | {200, 290, lowest}
    everything = kept_tokens(vocabulary, counts, vocabulary.n_rows)
    assert np.array_equal(everything, np.arange(vocabulary.n_rows))
    for wrong in (2, vocabulary.n_rows + 1):
        with pytest.raises(UsageError, match="give a number in between"):
            kept_tokens(vocabulary, counts, wrong)


def test_the_maps_lead_from_the_kept_tokens_to_ids_and_back(tmp_path: Path) -> None:
    kept = np.array([0, 3, 4, 9])
    for name, data in map_files(kept, 12).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    maps = load_file(tmp_path / MAPS)
    assert np.array_equal(np.arange(4) + maps["d2t"], kept)
    assert np.array_equal(np.flatnonzero(maps["t2d"]), kept)
    assert torch.load(tmp_path / TOKEN_MAP, weights_only=True) == kept.tolist()
    assert np.array_equal(read_kept(tmp_path, 12), kept)
    with pytest.raises(CheckpointError, match="is not of this draft's 13 rows"):
        read_kept(tmp_path, 13)
    save_file({"d2t": maps["d2t"] + 1, "t2d": maps["t2d"]}, tmp_path / MAPS)
    with pytest.raises(CheckpointError, match="is not of this draft's"):
        read_kept(tmp_path, 12)
    (tmp_path / MAPS).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_kept(tmp_path, 12)
    (tmp_path / MAPS).unlink()
    assert read_kept(tmp_path, 12) is None


def test_a_draft_is_written_with_its_maps_and_measured_with_them(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = tmp_path / "out", str(models / "text.txt")
    transplant(
        source=models / "small",
        for_draft=models / "big",
        draft_vocabulary=60,
        output=out,
        init={"input": "subword-mean", "output": "subword-mean"},
        text={"calibration": [text]},
        calibrate=[],
    )
    kept = read_kept(out, 352)
    assert kept is not None
    assert len(kept) == 60
    assert set(load_vocabulary(out).encode(TEXT)) <= set(kept)  # the text needs fewer
    words = ["evaluate", str(out), text, "--draft-for", str(models / "big")]
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as left:
            main([*words, *extra])
        assert left.value.code == 0
        said = capsys.readouterr().out
        assert "head cut to 60" in said or json.loads(said)["cut_head"]["n_kept"] == 60


def test_a_wrong_number_is_refused_before_anything_is_computed(
    models: Path, tmp_path: Path
) -> None:
    source, big, out = models / "small", models / "big", tmp_path / "out"
    text = {"calibration": [str(models / "text.txt")]}
    with pytest.raises(UsageError, match="a draft vocabulary of 5,000 tokens cannot be"):
        transplant(source=source, for_draft=big, output=out, draft_vocabulary=5_000, text=text)
    with pytest.raises(RecipeError, match=r"give 'text\.calibration'"):
        transplant(source=source, for_draft=big, output=out, draft_vocabulary=50)
    with pytest.raises(RecipeError, match="give 'for_draft'"):
        transplant(source=source, tokenizer=big, output=out, draft_vocabulary=50, text=text)
    assert not out.exists()
