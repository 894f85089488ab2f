"""Laws of extending and pruning bases of every shape: no id moves, no control is lost or written.

Controls may stand before the model's tokens, behind them, or behind a hole; an added token may be
text; the file may pad, cut off and drop merges.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import AutoTokenizer

from tests.trainers.test_methods import CORPUS, LINES
from tests.vocabulary.tiny_tokenizers import TINY
from tests.world import byte_level_bpe, save_tokenizer
from tokensurgeon.errors import TokenizerError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import extend_vocabulary, prune_vocabulary
from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.written import check_written

OTHER = "Zwölf x_y; QWERTZ -- 7.\n"
"""Text in which no new token occurs: none of it is in the corpus."""
CHAT = ("<|im_start|>", "<|im_end|>", "<|reserved_0|>")


def behind() -> Tokenizer:
    """Like Qwen's and GPT-2 with chat markers: controls, one of them not special, come last."""
    tokenizer = byte_level_bpe(300, ["<|endoftext|>"], LINES[:9])
    tokenizer.add_special_tokens(list(CHAT))
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    return tokenizer


def whole_words() -> Tokenizer:
    """Like Llama 3's: all controls behind, words of the vocabulary without merging, a template."""
    document = json.loads(byte_level_bpe(290, [], LINES[:9]).to_str())
    document["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))],
    )
    return tokenizer


def text_added() -> Tokenizer:
    """Like Pythia's: runs of spaces, and a word of the corpus, are added tokens."""
    tokenizer = byte_level_bpe(290, ["<|endoftext|>"], LINES[:9])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=False) for n in (4, 2)])
    tokenizer.add_tokens([AddedToken("result", normalized=False, single_word=True)])
    return tokenizer


def holes() -> Tokenizer:
    """Ids are free before the last of the model's tokens, controls; one is an added token's."""
    document = json.loads(byte_level_bpe(290, ["<s>"], LINES[:9]).to_str())
    document["model"]["vocab"] |= {"<mask>": 300, "</s>": 310}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    document["added_tokens"] += [
        {"id": 300, "content": "<mask>", "special": True, **flags, "lstrip": True},
        {"id": 310, "content": "</s>", "special": True, **flags},
        {"id": 292, "content": "<|im_end|>", "special": True, **flags},
    ]
    return Tokenizer.from_str(json.dumps(document))


def first_and_last() -> Tokenizer:
    """Like RoBERTa's: most controls first, the mask last, and both named by the post-processor."""
    tokenizer = byte_level_bpe(300, ["<s>", "<pad>", "</s>", "<unk>"], LINES[:9])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def bounded() -> Tokenizer:
    """Like those of sentence encoders: the file pads, cuts off and drops merges."""
    tokenizer = first_and_last()
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=16)
    tokenizer.enable_truncation(16)
    model = tokenizer.model
    assert isinstance(model, models.BPE)
    model.dropout = 0.1
    return tokenizer


def tiny_and_behind(name: str) -> Tokenizer:
    tokenizer = TINY[name]()
    tokenizer.add_special_tokens(["<pad>", "<|im_end|>"])
    return tokenizer


BPES = {
    "behind": behind,
    "whole words": whole_words,
    "text added": text_added,
    "holes": holes,
    "first and last": first_and_last,
    "bounded": bounded,
    "sentencepiece": lambda: tiny_and_behind("sentencepiece_bpe"),
    "metaspace": lambda: tiny_and_behind("metaspace_first"),
    "end of word": lambda: tiny_and_behind("end_of_word"),
}
OTHERS = {
    "unigram": lambda: tiny_and_behind("unigram_bytes"),
    "unigram without bytes": lambda: tiny_and_behind("unigram_no_bytes"),
    "wordpiece": lambda: tiny_and_behind("wordpiece_lower"),
}


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    added = tokenizer.get_added_tokens_decoder()
    listed = {str(i): {"content": t.content, "special": t.special} for i, t in added.items()}
    return save_tokenizer(tokenizer, folder, added_tokens_decoder=listed)


def loaded(folder: Path) -> Tokenizer:
    return load_vocabulary(folder).tokenizer


def as_written(folder: Path) -> dict:
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))


@pytest.mark.parametrize("name", BPES)
def test_extending_moves_no_id_and_writes_no_control(name: str, tmp_path: Path) -> None:
    base = saved(BPES[name](), tmp_path / "base")
    before = load_vocabulary(base)
    old = before.tokenizer
    n_before = max(old.get_vocab().values()) + 1
    size = n_before + 30
    extend_vocabulary(base, CORPUS, size=size, output=tmp_path / "more")
    vocabulary = load_vocabulary(tmp_path / "more")
    new = vocabulary.tokenizer
    assert old.get_vocab().items() <= new.get_vocab().items()
    assert {*new.get_vocab().values()} - {*old.get_vocab().values()} == {*range(n_before, size)}
    text = "".join(LINES)
    assert len(new.encode(text).ids) < len(old.encode(text).ids)
    assert new.decode(new.encode(text).ids) == old.decode(old.encode(text).ids)
    controls = old.get_added_tokens_decoder()
    for token in controls.values():
        for around in (token.content, f"{OTHER}{token.content}{OTHER}"):
            assert new.encode(around).ids == old.encode(around).ids
        # Where a text only spells it, no control is written that was not before.
        spelled = {*vocabulary.encode(token.content)} - {*before.encode(token.content)}
        assert not spelled & controls.keys()
    if name != "bounded":  # its dropout is random
        auto = AutoTokenizer.from_pretrained(tmp_path / "more")
        assert auto(LINES[0] + CHAT[1])["input_ids"] == new.encode(LINES[0] + CHAT[1]).ids
    for part in ("padding", "truncation"):
        assert as_written(tmp_path / "more")[part] == as_written(base)[part]
    model, model_before = (as_written(folder)["model"] for folder in (tmp_path / "more", base))
    assert model.get("dropout") == model_before.get("dropout")
    card = (tmp_path / "more" / "README.md").read_text("utf-8")
    assert ("BPE dropout, as the base" in card) == (name == "bounded")


@pytest.mark.parametrize("name", [*BPES, *OTHERS])
def test_pruning_keeps_controls_and_gives_the_tokens_their_new_ids(
    name: str, tmp_path: Path
) -> None:
    base = saved((BPES | OTHERS)[name](), tmp_path / "base")
    old = loaded(base)
    corpus = corpus_of_texts([*LINES[:40], f"a{CHAT[1]}b{CHAT[1]}"])
    made = prune_vocabulary(base, corpus, output=tmp_path / "less")
    old_ids = made.settings["old_ids"]
    new = loaded(tmp_path / "less")
    assert old_ids == sorted(old_ids)
    assert sorted(new.get_vocab().values()) == [*range(len(old_ids))]
    assert all(old_ids[i] == old.token_to_id(token) for token, i in new.get_vocab().items())
    controls = [token.content for token in old.get_added_tokens_decoder().values()]
    for text in (*LINES[:40], *controls):
        assert [old_ids[i] for i in new.encode(text).ids] == old.encode(text).ids
        pair = new.encode(text, LINES[0])
        assert [old_ids[i] for i in pair.ids] == old.encode(text, LINES[0]).ids
    config = json.loads((tmp_path / "less" / "tokenizer_config.json").read_text("utf-8"))
    listed = config["added_tokens_decoder"]
    assert {entry["content"]: int(i) for i, entry in listed.items()} == {
        control: new.token_to_id(control) for control in controls
    }
    if name != "bounded":
        auto = AutoTokenizer.from_pretrained(tmp_path / "less")
        assert auto(LINES[0] + CHAT[1])["input_ids"] == new.encode(LINES[0] + CHAT[1]).ids
    assert made.corpus["control_strings"].get(CHAT[1], 0) == (2 if CHAT[1] in controls else 0)
    padding, padding_before = (
        as_written(folder)["padding"] for folder in (tmp_path / "less", base)
    )
    assert padding == padding_before if padding is None else old_ids[padding["pad_id"]] == 1


def test_a_control_that_only_the_configuration_or_the_template_names_is_kept(tmp_path) -> None:
    document = json.loads(byte_level_bpe(290, [], LINES[:9]).to_str())
    document["model"]["vocab"] |= {"</s>": 290, "<cls>": 291}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <cls>", pair="$A <cls> $B", special_tokens=[("<cls>", 291)]
    )
    base = save_tokenizer(tokenizer, tmp_path / "base", eos_token="</s>")
    prune_vocabulary(base, CORPUS, output=tmp_path / "less")
    pruned = load_vocabulary(tmp_path / "less")
    assert pruned.spellings[pruned.roles["eos"]] == "</s>"
    assert pruned.tokenizer.encode("a").tokens[-1] == "<cls>"


def test_a_base_whose_control_would_be_written_for_text_is_refused(tmp_path: Path) -> None:
    document = json.loads(byte_level_bpe(290, [], LINES[:9]).to_str())
    document["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<<<>>>"])  # one piece, so the model would find it whole
    base = saved(tokenizer, tmp_path / "base")
    with pytest.raises(TokenizerError, match="'<<<>>>' would be written for that text"):
        extend_vocabulary(base, CORPUS, size=310, output=tmp_path / "more")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_base_that_marks_what_continues_a_word_is_refused(tmp_path: Path) -> None:
    model = models.BPE({"a": 0, "##b": 1, "ab": 2}, [("a", "##b")], continuing_subword_prefix="##")
    base = save_tokenizer(Tokenizer(model), tmp_path / "base")
    with pytest.raises(TokenizerError, match="continues a word with '##'"):
        extend_vocabulary(base, CORPUS, size=300)


def test_what_would_be_refused_as_an_input_is_not_written(tmp_path: Path) -> None:
    document = json.loads(behind().to_str())
    n_before = behind().get_vocab_size()
    # New tokens after the added ones, which the library then gives the same ids.
    document["model"]["vocab"] |= {f"new{i}": n_before + i for i in range(len(CHAT) + 1)}
    trained = prune_vocabulary(saved(behind(), tmp_path / "base"), CORPUS)
    moved = replace(trained, tokenizer=Tokenizer.from_str(json.dumps(document)))
    with pytest.raises(
        TokenizerError, match=r"so it is not written: tokenizer\.json: .* the id 304"
    ):
        moved.write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_what_would_be_read_with_other_ids_is_not_written(tmp_path: Path) -> None:
    other = save_tokenizer(byte_level_bpe(300, ["<s>"], LINES[:9]), tmp_path)
    with pytest.raises(TokenizerError, match="has the id 0 and None when read"):
        check_written(other, behind())


@pytest.mark.parametrize("name", ["llama3", pytest.param("qwen2.5", marks=pytest.mark.sweep)])
def test_real_tokenizers_keep_every_id(assets: Path, name: str, tmp_path: Path) -> None:
    base = assets / "tokenizers" / name
    old = loaded(base)
    n_before = max(old.get_vocab().values()) + 1
    extend_vocabulary(base, CORPUS, size=n_before + 20, output=tmp_path / "more")
    new = loaded(tmp_path / "more")
    assert old.get_vocab().items() < new.get_vocab().items()
    for token in old.get_added_tokens_decoder().values():
        text = f"{OTHER}{token.content}{OTHER}"
        assert new.encode(text).ids == old.encode(text).ids
    assert len(new.encode("".join(LINES)).ids) < len(old.encode("".join(LINES)).ids)
    auto = AutoTokenizer.from_pretrained(tmp_path / "more")
    assert auto(LINES[0], add_special_tokens=False)["input_ids"] == new.encode(LINES[0]).ids
