"""The harness of real models: its texts, its runs, and its table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import SCRIPTS, script
from tokensurgeon.text.corpus import read_documents

measuring, real_texts = script("measuring"), script("real_texts")
pairs = script("measure_real_pairs")

RUN = pairs.Run("tiny", "untied", "subword-mean", 10.0, 0.0, 0, "", "cpu")


def test_no_article_is_fitted_to_and_measured_on() -> None:
    articles = [f"article {i} " * (i + 1) for i in range(40)]
    fit, held = real_texts.split(articles, 400)
    assert not set(fit) & set(held)
    assert held == articles[:13:6]
    assert len(fit) == 40 - 7


def test_an_article_that_is_too_long_is_left_out_whole() -> None:
    articles = ["x" * 10, *"abcde", "y" * 100, *"fghij", "z" * 10]
    assert real_texts.split(articles, 20)[1] == ["x" * 10, "z" * 10]


def test_first_lines_are_whole_and_fit() -> None:
    assert real_texts.first_lines("één\ntwo\nthree", 10) == "één\ntwo"
    assert real_texts.first_lines("one\ntwo", 10) == "one\ntwo"
    assert real_texts.first_lines("onetwothree", 6) == "onetwo"


def make_corpora(folder: Path) -> Path:
    corpora = folder / "corpora"
    articles = [f"Article {i}.\nIt says {i} things, all of them twice." for i in range(8)]
    measuring.documents_file(corpora / "wiki-articles.jsonl", articles)
    for name in real_texts.OTHER:
        (corpora / f"{name}.txt").write_text(f"This is {name}.\nSo is this.\n", "utf-8")
    return folder


def test_a_state_folder_keeps_to_its_texts(tmp_path: Path) -> None:
    assets, state = make_corpora(tmp_path), tmp_path / "state"
    texts = real_texts.write_texts(assets, state, 60)
    assert len(read_documents([texts.held])) == 1
    assert real_texts.write_texts(assets, state, 60) == texts
    with pytest.raises(real_texts.TextsError, match="holds another text"):
        real_texts.write_texts(assets, state, 200)
    with pytest.raises(real_texts.TextsError, match="fits into 3 bytes"):
        real_texts.write_texts(assets, tmp_path / "other", 3)


def test_a_command_is_measured_alone() -> None:
    """From a small process, for a child has at least the memory of the process it comes from."""
    code = (
        "import sys; from measuring import run_measured\n"
        "for command in ('x = b\"x\" * 80_000_000; print(sum(range(5_000_000)))', 'pass'):\n"
        "    printed, cost = run_measured([sys.executable, '-c', command])\n"
        "    print(printed.strip() or 0, cost.cpu_seconds, cost.peak_bytes)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    big, small = ([float(word) for word in line.split()] for line in run.stdout.splitlines())
    assert big[0] == sum(range(5_000_000))
    assert big[1] > small[1] > 0
    assert big[2] > 80e6 > small[2]


def test_a_command_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(subprocess.CalledProcessError):
        measuring.run_measured([sys.executable, "-c", "raise SystemExit('no space')"], log)
    assert pairs.last_line(log) == "no space"


def test_every_option_that_changes_a_run_changes_its_name() -> None:
    default = replace(RUN, method=pairs.DEFAULT)
    changed = [
        replace(default, **{key: value})
        for key, value in {
            "side": "tied",
            "budget": 2.0,
            "heal": 5.0,
            "seed": 1,
            "options": "--trim-rows",
            "device": "cuda",
        }.items()
    ]
    assert len({run.name for run in (RUN, default, *changed)}) == len(changed) + 2


def test_only_the_default_is_fitted_to_text(tmp_path: Path) -> None:
    texts = real_texts.Texts(tmp_path / "fit", tmp_path / "held", {})
    pair = pairs.RealPair("", Path("a"), Path("b"), donor=True)
    default = replace(RUN, method=pairs.DEFAULT, heal=5.0, side="tied")
    fitted = pairs.transplant_words(default, pair, texts, Path("c"))
    assert str(texts.fit) in fitted
    assert fitted[fitted.index("--heal") + 1] == "5"
    assert "--untie" not in fitted
    plain = pairs.transplant_words(RUN, pair, texts, Path("c"))
    assert str(texts.fit) not in plain
    assert plain[plain.index("--calibrate") + 1] == "none"
    assert "--untie" in plain
    assert str(texts.held) not in fitted + plain


def test_seeds_are_those_of_the_default() -> None:
    command = ["measure_real_pairs.py", "models", "--state", "state", "--seeds", "0,1,2"]
    command += ["--only", "smollm2-gpt2", "--sides", "tied", "--methods", "subword-mean,default"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        runs = list(pairs.planned(pairs.parse()))
    assert [(run.method, run.seed) for run in runs] == [
        ("subword-mean", 0),
        *((pairs.DEFAULT, seed) for seed in range(3)),
    ]


def record(method: str, gap: float, **changed: Any) -> dict[str, Any]:
    run = replace(RUN, method=method, **changed)
    difference = {"estimate": gap, "low": gap - 0.01, "high": gap + 0.01}
    entries = [{"bits_per_byte": 1.0}, {"bits_per_byte": 1.0 + gap, "difference": difference}]
    return {
        "run": asdict(run),
        "cost": {"seconds": 90.0, "cpu_seconds": 120.0, "peak_bytes": 2**31},
        "held": {"entries": entries},
        "other": {name: {"source": 2.0, "result": 2.5} for name in real_texts.OTHER},
    }


def test_the_share_left_is_of_the_better_baseline_of_the_same_side() -> None:
    records = [
        record("subword-mean", 0.4),
        record("omp-published", 0.2),
        record("omp-published", 0.1, side="tied"),
        record(pairs.DEFAULT, 0.1, heal=5.0),
    ]
    table = pairs.table(records, {"tiny": "tiny → other"})
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert len({len(line) for line in (cells[0], *cells[2:])}) == 1
    left = cells[0].index("left")
    assert [line[left] for line in cells[2:]] == ["2.00", "1.00", "1.00", "0.50"]
    assert cells[-1][3] == "10 + 5 healing"
    assert cells[-1][-6:] == ["+0.500", "+0.500", "+0.500", "1.5", "2.0", "2.0"]


@pytest.mark.sweep  # five processes that load torch
def test_a_run_is_measured_once(tiny_source: Path, tiny_donor: Path, tmp_path: Path) -> None:
    texts = real_texts.write_texts(make_corpora(tmp_path), tmp_path / "state", 200)
    texts = replace(texts, other=dict(list(texts.other.items())[:1]))
    pair = pairs.RealPair("tiny", tiny_source, tiny_donor, donor=True)
    found = pairs.measure(RUN, pair, texts, tmp_path / "state")
    assert found["cost"]["peak_bytes"] > 0
    assert found["held"]["text"]["documents"] == 2
    assert set(found["other"]) == set(texts.other)
    assert list((tmp_path / "state/checkpoints").iterdir()) == []
    nowhere = replace(pair, source=tmp_path / "gone")
    assert pairs.measure(RUN, nowhere, texts, tmp_path / "state") == found
    assert json.loads(pairs.run_file(RUN, tmp_path / "state").read_text("utf-8")) == found
    with pytest.raises(subprocess.CalledProcessError):
        pairs.measure(replace(RUN, side="tied"), nowhere, texts, tmp_path / "state")
    assert "gone" in pairs.last_line(pairs.log_file(replace(RUN, side="tied"), tmp_path / "state"))
