"""Laws of extending and pruning: ids stay, text is spelled as before, more and fewer tokens."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.trainers.test_methods import CORPUS, LINES
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CorpusError, SettingError, TokenizerError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import extend_vocabulary, prune_vocabulary, train_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

OTHER = "Nothing here was ever part of that text: größer, 12345, \r\n\tx_y.\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "base"
    train_vocabulary(corpus_of_texts([OTHER * 3, *LINES[:40]]), size=300, output=folder)
    return folder


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_extending_keeps_every_id_and_spells_other_text_as_before(base, tmp_path):
    made = extend_vocabulary(base, CORPUS, size=360, output=tmp_path / "more")
    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    new = Tokenizer.from_file(str(tmp_path / "more" / "tokenizer.json"))
    before, after = old.get_vocab(), new.get_vocab()
    assert {token: after[token] for token in before} == before
    assert sorted(after.values()) == list(range(360))
    for text in (*hard_texts(), *LINES, OTHER):
        assert new.decode(ids(new, text), skip_special_tokens=False) == text
        if max(ids(new, text), default=0) < 300:
            assert ids(new, text) == ids(old, text)
    assert ids(new, OTHER) == ids(old, OTHER)
    figures = made.figures
    assert figures["lines_changed"] == 0
    assert figures["bytes_per_token"] > figures["base_bytes_per_token"]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "more")
    assert loaded(LINES[0])["input_ids"] == ids(new, LINES[0])
    assert loaded.eos_token == "<|endoftext|>"


def test_extending_across_words_says_how_much_other_text_drifts(base):
    made = extend_vocabulary(base, CORPUS, size=360, across=True)
    several = [t for t in made.tokenizer.get_vocab() if "Ġ" in t.strip("Ġ")]
    assert several
    assert made.figures["lines_changed"] <= made.figures["lines_without_new"]
    inside = extend_vocabulary(base, CORPUS, size=360)
    assert made.figures["bytes_per_token"] > inside.figures["bytes_per_token"]


@pytest.mark.parametrize("name", ["gpt2", "llama2", "storyllamas-4096"])
def test_real_tokenizers_can_be_extended(assets, name):
    folder = assets / "tokenizers" / name
    if not folder.exists():
        folder = assets / "models" / name
    old = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = max(old.get_vocab().values()) + 1 + 40
    made = extend_vocabulary(folder, CORPUS, size=size)
    new = made.tokenizer
    assert old.get_vocab().items() < new.get_vocab().items()
    assert ids(new, OTHER) == ids(old, OTHER)
    text = "".join(LINES)
    assert len(ids(new, text)) < len(ids(old, text))
    assert new.decode(ids(new, text)) == old.decode(ids(old, text))


@pytest.mark.parametrize("name", ["gpt2", "llama2", "bert-base-uncased", "t5-small"])
def test_pruned_tokenizers_spell_the_text_with_the_same_tokens(assets, name, tmp_path):
    folder = assets / "tokenizers" / name
    if not folder.exists():
        pytest.skip(f"{name} is not among the assets")
    made = prune_vocabulary(folder, CORPUS, output=tmp_path / "less")
    old = Tokenizer.from_file(str(folder / "tokenizer.json"))
    new = Tokenizer.from_file(str(tmp_path / "less" / "tokenizer.json"))
    kept = made.settings["old_ids"]
    assert len(kept) == new.get_vocab_size() < old.get_vocab_size() / 4
    for text in LINES:
        assert [kept[i] for i in new.encode(text).ids] == old.encode(text).ids
        assert new.decode(ids(new, text)) == old.decode(ids(old, text))
    for token in old.get_added_tokens_decoder().values():
        assert new.token_to_id(token.content) is not None


def test_what_cannot_be_done_is_named(base, assets, tmp_path):
    with pytest.raises(CorpusError, match="give more text, or add at most"):
        extend_vocabulary(base, CORPUS, size=50_000)
    with pytest.raises(SettingError, match="size is 300"):
        extend_vocabulary(base, CORPUS, size=300)
    with pytest.raises(TokenizerError, match="only a BPE"):
        extend_vocabulary(assets / "tokenizers" / "bert-base-uncased", CORPUS, size=40_000)
    with pytest.raises(SettingError, match="cannot be lifted"):
        extend_vocabulary(assets / "tokenizers" / "llama2", CORPUS, size=32_100, across=True)


def test_the_commands_write_and_refuse(base, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(LINES))

    def run(*arguments):
        return CliRunner().invoke(main, ["train", *arguments, str(text), "-o", f"{tmp_path}/out"])

    assert "give it with --base" in run("extend", "--size", "340").stderr
    assert "give one of --add and --size" in run("extend", "--base", str(base)).stderr
    assert "has 300 tokens" in run("prune", "--base", str(base), "--size", "301").stderr
    assert "are for prune" in run("bpe", "--size", "300", "--keep-script", "Latin").stderr
    assert "not for bpe" in run("bpe", "--base", str(base), "--size", "300").stderr
    done = run("extend", "--base", str(base), "--size", "340", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"]["base_size"] == 300
    done = run("prune", "--base", str(base), "--force")
    assert done.exit_code == 0, done.output
    assert "documents spelled otherwise" in done.stdout
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "without the tokens that a text never used" in card
