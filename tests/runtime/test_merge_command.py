"""``runtime merge``: figures on the model that ships, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tokensurgeon.cli.main import main
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.models import load_model
from tokensurgeon.runtime.merging.measure_merging import measure_merging
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.corpus import read_to_measure
from tokensurgeon.vocabulary import load_vocabulary

DATA = Path(__file__).parents[2] / "tokensurgeon" / "data"
SOURCE, TEXT = DATA / "source", DATA / "text" / "evaluation.jsonl"
SIZES = ["--max-bytes", "4000", "--chunk-bytes", "256"]


def run(*words: object) -> Any:
    return CliRunner().invoke(main, ["runtime", "merge", *map(str, words)])


def test_the_command_says_lengths_losses_and_times() -> None:
    names = "subword-mean,subword-first"
    result = run(SOURCE, TEXT, "--rows", names, "--least-count", 1, *SIZES, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["saving"] == 1 - facts["tokens_after"] / facts["tokens_before"] > 0.1
    assert [row["name"] for row in facts["rows"]] == names.split(",")
    for row in facts["rows"]:
        assert 0 < row["bits_per_byte"] < facts["bits_plain"] + 1
        assert row["n_rows"] == facts["n_merged"] > 0
    assert facts["seconds_plain"] > 0
    assert facts["clock"] == "processor"
    table = run(SOURCE, TEXT, *SIZES, "--policy", "meaning", "--saving", "0.1")
    assert table.exit_code == 0, table.output
    assert "subword-mean" in table.output
    assert "saved inside lines" in table.output


def test_without_merges_the_figure_is_the_models_own() -> None:
    """Both figures are the loss of the second halves, as the model alone gives it."""
    facts = measure_merging(SOURCE, [TEXT], merges=0, max_bytes=4_000, chunk_bytes=256, batch=3)
    assert facts.saving == 0
    assert facts.rows[0].bits_per_byte == facts.bits_plain
    vocabulary, model = load_vocabulary(SOURCE), load_model(SOURCE)
    texts = read_to_measure([TEXT], max_bytes=4_000).texts
    nll, n_bytes = 0.0, 0
    for chunk in chunk_documents(texts, max_bytes_per_chunk=256, max_bytes_total=4_000):
        encoding = vocabulary.encode_with_bytes(chunk.text)
        half = int((encoding.ends <= chunk.n_bytes // 2).sum())
        if 1 <= half < len(encoding.ids):
            nll += float(model.nll([[vocabulary.start_id or 0, *encoding.ids]])[0][half:].sum())
            n_bytes += chunk.n_bytes - int(encoding.ends[half - 1])
    assert facts.scored_bytes == n_bytes
    np.testing.assert_allclose(facts.bits_plain, bits_per_byte(nll, n_bytes), rtol=1e-5)


def test_the_same_call_gives_the_same_figures() -> None:
    def once() -> Any:
        facts = measure_merging(SOURCE, [TEXT], max_bytes=2_000, policy="identifiers")
        return facts.tokens_after, facts.n_merged, facts.rows[0].bits_per_byte

    assert once() == once()


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["nowhere", TEXT], "nowhere", 1),
        ([SOURCE, "nothing.txt"], "there is no text file nothing.txt", 1),
        ([SOURCE, TEXT, "--saving", "1.0"], "1.0 is not in the range", 2),
        ([SOURCE, TEXT, "--rows", "no-such"], "no-such", 2),
        ([SOURCE, TEXT, "--rows", "subword-mean,subword-mean"], "name each once", 2),
        ([SOURCE, TEXT, "--rows", "hypernetwork"], "hypernetwork needs a file", 2),
        ([SOURCE, TEXT, "--network", "a.safetensors"], "a network is for the rows of", 2),
        ([SOURCE, TEXT, "--layer", "1"], "policy frequency compares no states", 2),
        ([SOURCE, TEXT, "--rows", "bil", *SIZES], "use 'subword-mean'", 1),
        ([SOURCE, TEXT, "--policy", "meaning", "--layer", "99", *SIZES], "layer 99", 2),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words: list[object], says: str, code: int) -> None:
    result = run(*words)
    assert result.exit_code == code, result.output
    assert says in result.output
    assert "Traceback" not in result.output
