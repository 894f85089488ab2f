"""Laws of what a pruned tokenizer keeps, over tokenizers of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.vocabulary.tiny_tokenizers import SENTENCES, TINY
from tests.world import save_tokenizer
from tokensurgeon.errors import SettingError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import prune_vocabulary

KINDS = sorted(set(TINY) - {"words", "characters"})
"""Those of which a token can be spelled by others."""


def base_of(tokenizer: Tokenizer, folder: Path) -> Path:
    return save_tokenizer(tokenizer, folder / "base")


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_kept_tokens_is_encoded_as_before_at_any_size(kind: str, tmp_path: Path) -> None:
    old = TINY[kind]()
    base = base_of(old, tmp_path)
    corpus = corpus_of_texts(SENTENCES[:2])
    n = prune_vocabulary(base, corpus).size
    total = len(old.get_vocab())
    for size in (n, n - 3, min(n + 5, total)):
        made = prune_vocabulary(base, corpus, size=size)
        ids = made.settings["old_ids"]
        assert made.size == len(ids) == size
        assert sum(made.figures["kept"].values()) == size
        for text in (*SENTENCES, *" ".join(SENTENCES).split()):
            before, after = old.encode(text).ids, made.tokenizer.encode(text).ids
            if set(before) <= set(ids) and kind != "wordpiece_lower":
                assert [ids[i] for i in after] == before
    assert prune_vocabulary(base, corpus).figures["documents_changed"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_below_what_must_be_kept_says_how_many_that_is(kind: str, tmp_path: Path) -> None:
    base = base_of(TINY[kind](), tmp_path)
    with pytest.raises(SettingError, match="that must be kept") as refused:
        prune_vocabulary(base, size=1)
    least = int(str(refused.value).rsplit("--size ", 1)[1].split(" ")[0].replace(",", ""))
    assert prune_vocabulary(base, size=least).size == least
    with pytest.raises(SettingError, match="too few"):
        prune_vocabulary(base, size=least - 1)


def test_tokens_that_a_wordpiece_takes_before_it_gives_up_are_kept(tmp_path: Path) -> None:
    pieces = ["[UNK]", "ab", "abc", "x", "##cd", "##yy", "never"]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    base = base_of(tokenizer, tmp_path)
    text = "Abcd ab xcd"
    assert tokenizer.encode(text).tokens == ["[UNK]", "ab", "x", "##cd"]
    made = prune_vocabulary(base, corpus_of_texts([text]))
    assert set(made.tokenizer.get_vocab()) == {"[UNK]", "ab", "abc", "x", "##cd"}
    assert made.tokenizer.encode(text).tokens == tokenizer.encode(text).tokens


def test_the_token_on_which_the_cost_of_the_unknown_depends_is_kept(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("ab", -2.5), ("zz", -20.0), ("yy", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    made = prune_vocabulary(base_of(tokenizer, tmp_path), corpus_of_texts(["ab"]))
    assert "zz" in made.tokenizer.get_vocab()
    assert "yy" not in made.tokenizer.get_vocab()


def test_the_command_keeps_scripts_and_sizes(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from tokensurgeon.cli.main import main

    base = base_of(TINY["byte_level"](), tmp_path)

    def facts(*words: str) -> Any:
        out = str(tmp_path / "out")
        arguments = ["train", "prune", "--base", str(base), *words, "-o", out, "--force", "--json"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    sized = facts("--size", "280")["settings"]
    assert sized["size"] == sized["size_asked"] == 280
    scripts = facts("--keep-script", "Latin")
    assert scripts["settings"]["scripts"] == ["Latin"]
    assert scripts["figures"]["kept"]["scripts"] > 0
    padded = facts("--keep-script", "Latin", "--pad-to-multiple-of", "8")
    assert padded["settings"]["size"] % 8 == 0
