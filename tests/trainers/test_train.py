"""Trained vocabularies lose nothing, cut digits as asked, and are the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tokensurgeon.cli.main import main
from tokensurgeon.cli.train import EDITS
from tokensurgeon.errors import CorpusError, OutputExistsError, SettingError, UnknownNameError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import DIGITS, METHODS, PRETOKENIZERS, Shape, train_vocabulary
from tokensurgeon.trainers.counting.held_out import EVERY, HeldOut
from tokensurgeon.trainers.counting.pretokenizers import pattern, pretokenizer
from tokensurgeon.trainers.training_methods import METHODS_BY_NAME
from tokensurgeon.vocabulary.hard_text import hard_texts

SENTENCES = (
    "The index is scanned from left to right, and every row that matches is returned.\n",
    "A table has 1024 rows and columns; a row that is locked cannot be changed by a session.\n",
    "for row in table:\n    if row.value == 3.14159:\n        return row  # größer\n",
    "Nothing is returned when no row matches, and the session goes on as it was before.\n",
)
CORPUS = corpus_of_texts(
    f"{i * 7919}: {SENTENCES[i % 4]}{SENTENCES[(i * 3 + 1) % 4]}" for i in range(60)
)
SIZE = 300
GERMAN = corpus_of_texts(
    f"{i * 6007}: Der Index wird gelesen, und jede Zeile, die passt, kommt zurück.\n"
    for i in range(60)
)
SIZES = {"wordpiece": 560, "bytes": 257}
LISTS = {"terms": ("index scan", "größer"), "morphemes": ("sess|ion", "return|ed", "un", "lock")}


def train(method, **settings):
    """Train a small vocabulary by any method, with what that method needs."""
    corpus = {"en": CORPUS, "de": GERMAN} if method == "parity" else CORPUS
    shape = Shape(terms=LISTS.get(method, ()), encoder=settings.pop("encoder", None))
    size = SIZES.get(method, SIZE)
    return train_vocabulary(corpus, method=method, size=size, shape=shape, **settings)


def pieces(preset, digits, text):
    # The spans are in characters of the text, whatever the pieces are spelled with.
    spans = [span for _, span in pretokenizer(pattern(preset, digits)).pre_tokenize_str(text)]
    return [text[start:end] for start, end in spans]


@pytest.fixture(scope="module")
def small():
    return {method: train(method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRETOKENIZERS)
def test_every_text_comes_back(method, preset):
    if preset == "none" and METHODS_BY_NAME[method].needs_words:
        with pytest.raises(SettingError, match="needs words"):
            train(method, pretokenizer=preset)
        return
    trained = train(method, pretokenizer=preset, digits="right-3")
    assert trained.size == SIZES.get(method, SIZE)
    assert trained.figures["hard_texts"] == len(hard_texts())


@pytest.mark.parametrize(
    "method", [name for name, each in METHODS_BY_NAME.items() if "min-tokens" in each.encoders]
)
def test_the_fewest_tokens_are_never_more_than_by_merges(small, method):
    fewest = train(method, encoder="min-tokens")
    assert fewest.figures["hard_texts"] == len(hard_texts())
    merged = small[method].tokenizer.get_vocab()
    if set(merged) == set(fewest.tokenizer.get_vocab()):
        for text in SENTENCES:
            n_merged = len(small[method].tokenizer.encode(text).ids)
            assert len(fewest.tokenizer.encode(text).ids) <= n_merged


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))
@pytest.mark.parametrize("method", METHODS)
def test_any_text_comes_back(small, method, text):
    tokenizer = small[method].tokenizer
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("preset", PRETOKENIZERS)
@pytest.mark.parametrize("digits", DIGITS)
def test_the_pieces_cover_the_text(preset, digits):
    for text in hard_texts():
        assert "".join(pieces(preset, digits, text)) == text


@pytest.mark.parametrize("preset", PRETOKENIZERS)
@pytest.mark.parametrize(
    ("digits", "text", "expected"),
    [
        ("left-3", "1234567", ["123", "456", "7"]),
        ("right-3", "1234567", ["1", "234", "567"]),
        ("right-3", "123456", ["123", "456"]),
        ("right-3", "12", ["12"]),
        ("right-3", "3.14159", ["3", ".", "141", "59"]),
        ("right-3", "1,234,567.8912", ["1", ",", "234", ",", "567", ".", "891", "2"]),
        ("right-3", "1.2.10234", ["1", ".", "2", ".", "10", "234"]),
        ("right-3", "10.12345.6", ["10", ".", "12", "345", ".", "6"]),
        ("right-3", "12-31-2026", ["12", "-", "31", "-", "2", "026"]),
        ("right-3", "1234.5678-9", ["1", "234", ".", "567", "8", "-", "9"]),
        ("right-3", "x1234y5678", ["x", "1", "234", "y", "5", "678"]),
        ("single", "3.14", ["3", ".", "1", "4"]),
        ("any", "1234567", ["1234567"]),
    ],
)
def test_digits_are_cut_as_asked(preset, digits, text, expected):
    assert pieces(preset, digits, text) == expected


def test_a_long_run_of_digits_takes_linear_time():
    assert len(pieces("cl100k", "right-3", "7" * 300_001)) == 100_001


@pytest.mark.parametrize("method", METHODS)
def test_the_same_text_gives_the_same_tokenizer_in_another_process(small, method):
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.trainers.test_train import train\n"
        f"print(train({method!r}, processes=1).fingerprint)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == small[method].fingerprint


def test_held_out_text_is_not_trained_on():
    documents = corpus_of_texts(str(i) * 9 for i in range(10, 55)).documents
    held = HeldOut()
    training = list(held.split("all", documents))
    assert sorted([*training, *held.documents["all"]], key=str) == sorted(documents, key=str)
    assert len(held.documents["all"]) == len(documents) // EVERY
    (one,) = corpus_of_texts(["line of text\n" * 100]).documents
    (head,) = held.split("one", [one])
    (tail,) = held.documents["one"]
    assert head.text + tail.text == one.text
    assert tail.text.startswith("line")


def test_of_much_held_out_text_the_lowest_hashes_stay_and_the_rest_is_trained_on():
    documents = corpus_of_texts(str(i) * 50 for i in range(100, 700)).documents
    few = HeldOut(max_bytes=1_000)
    training = list(few.split("all", documents))
    kept = few.documents["all"]
    assert sum(document.n_bytes for document in kept) <= 1_000
    assert {*training, *kept} == set(documents)
    assert len(training) + len(kept) == len(documents)
    every = HeldOut(max_bytes=10**9)
    list(every.split("all", documents))
    assert set(kept) < set(every.documents["all"])


def test_what_transformers_loads_is_what_was_trained(tmp_path, small):
    from transformers import AutoTokenizer

    for method, trained in small.items():
        folder = trained.write(tmp_path / method).path
        loaded = AutoTokenizer.from_pretrained(folder)
        for text in (SENTENCES[2], "  3.14159 é😀\r\n"):
            ids = trained.tokenizer.encode(text).ids
            assert loaded(text, add_special_tokens=False)["input_ids"] == ids
            assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids == ids
        assert loaded.eos_token_id == loaded.bos_token_id == 0
        assert len(loaded) == SIZES.get(method, SIZE)


def test_controls_come_first_with_their_roles(tmp_path):
    trained = train_vocabulary(
        CORPUS, size=SIZE, bos="<s>", eos="</s>", pad="<pad>", extra_controls=["<|im_start|>"]
    )
    vocabulary = trained.tokenizer.get_vocab()
    assert [vocabulary[c] for c in ("<s>", "</s>", "<pad>", "<|im_start|>")] == [0, 1, 2, 3]
    assert trained.config()["pad_token"] == "<pad>"


def test_the_folder_says_what_it_is(tmp_path, small):
    folder = small["bpe"].write(tmp_path / "words").path
    names = ["README.md", "seen.txt", "tokenizer.json", "tokenizer_config.json", "training.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    facts = json.loads((folder / "training.json").read_text("utf-8"))
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("# words\n")
    assert facts["corpus"]["sha256"] == CORPUS.sha256 in card
    assert f"{facts['figures']['bytes_per_token']:.3f}" in card
    assert facts["sha256"] == small["bpe"].fingerprint


def test_an_output_that_exists_is_kept_without_force(tmp_path, small):
    folder = small["bpe"].write(tmp_path / "words").path
    with pytest.raises(OutputExistsError, match="--force"):
        small["unigram"].write(folder)
    small["unigram"].write(folder, force=True)
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["type"] == "Unigram"
    assert [path.name for path in tmp_path.iterdir()] == ["words"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds no list of ours, and thesis\.txt"):
        small["bpe"].write(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_size_beyond_the_text_names_what_there_is():
    with pytest.raises(CorpusError, match=r"give [\d,]+ of 90,000 tokens"):
        train_vocabulary(CORPUS, size=90_000)


def test_a_size_below_the_bytes_is_refused():
    with pytest.raises(SettingError, match="258 to"):
        train_vocabulary(CORPUS, size=257)


def test_names_that_are_not_known_list_those_that_are():
    with pytest.raises(UnknownNameError, match="there are bpe, unigram"):
        train_vocabulary(CORPUS, method="bqe", size=SIZE)
    with pytest.raises(SettingError, match="is a letter of text"):
        train_vocabulary(CORPUS, size=SIZE, eos="e")


def test_the_recipe_allows_what_the_trainer_knows():
    from typing import get_args

    from tokensurgeon.recipe import TrainSpec

    fields = TrainSpec.model_fields
    assert get_args(fields["method"].annotation) == (*METHODS, *EDITS)
    assert get_args(fields["pretokenizer"].annotation) == PRETOKENIZERS
    cuts, nothing = get_args(fields["digits"].annotation)
    assert get_args(cuts) == (*DIGITS, "source")  # or as the source does, where one is named
    assert nothing is type(None)


def test_the_command_writes_and_says_what_it_measured(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(CORPUS.texts), "utf-8")
    arguments = ["train", "bpe", str(text), "--size", "300", "-o", str(tmp_path / "v")]
    first = CliRunner().invoke(main, [*arguments, "--json"])
    assert first.exit_code == 0, first.output
    data = json.loads(first.stdout)
    assert data["figures"]["stock_bpe_bytes_per_token"] > 1
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    forced = CliRunner().invoke(main, [*arguments, "--force"])
    assert forced.exit_code == 0
    assert f"{data['figures']['bytes_per_token']:.3f}" in forced.stdout
    unknown = CliRunner().invoke(main, ["train", "bqe", *arguments[2:]])
    assert unknown.exit_code == 2
    assert "'bpe', 'unigram'" in unknown.stderr
