"""explain: what the records say is what is shown, whatever names the token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import CliRunner, Result

from tokensurgeon.cli.main import main
from tokensurgeon.report.records import Records
from tokensurgeon.vocabulary import load_vocabulary


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


@pytest.fixture
def patched(tmp_path: Path, tiny_source: Path, tiny_donor: Path) -> Path:
    """A folder with the target's tokenizer and hand-written records: id 300 is 2·a − 0.5·b."""
    for path in tiny_donor.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    source = json.loads((tiny_source / "tokenizer.json").read_text())["model"]["vocab"]
    target = load_vocabulary(tmp_path)
    spellings = sorted(source, key=source.get)
    n, n_source = target.n_rows, len(spellings)
    weights = sp.lil_array((n, n_source), dtype=np.float32)
    weights[300, 20] = -0.5
    weights[300, 10] = 2.0
    weights[0, 0] = 1.0
    origin = ["copied"] * n
    origin[300], origin[1] = "initialised", "control"
    side = {"method": "omp", "origin": origin, "copied": list(range(n))}
    ids = [i if i < n_source else -1 for i in range(n)]
    ids[300] = ids[1] = -1
    tokens: dict[str, Any] = {
        "source": spellings,
        "target": list(target.spellings),
        "match": ["none" if i < 0 else "exact" for i in ids],
        "source_ids": ids,
        "pieces": {"300": [10, 20]},
        "input": side,
        "output": {**side, "method": "subword-mean"},
        "tied": False,
    }
    folder = tmp_path / "surgery"
    folder.mkdir()
    (folder / "tokens.json").write_text(json.dumps(tokens))
    for name in ("input", "output"):
        sp.save_npz(folder / f"{name}_weights.npz", sp.csr_array(weights))
    return tmp_path


def test_a_made_row_shows_its_pieces_and_its_weights_largest_first(patched: Path) -> None:
    result = run(str(patched), "300")
    assert result.exit_code == 0, result.stderr
    first, second = Records(patched).source[10], Records(patched).source[20]
    assert f"pieces: {first!r} + {second!r}" in result.stdout
    assert "match: none (no source token has these bytes)" in result.stdout
    assert "input: made by omp\n" in result.stdout
    assert "output: made by subword-mean\n" in result.stdout
    assert result.stdout.index(f"+2.0000  {first!r} (10)") < result.stdout.index("-0.5000")


def test_a_copied_row_names_its_source_token(patched: Path) -> None:
    result = run(str(patched), "0")
    assert "match: exact (bytes, kind and spelling equal), source token" in result.stdout
    assert "input: copied bit for bit\n" in result.stdout
    assert "+" not in result.stdout


def test_a_fallback_row_says_so(patched: Path) -> None:
    assert "a fallback row: a control token without a counterpart" in run(str(patched), "1").stdout


def test_an_id_a_spelling_and_a_text_name_the_same_token(patched: Path) -> None:
    target = load_vocabulary(patched)
    found = next(i for i in range(270, 400) if (target.spellings[i] or "").startswith("Ġ"))
    spelling = target.spellings[found]
    assert spelling is not None
    text = (target.token_bytes[found] or b"").decode()
    shown = {run(str(patched), name, "--json").stdout for name in (str(found), spelling, text)}
    assert len(shown) == 1
    assert json.loads(shown.pop())["id"] == found


def test_a_digit_is_an_id_unless_it_is_said_to_be_text(patched: Path) -> None:
    assert Records(patched).find("5") == 5
    text = Records(patched).find("5", "text")
    assert load_vocabulary(patched).token_bytes[text] == b"5"


def test_top_cuts_the_list_and_says_how_much_is_left(patched: Path) -> None:
    assert "  and 1 smaller\n" in run(str(patched), "300", "--top", "1").stdout


@pytest.mark.parametrize(
    ("token", "kind", "message"),
    [
        ("99999", "id", "no token has id 99999; the last id is 399"),
        ("no such text at all", "any", "is no id, no spelling and not the text of one token"),
        ("", "any", "argument 3 is empty"),
        ("5", "spelling", ""),
    ],
)
def test_a_name_of_nothing_is_one_line(patched: Path, token: str, kind: str, message: str) -> None:
    result = run(str(patched), token, "--as", kind)
    if not message:
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    result = run(str(tmp_path), "5")
    assert result.exit_code == 1
    assert "was not written by `tokensurgeon transplant`" in result.stderr


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 broken"])
def test_damaged_records_are_one_line(patched: Path, content: bytes) -> None:
    for name in ("output_weights.npz", "input_weights.npz", "tokens.json"):
        (patched / "surgery" / name).write_bytes(content)
        result = run(str(patched), "300")
        assert result.exit_code == 1
        assert f"{name} is" in result.stderr
        assert "damaged: " in result.stderr
        assert "transplant again" in result.stderr
        assert "unexpected" not in result.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {}}, {"target": [3] * 400}, {"source": None}, {"source_ids": []},
        {"source_ids": [None] * 400}, {"source_ids": "x" * 400}, {"pieces": []},
        {"pieces": {"300": 5}}, {"pieces": {"300": ["x"]}}, {"match": None}, {"input": []},
        {"input": {"origin": ["initialised"] * 400}}, {"output": {"origin": 3, "method": "omp"}},
        {"input": {"origin": ["copied"] * 400, "method": "omp", "rest": "y" * 400}},
    ],
)  # fmt: skip
def test_records_of_another_shape_are_blamed_on_their_file(
    patched: Path, changes: dict[str, Any]
) -> None:
    path = patched / "surgery/tokens.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    result = run(str(patched), "300")
    assert result.exit_code == 1
    assert f"{path} is damaged: " in result.stderr
    assert result.stderr.endswith("; transplant again\n")
