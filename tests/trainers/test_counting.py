"""Laws of counting: as a plain count, whatever the processes, the memory and the interruptions."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.text.seen import Seen, line_hashes
from tokensurgeon.trainers.counting import executors, streams
from tokensurgeon.trainers.counting import in_memory as room
from tokensurgeon.trainers.counting.cutters import Chunks, Pieces
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.in_memory import count_segments
from tokensurgeon.trainers.counting.pretokenizers import counted_pattern, joined_pattern
from tokensurgeon.trainers.counting.weighted import WeightedText, multipliers
from tokensurgeon.trainers.mixture import Part, documents_of, parse_mixture, shares

WORDS = Pieces(counted_pattern("cl100k", "left-3"))
RUNS = Pieces(joined_pattern("cl100k", "left-3"), once=True)
CORPUS = corpus_of_texts(
    f"Document {i}: the value of {i * 7} is read, the value of {i % 5} is not.\n" * (i % 3 + 1)
    for i in range(60)
)


def count(corpus=CORPUS, cutters=None, **settings):
    documents = {"all": documents_of(corpus, "text")}
    return count_segments(documents, cutters or {"words": WORDS, "runs": RUNS}, **settings)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(streams, "BATCH_BYTES", 500)
    monkeypatch.setattr(executors, "ALONE_BYTES", 1_000)
    monkeypatch.setattr(room, "SAVE_BYTES", 1_000)


def test_words_are_counted_each_time_and_runs_once_a_document():
    found = count()
    words = Counter(word for text in CORPUS.texts for word in WORDS.cut(text))
    runs = Counter(run for text in CORPUS.texts for run in set(RUNS.cut(text)))
    assert found.tables == {"words": [words], "runs": [runs]}
    assert found.sha256 == CORPUS.sha256
    assert found.n_bytes == [CORPUS.n_bytes]
    assert found.n_lines == [sum(text.count("\n") for text in CORPUS.texts)]


def test_the_number_of_processes_changes_nothing(small_batches):
    one, two = count(processes=1), count(processes=2)
    assert one.tables == two.tables
    assert one.chain == two.chain
    assert one.seen.to_text() == two.seen.to_text()


def test_a_cut_off_count_goes_on(small_batches, tmp_path):
    state = tmp_path / "counts.json"

    def stopping(done, total, what):
        if done > 3_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count(processes=1, state=state, progress=stopping)
    kept = json.loads(state.read_text("utf-8"))
    assert 0 < kept["bytes"][0] < CORPUS.n_bytes
    whole = count(processes=1)
    assert count(processes=1, state=state).tables == whole.tables
    # Now the file holds it all, and nothing is counted again.
    seen = []
    again = count(processes=1, state=state, progress=lambda *said: seen.append(said))
    assert (again.tables, seen) == (whole.tables, [])
    with pytest.raises(CorpusError, match="of other text"):
        count(corpus_of_texts(reversed(CORPUS.texts)), state=state)
    with pytest.raises(CorpusError, match="of more text"):
        count(corpus_of_texts(CORPUS.texts[:5]), state=state)
    with pytest.raises(CorpusError, match="another method, cut or mixture"):
        count(cutters={"words": WORDS}, state=state)
    kept = json.loads(state.read_text("utf-8"))
    changes: dict[str, Any]
    for changes in (
        {"tables": []}, {"tables": {}}, {"tables": {"words": [{"a": []}]}}, {"bytes": 3},
        {"lines": []}, {"chain": None}, {"seen": "x\ny"}, {"dropped": {"words": "x"}},
    ):  # fmt: skip
        state.write_text(json.dumps({**kept, **changes}), "utf-8")
        with pytest.raises(CorpusError, match=r"counts\.json is damaged: .*; remove it"):
            count(state=state)
    for content in ("[]", "[" * 100_000):
        state.write_text(content)
        with pytest.raises(CorpusError, match="holds no counts"):
            count(state=state)


def test_memory_is_kept_to_and_what_is_dropped_is_said(small_batches):
    whole = count(processes=1)
    tight = count(processes=1, memory_gib=8_000 / 2**30)
    entries = sum(len(table) for tables in tight.tables.values() for table in tables)
    assert entries * room.ENTRY_BYTES <= 8_000
    for name, (table,) in tight.tables.items():
        lost = sum(whole.tables[name][0].values()) - sum(table.values())
        assert tight.dropped[name] == lost
    assert tight.dropped["words"] > 0
    # What is frequent stays.
    assert tight.tables["words"][0][" the"] == whole.tables["words"][0][" the"]


def test_held_out_documents_are_not_counted():
    held = HeldOut()
    found = count(held_out=held)
    out = [document.text for document in found.held_out["all"]]
    rest = [text for text in CORPUS.texts if text not in out]
    assert found.tables["words"][0] == Counter(w for text in rest for w in WORDS.cut(text))
    assert found.facts()["documents"] == 60


def test_chunks_are_words_put_together_and_the_draw_is_the_documents_own():
    cutter = Chunks(joined_pattern("cl100k", "left-3"), counted_pattern("cl100k", "left-3"), 3)
    text = CORPUS.texts[7]
    chunks = list(cutter.cut(text))
    assert "".join(chunks) == text
    assert chunks == list(cutter.cut(text))
    sizes = {len(list(WORDS.cut(chunk))) for chunk in chunks}
    assert sizes == {1, 2, 3}


def test_parts_weigh_what_the_mixture_says(tmp_path):
    for name, n in (("a", 10), ("b", 30)):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * n)
    parts = parse_mixture([f"one=3:{tmp_path}/a.txt", f"two=1:{tmp_path}/b.txt"])
    found = count_segments(
        {name: documents_of(part, "text") for name, part in parts.items()}, {"words": WORDS}
    )
    factors = multipliers(found.n_bytes, shares(parts))
    assert factors == [9.0, 1.0]
    table = WeightedText(found, factors).table("words", keep=True)
    assert dict(zip(table.segments, table.weights.tolist(), strict=True)) == {
        "a": 90, "b": 30, "\n": 120,
    }  # fmt: skip
    grouped = WeightedText(found, factors).table("words", grouped=True)
    assert grouped.weights[grouped.groups == 1].sum() == 60


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["de:"], "is no part"),
        (["de=x:a"], "is no part"),
        (["de=0:a"], "is no part"),
        (["de=1:a", "en:b"], "give all or none"),
        (["de=1:a", "de=2:b"], "two shares"),
    ],
)
def test_a_wrong_mixture_is_named(entries, message):
    with pytest.raises(SettingError, match=message):
        parse_mixture(entries)


def test_a_part_may_have_several_patterns():
    assert parse_mixture(["a=1:x", "a=1:y"]) == {"a": Part(("x", "y"), 1.0)}


def test_lines_that_were_seen_are_known_again(monkeypatch, tmp_path):
    from tokensurgeon.text import seen as module

    lines = [f"line number {i} is long enough to be told from any other" for i in range(400)]
    every = Seen(line_hashes(["\n".join(lines)]))
    assert every.share([lines[3], "another line that no one has ever seen before, at all"]) == 0.5
    monkeypatch.setattr(module, "MOST_LINES", 50)
    some = Seen(line_hashes(["\n".join(lines[:200])])).plus(line_hashes(["\n".join(lines[200:])]))
    assert len(some.hashes) == 50
    assert not some.complete
    assert some.share(["\n".join(lines)]) == 1.0
    assert some.share(["\n".join(line + "!" for line in lines)]) == 0.0
    (tmp_path / "seen.txt").write_text(some.to_text())
    loaded = Seen.load(tmp_path)
    assert loaded is not None
    assert loaded.to_text() == some.to_text()
    (tmp_path / "seen.txt").write_text("all lines\nxyz\n")
    with pytest.raises(CorpusError, match="holds no hashes"):
        Seen.load(tmp_path)
