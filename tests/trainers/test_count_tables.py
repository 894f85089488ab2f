"""Tables of counts: as counting in memory, whatever was spilled, merged, cut off or taken over."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from tokensurgeon.cli.main import main
from tokensurgeon.errors import CorpusError, OutputExistsError, SettingError, UsageError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import (
    CountTables,
    count_corpus,
    import_counts,
    merge_counts,
    train_vocabulary,
)
from tokensurgeon.trainers.corpus_counts import import_cutter
from tokensurgeon.trainers.counting import count_corpus as room
from tokensurgeon.trainers.counting import count_tables, executors, stored, streams
from tokensurgeon.trainers.counting.count_corpus import workers_within
from tokensurgeon.trainers.counting.counted import LeftOut
from tokensurgeon.trainers.counting.cutters import Pieces
from tokensurgeon.trainers.counting.pretokenizers import counted_pattern
from tokensurgeon.trainers.learners import stock_models
from tokensurgeon.trainers.mixture import Part
from tokensurgeon.trainers.plan import Shape

WORDS = Pieces(counted_pattern("cl100k", "left-3"))
TEXTS = [
    f"Document {i}: the value of {i * 7} is read, the värld of {i % 5} is not 世界.\n" * (i % 3 + 1)
    for i in range(60)
]
CORPUS = corpus_of_texts(TEXTS)
SIZE = 330


def rows_of(folder: Path, table: str = "words", part: int = 0) -> dict[str, tuple[int, int]]:
    """Return the counts and documents of every segment of a table's part."""
    found: dict[str, tuple[int, int]] = {}
    for path in sorted((folder / table / f"part-{part:02d}").iterdir()):
        rows = parquet.read_table(path)
        segments = rows["segment"].to_pylist()
        assert segments == sorted(segments)
        assert not found.keys() & set(segments)
        pairs = zip(rows["count"].to_pylist(), rows["documents"].to_pylist(), strict=True)
        found |= dict(zip(segments, pairs, strict=True))
    return found


def plain(texts: list[str]) -> dict[str, tuple[int, int]]:
    """Return the same, counted by hand."""
    counts = Counter(word for text in texts for word in WORDS.cut(text))
    documents = Counter(word for text in texts for word in set(WORDS.cut(text)))
    return {word: (n, documents[word]) for word, n in counts.items()}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH_BYTES", 500)
    monkeypatch.setattr(executors, "ALONE_BYTES", 1_000)


@pytest.fixture
def little_memory(small_batches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PROCESS_BYTES", 0)


TIGHT = 20_000 / 2**30
"""GiB: full after a few batches."""


def test_tables_are_plain_counts(tmp_path: Path) -> None:
    counts = count_corpus(CORPUS, tmp_path / "counts", hold_out=False)
    assert rows_of(tmp_path / "counts") == plain(TEXTS)
    assert counts.counted.n_bytes == [CORPUS.n_bytes]
    assert CountTables.open(tmp_path / "counts").to_dict() == counts.to_dict()
    facts = counts.tables["words"]
    assert facts.rows == (len(plain(TEXTS)),)
    assert facts.occurrences == (sum(n for n, _ in plain(TEXTS).values()),)


def test_what_is_spilled_is_merged(little_memory: None, tmp_path: Path) -> None:
    runs: list[int] = []

    def look(done: int, total: int, what: str) -> None:
        runs.append(len(list((tmp_path / "tight.counting").glob("0*"))))

    for name, memory, say in (("roomy", 2.0, None), ("tight", TIGHT, look)):
        settings: dict[str, Any] = {
            "methods": ["superbpe", "supertoken"],
            "memory_gib": memory,
            "processes": 1,
        }
        count_corpus(CORPUS, tmp_path / name, progress=say or (lambda *_: None), **settings)
    assert max(runs) > 3
    for table in ("words", "runs", "chunks"):
        assert rows_of(tmp_path / "tight", table) == rows_of(tmp_path / "roomy", table)
    assert not (tmp_path / "tight.counting").exists()


@pytest.mark.parametrize("method", ["bpe", "superbpe", "supertoken", "lzw", "unigram", "pathpiece"])
def test_a_vocabulary_from_counts_is_that_of_the_text(method: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "method": method,
        "size": 280 if method == "unigram" else SIZE,
        "seed": 3,
    }
    from_text = train_vocabulary(CORPUS, **settings)
    count_corpus(CORPUS, tmp_path / "counts", methods=[method], seed=3)
    from_counts = train_vocabulary(from_counts=tmp_path / "counts", **settings)
    assert from_counts.tokenizer.to_str() == from_text.tokenizer.to_str()
    same = {key: from_text.figures[key] for key in ("bytes_per_token", "held_out_lines_seen")}
    assert {key: from_counts.figures[key] for key in same} == same
    assert from_counts.corpus == from_text.corpus
    assert from_counts.seen.to_text() == from_text.seen.to_text()


def test_a_mixture_keeps_its_shares(tmp_path: Path) -> None:
    for name, texts in (("a", TEXTS[:40]), ("b", TEXTS[20:])):
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    parts = {n: Part((str(tmp_path / f"{n}.jsonl"),), share) for n, share in (("a", 0.3), ("b", 2))}
    count_corpus(parts, tmp_path / "counts", methods=["parity", "bpe"])
    for method in ("parity", "bpe"):
        from_text = train_vocabulary(parts, method=method, size=SIZE)
        stored = train_vocabulary(from_counts=tmp_path / "counts", method=method, size=SIZE)
        assert stored.tokenizer.to_str() == from_text.tokenizer.to_str()


def test_a_cut_off_count_goes_on(little_memory: None, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def stopping(done: int, total: int, what: str) -> None:
        if done > 4_000:
            raise Killed

    settings: dict[str, Any] = {"memory_gib": TIGHT, "processes": 1, "hold_out": False}
    with pytest.raises(Killed):
        count_corpus(CORPUS, tmp_path / "counts", progress=stopping, **settings)
    state = json.loads((tmp_path / "counts.counting" / "state.json").read_text())
    assert 0 < state["sizes"]["bytes"][0] < CORPUS.n_bytes
    assert not (tmp_path / "counts").exists()
    with pytest.raises(CorpusError, match="of other settings"):
        count_corpus(CORPUS, tmp_path / "counts", digits="single", **settings)
    others = corpus_of_texts(list(reversed(TEXTS)))
    with pytest.raises(CorpusError, match="of other text"):
        count_corpus(others, tmp_path / "counts", **settings)
    with pytest.raises(CorpusError, match="of more text"):
        count_corpus(corpus_of_texts(TEXTS[:2]), tmp_path / "counts", **settings)
    begun: list[int] = []
    counts = count_corpus(
        CORPUS, tmp_path / "counts", progress=lambda done, *_: begun.append(done), **settings
    )
    assert begun[0] > state["sizes"]["bytes"][0]
    assert rows_of(tmp_path / "counts") == plain(TEXTS)
    assert counts.counted.n_documents == [len(TEXTS)]
    (tmp_path / "other.counting").mkdir()
    (tmp_path / "other.counting" / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no work of ours"):
        count_corpus(CORPUS, tmp_path / "other", **settings)


def test_pruned_counts_are_too_low_by_their_bound_at_most(
    little_memory: None, tmp_path: Path
) -> None:
    counts = count_corpus(
        CORPUS, tmp_path / "c", hold_out=False, memory_gib=TIGHT, prune=True, processes=1
    )
    facts, kept, whole = counts.tables["words"], rows_of(tmp_path / "c"), plain(TEXTS)
    assert facts.bound > 0
    lost = {word: n - kept.get(word, (0, 0))[0] for word, (n, _) in whole.items()}
    assert 0 < max(lost.values()) <= facts.bound
    assert min(lost.values()) == 0
    assert facts.dropped == sum(lost.values())


def test_merging_is_counting_both(tmp_path: Path) -> None:
    for name, texts in (("a", TEXTS[:35]), ("b", TEXTS[35:])):
        count_corpus(corpus_of_texts(texts), tmp_path / name, hold_out=False)
    merged = merge_counts([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert rows_of(tmp_path / "both") == plain(TEXTS)
    assert merged.counted.n_documents == [len(TEXTS)]
    weighed = merge_counts([tmp_path / "a", tmp_path / "b"], tmp_path / "w", weights=[3, 0.5])
    one, other = plain(TEXTS[:35]), plain(TEXTS[35:])
    for word, (n, _) in rows_of(tmp_path / "w").items():
        assert n == 3 * one.get(word, (0, 0))[0] + round(other.get(word, (0, 0))[0] / 2)
    assert weighed.counted.n_bytes[0] == sum(
        round(factor * sum(len(text.encode()) for text in texts))
        for factor, texts in ((3, TEXTS[:35]), (0.5, TEXTS[35:]))
    )


def test_what_was_counted_otherwise_is_not_merged(tmp_path: Path) -> None:
    count_corpus(CORPUS, tmp_path / "a")
    count_corpus(CORPUS, tmp_path / "b", digits="single")
    count_corpus(CORPUS, tmp_path / "c", controls=["<x>"])
    with pytest.raises(CorpusError, match="were cut otherwise"):
        merge_counts([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(CorpusError, match="end at other controls"):
        merge_counts([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
    with pytest.raises(SettingError, match="1 weights are given for 2 folders"):
        merge_counts([tmp_path / "a", tmp_path / "a"], tmp_path / "out", weights=[1.0])
    with pytest.raises(CorpusError, match=r"holds no counts\.json"):
        merge_counts([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_count_merge_and_train(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(TEXTS))

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, [*words, "-o", str(tmp_path / "out"), "--force", "--json"])

    counts = [str(tmp_path / name) for name in ("a", "b")]
    for folder in counts:
        count_corpus([tmp_path / "text.txt"], folder)
    merged = run("counts", "merge", *counts, "--weight", "1", "--weight", "2.5")
    assert merged.exit_code == 0, merged.stderr
    assert json.loads(merged.stdout)["settings"]["weights"] == [1.0, 2.5]
    for weight, says in (("nan", "no number to count with"), ("0", "range x>0")):
        refused = run("counts", "merge", counts[0], "--weight", weight)
        assert refused.exit_code == 2
        assert says in refused.stderr
    inside = train_into(Path(counts[0]) / "vocabulary", counts[0])
    assert "lie in each other" in inside


def train_into(output: Path, counts: str) -> str:
    """Train from counts into a folder that must be refused; return what is said."""
    command = ["train", "bpe", "--from-counts", counts, "--size", "300", "-o", str(output)]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 1
    assert not output.exists()
    return told.stderr


def write_table(path: Path, rows: dict[str, tuple[int, int]], types: pa.DataType) -> Path:
    """Write counts as another engine would, each segment in two rows."""
    segments = [*rows, *rows]
    halves = [n // 2 for n, _ in rows.values()]
    counts = [*halves, *(n - half for half, (n, _) in zip(halves, rows.values(), strict=True))]
    columns = {"segment": segments, "count": pa.array(counts, types), "more": counts}
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_table_of_another_engine_is_taken_over(tmp_path: Path) -> None:
    file = write_table(tmp_path / "words.parquet", plain(TEXTS), pa.int32())
    cutter = import_cutter("words", "cl100k", "left-3", Shape())
    made = import_counts([file], tmp_path / "counts", cutter, borders=CONTROLS)
    assert {w: n for w, (n, _) in rows_of(tmp_path / "counts").items()} == {
        word: n for word, (n, _) in plain(TEXTS).items()
    }
    assert made.counted.n_bytes == [CORPUS.n_bytes]
    (tmp_path / "held.txt").write_text(TEXTS[0])
    held: dict[str, Any] = {"held_out": [tmp_path / "held.txt"], "size": SIZE}
    told = train_vocabulary(from_counts=tmp_path / "counts", borders="own", **held)
    assert told.tokenizer.to_str() == train_vocabulary(CORPUS, **held).tokenizer.to_str()


CONTROLS = ("<|endoftext|>",)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"word": ["a"], "count": [1]}, r"has no column 'segment' \(it has word, count\)"),
        ({"segment": ["a"], "count": [1.5]}, "not of whole numbers"),
        ({"segment": ["a"], "count": [-1]}, "below 0"),
        ({"segment": [None], "count": [1]}, "without a segment"),
        ({"segment": ["two words"], "count": [1]}, "no segments of this pre-tokenizer"),
        ({"segment": pa.array([], pa.string()), "count": pa.array([], pa.int64())}, "no row"),
    ],
)
def test_a_table_that_is_none_is_refused(rows: dict, says: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(rows), tmp_path / "a.parquet")
    cutter = import_cutter("words", "cl100k", "left-3", Shape())
    with pytest.raises(CorpusError, match=says):
        import_counts([tmp_path / "a.parquet"], tmp_path / "counts", cutter)
    assert not (tmp_path / "counts").exists()


def test_counts_beyond_32_bits_train_as_scaled_down_ones(tmp_path: Path) -> None:
    rows, cutter = plain(TEXTS), import_cutter("words", "cl100k", "left-3", Shape())
    (tmp_path / "held.txt").write_text(TEXTS[0])
    found = []
    for name, factor in (("small", 1), ("large", 1 << 40)):
        scaled = {word: (factor * n, 1) for word, (n, _) in rows.items()}
        file = write_table(tmp_path / f"{name}.parquet", scaled, pa.uint64())
        import_counts([file], tmp_path / name, cutter, borders=CONTROLS)
        counted = rows_of(tmp_path / name)
        assert {word: n for word, (n, _) in counted.items()} == {
            w: n for w, (n, _) in scaled.items()
        }
        for method in ("bpe", "characters"):
            made = train_vocabulary(
                from_counts=tmp_path / name,
                method=method,
                size=SIZE,
                held_out=[tmp_path / "held.txt"],
                borders="own",
            )
            found.append(made.tokenizer.to_str())
    assert found[:2] == found[2:]
    over = {"segment": ["a", "b"], "count": pa.array([1 << 62, 1 << 63], pa.uint64())}
    parquet.write_table(pa.table(over), tmp_path / "over.parquet")
    with pytest.raises(CorpusError, match="is the most: take counts divided"):
        import_counts([tmp_path / "over.parquet"], tmp_path / "over", cutter)


def test_what_a_stock_trainer_is_fed_is_scaled_down_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_corpus(CORPUS, tmp_path / "one")
    merge_counts([tmp_path / "one"], tmp_path / "many", weights=[1 << 20])
    made = []
    for name in ("one", "many"):
        monkeypatch.setattr(stock_models, "MOST_FED", 5_000)
        made.append(train_vocabulary(from_counts=tmp_path / name, method="unigram", size=280))
    assert "counts_divided_by" not in made[0].corpus
    assert made[1].corpus["counts_divided_by"] > 1 << 18
    assert made[0].tokenizer.get_vocab().keys() == made[1].tokenizer.get_vocab().keys()


def test_of_tables_that_do_not_fit_the_frequent_part_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_corpus(CORPUS, tmp_path / "counts")
    rows = rows_of(tmp_path / "counts")
    monkeypatch.setattr(stored, "ROW_BYTES", 0)
    monkeypatch.setattr(stored, "LETTER_BYTES", 1)
    monkeypatch.setattr(stored, "LEARNED_BYTES", 0)
    monkeypatch.setattr(count_tables, "PROCESS_BYTES", 0)
    frequent = {word: n for word, (n, _) in rows.items() if n > 3}
    fits = sum(len(word.encode()) for word in frequent) / 2**30
    read = counts.for_training({"words": WORDS}, counts.borders, fits)
    table: Any = read.tables["words"][0]
    segments, left_out = table.load()
    assert dict(zip(segments.segments, segments.weights.tolist(), strict=True)) == frequent
    rare = {word: n for word, (n, _) in rows.items() if n <= 3}
    assert left_out.weight == sum(rare.values())
    assert (left_out.below, left_out.segments) == (min(frequent.values()), len(rare))
    assert_bounded(rare, left_out.pairs)
    assert segments.segments == sorted(frequent)
    trained = train_vocabulary(from_counts=tmp_path / "counts", size=280, memory_gib=fits)
    assert trained.corpus["dropped_occurrences"]["words"] == left_out.weight
    assert trained.corpus["left_out"]["words"]["pair_too_low_by"] == left_out.pairs


def assert_bounded(rare: dict[str, int], pairs: int) -> None:
    """Assert that no pair of bytes occurs more often in some words, and one as often."""
    found: Counter[bytes] = Counter()
    for word, n in rare.items():
        data = word.encode()
        for left, right in pairwise(data):
            found[bytes([left, right])] += n
    assert pairs == max(found.values())


def test_of_rare_runs_some_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{chr(97 + i % 26)}{chr(97 + i // 26)} and so on\nas ever\n" for i in range(600)]
    counts = count_corpus(
        corpus_of_texts(texts), tmp_path / "counts", methods=("superbpe",), hold_out=False
    )
    rows = {run: n for run, (_, n) in rows_of(tmp_path / "counts", "runs").items()}
    rare = {run for run, n in rows.items() if n == 1}
    assert len(rare) > 500
    monkeypatch.setattr(stored, "ROW_BYTES", 1)
    monkeypatch.setattr(stored, "LETTER_BYTES", 0)
    folder = tmp_path / "counts" / "runs" / "part-00"
    whole, nothing = stored.StoredTable(folder, "documents", len(rows)).load()
    assert nothing == LeftOut()
    assert dict(zip(whole.segments, whole.weights.tolist(), strict=True)) == rows
    segments, left_out = stored.StoredTable(folder, "documents", 200).load()
    read = dict(zip(segments.segments, segments.weights.tolist(), strict=True))
    assert left_out.one_in == -(-len(rare) // 100)
    assert left_out.segments == len(rows) - len(read)
    assert all(n == rows[run] for run, n in read.items() if run not in rare)
    assert {n for run, n in read.items() if run in rare} == {left_out.one_in}
    # Of 600 singles one in six, six times: 600, with a standard error of sqrt(600 · 5).
    assert abs(segments.weights.sum() - sum(rows.values())) < 4 * (len(rare) * 5) ** 0.5
    assert counts.tables["runs"].rows == (len(rows),)


def test_a_mixture_scales_what_is_left_out() -> None:
    both = LeftOut(2, 10, 10, 45).plus(LeftOut(3, 4, 8, 9), 1.5)
    assert both == LeftOut(3, 14, 22, 59)


def test_memory_that_workers_alone_exceed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"4 workers take 0.99 GiB .* raise --memory-gib"):
        count_corpus(CORPUS, tmp_path / "c", memory_gib=0.9, processes=4)
    assert workers_within(0.9, 64) == 3
    assert workers_within(0.01, 64) == 1
    assert not (tmp_path / "c").exists()


def test_counts_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    count_corpus(CORPUS, tmp_path / "counts")
    serve: dict[str, Any] = {"from_counts": tmp_path / "counts", "size": SIZE}
    with pytest.raises(CorpusError, match=r"has no runs cut .* \(it was counted for bpe\)"):
        train_vocabulary(method="superbpe", **serve)
    with pytest.raises(CorpusError, match="ends at '<x>', which is a control here: count again"):
        train_vocabulary(extra_controls=["<x>"], **serve)
    with pytest.raises(SettingError, match="either a text or counts"):
        train_vocabulary(CORPUS, **serve)
    with pytest.raises(SettingError, match="dna cuts words otherwise than bpe"):
        count_corpus(CORPUS, tmp_path / "two", methods=["bpe", "dna"])
    with pytest.raises(OutputExistsError):
        count_corpus(CORPUS, tmp_path / "counts")
    with pytest.raises(UsageError, match="no engine 'spark'"):
        count_corpus(CORPUS, tmp_path / "two", engine="spark")
    with pytest.raises(UsageError, match="add --engine dask"):
        count_corpus(CORPUS, tmp_path / "two", scheduler="tcp://127.0.0.1:1")
    shutil.copy(tmp_path / "counts" / "words" / "part-00" / "shard-00.parquet", tmp_path / "x")
    (tmp_path / "counts" / "words" / "part-00" / "shard-00.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=r"shard-00\.parquet is damaged"):
        train_vocabulary(**serve)
    (tmp_path / "counts" / "counts.json").write_text('{"parts": []}')
    with pytest.raises(CorpusError, match=r"counts\.json is damaged"):
        CountTables.open(tmp_path / "counts")
    assert not (tmp_path / "two").exists()
    assert not (tmp_path / "two.counting").exists()


def test_the_number_of_workers_changes_nothing(small_batches: None, tmp_path: Path) -> None:
    for n in (1, 2):
        count_corpus(CORPUS, tmp_path / str(n), processes=n, methods=["superbpe"])
    one, two = (
        {
            path.name: path.read_bytes()
            for path in sorted((tmp_path / n / "runs" / "part-00").iterdir())
        }
        for n in ("1", "2")
    )
    assert one == two
    assert len(rows_of(tmp_path / "1", "runs")) > len(TEXTS)
