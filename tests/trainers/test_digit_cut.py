"""A cut of digits in front of a tokenizer: what it cuts, what it leaves, what it refuses."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers import decoders as decoding
from transformers import AutoTokenizer

from tests.world import SENTENCES, byte_level_bpe, save_tokenizer
from tokensurgeon.errors import TokenizerError
from tokensurgeon.inspection import no_longer_reached
from tokensurgeon.trainers.counting.pretokenizers import SCHEME
from tokensurgeon.trainers.digit_cut import cut_digits, scheme_like
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary, vocabulary_from_tokenizer

GROUPS = {"single": r"\d", "left-3": r"\d{1,3}", "right-3": r"\d{1,3}(?=(?:\d{3})*$)"}
REAL = [("gpt2", "left-3")]
REAL += [(name, scheme) for name in ("minimind-6400", "spm-ja-8k") for scheme in GROUPS]
"""Two byte-level BPE, and a Unigram with a Metaspace."""
MORE = [f"{n} rows in {n * 37} ms; " for n in range(100, 160)] * 4


def numbers(seed: int = 3) -> list[str]:
    generator = random.Random(seed)
    return [str(generator.randrange(10 ** (n - 1), 10**n)) for n in range(1, 9) for _ in range(5)]


def runs(vocabulary: Vocabulary, number: str) -> list[str]:
    """Return the digits of each token of a number inside a text, as it decodes."""
    text = f"in {number} more"
    found = [vocabulary.bytes_of([i]).decode("utf-8", "ignore") for i in vocabulary.encode(text)]
    return ["".join(re.findall(r"\d", token)) for token in found if re.search(r"\d", token)]


@pytest.mark.parametrize(("name", "scheme"), REAL)
def test_no_token_crosses_the_cut_and_nothing_else_changes(
    name: str, scheme: str, assets: Path
) -> None:
    target = load_vocabulary(assets / "tokenizers" / name)
    cut = cut_digits(target, scheme)
    assert cut.number_scheme == scheme
    assert (cut.spellings, cut.token_bytes) == (target.spellings, target.token_bytes)
    assert cut.fingerprint == target.fingerprint
    for number in numbers():
        found = runs(cut, number)
        assert "".join(found) == number
        borders = {sum(map(len, found[:k])) for k in range(len(found))}
        wanted = {match.start() for match in re.finditer(GROUPS[scheme], number)}
        assert wanted <= borders
        assert scheme != "single" or wanted == borders
        text = f"in {number} more"
        assert cut.decode(cut.encode(text)) == target.decode(target.encode(text))
    for text in SENTENCES[:4]:
        if not re.search(r"\d", text):
            assert cut.encode(text) == target.encode(text)


def test_llama_3_takes_single_digits(assets: Path, tmp_path: Path) -> None:
    target = load_vocabulary(assets / "tokenizers" / "llama3")
    assert scheme_like(target) == "left-3"
    cut = cut_digits(target, "single")
    text = "In 2048, 1234567 of them; x12y 3.14159 = ½²\n"
    ids = cut.encode(text)
    assert cut.decode(ids) == text
    assert all(len(re.findall(rb"\d", cut.bytes_of([i]))) < 2 for i in ids)
    save_tokenizer(cut.tokenizer, tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.encode(text, add_special_tokens=False) == ids
    assert loaded.decode(ids) == text


def test_tokens_that_hold_longer_runs_are_no_longer_reached(assets: Path) -> None:
    target = load_vocabulary(assets / "tokenizers" / "minimind-6400")
    cut = cut_digits(target, "single")
    lost = set(no_longer_reached(target, cut))
    text = " ".join(numbers()) + "\n".join(f"x{n},{n}.{n}" for n in numbers(5))
    emitted = {i for i in target.encode(text) if re.search(rb"\d\d| \d", target.bytes_of([i]))}
    assert emitted
    assert emitted <= lost
    assert not lost & set(cut.encode(text))
    assert all(re.search(rb"\d", target.bytes_of([i])) for i in lost)
    assert no_longer_reached(target, target) == ()


def marked_bpe() -> Tokenizer:
    """Return a BPE with visible spaces, as SentencePiece's are, and tokens of several digits."""
    tokenizer = byte_level_bpe(400, texts=[*SENTENCES, *MORE], across_words=True)
    document = json.loads(tokenizer.to_str())
    table, merges = document["model"]["vocab"], document["model"]["merges"]

    def renamed(token: str) -> str:
        return token.replace("Ġ", "▁").replace("Ċ", "\n")

    document["model"]["vocab"] = {renamed(token): i for token, i in table.items()}
    document["model"]["merges"] = [[renamed(part) for part in pair] for pair in merges]
    document["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoding.Sequence([decoding.Replace("▁", " "), decoding.Fuse()])
    return tokenizer


@pytest.mark.parametrize("scheme", GROUPS)
def test_visible_spaces_without_a_pre_tokenizer(scheme: str) -> None:
    target = vocabulary_from_tokenizer(marked_bpe())
    assert target.number_scheme == "any"
    cut = cut_digits(target, scheme)
    text = "100 rows in 3700 ms; 159 rows in 5883 ms"
    assert cut.decode(cut.encode(text)) == text
    assert cut.encode(text) != target.encode(text)
    assert cut.encode("rows in ms; rows") == target.encode("rows in ms; rows")
    assert no_longer_reached(target, cut)


def test_a_target_that_cuts_so_already_is_left_as_it_is(assets: Path) -> None:
    target = load_vocabulary(assets / "tokenizers" / "llama2")
    assert target.number_scheme == "single"
    assert cut_digits(target, "single") is target


@pytest.mark.parametrize(
    ("name", "scheme", "why"),
    [
        ("llama2", "any", "no cut before its own, 'single', brings that about"),
        ("llama2", "left-3", "with that cut before its own, it is 'single'"),
        ("llama2", "left-2", "no cut before its own"),
        ("bert-base-uncased", "single", "would come back otherwise"),
        ("spm-en-1k", "single", "it is 'none'"),
    ],
)
def test_what_cannot_be_cut_so_is_refused(name: str, scheme: str, why: str, assets: Path) -> None:
    with pytest.raises(TokenizerError, match=why) as caught:
        cut_digits(load_vocabulary(assets / "tokenizers" / name), scheme)
    message = str(caught.value)
    assert "leave 'digits' at 'target'" in message
    assert "\n" not in message


def test_the_scheme_of_a_source_is_read_from_what_it_does(assets: Path) -> None:
    single = byte_level_bpe(300)
    single.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    assert scheme_like(vocabulary_from_tokenizer(single)) == "single"
    assert scheme_like(load_vocabulary(assets / "tokenizers" / "minimind-6400")) == "any"
    assert scheme_like(load_vocabulary(assets / "tokenizers" / "spm-en-1k")) == SCHEME
