"""Control tokens: those of another tokenizer keep their ids; those in a text are not learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import AddedToken, processors
from transformers import AutoTokenizer

from tests.trainers.test_methods import CORPUS, LINES
from tests.trainers.test_train import GERMAN, LISTS, SIZES
from tests.vocabulary.tiny_tokenizers import TINY
from tests.world import byte_level_bpe, save_tokenizer
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import METHODS, Shape, extend_vocabulary, train_vocabulary
from tokensurgeon.trainers.trained import round_trips
from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
MARKED = corpus_of_texts(
    f"<|im_start|>user\n{line}<|im_end|>\n<s>{line}</s><|endoftext|>{line}.<|endoftext|>"
    for line in LINES[:150]
)
"""The lines as a dump of chats: every sign between two of them is a control string."""
MARKERS = ("endof", "im_s", "im_e", "start", "<|", "|>", "</", "s>")


def like_roberta(folder: Path) -> Path:
    """Save a tokenizer like RoBERTa's: the pad token is id 1, the mask is last, takes a space."""
    tokenizer = byte_level_bpe(310, ["<s>", "<pad>", "</s>", "<unk>"], LINES[:9])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return save_tokenizer(tokenizer, folder, **ROLES)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return like_roberta(tmp_path_factory.mktemp("roberta"))


def learn(method: str, corpus: Any, **settings: Any) -> Any:
    shape = Shape(terms=LISTS.get(method, ()))
    parts = {"en": corpus, "de": GERMAN} if method == "parity" else corpus
    size = {"characters": 300, **SIZES}.get(method, 330)
    return train_vocabulary(parts, method=method, size=size, shape=shape, **settings)


def spelled(trained: Any) -> list[str]:
    """Return the tokens of text."""
    controls = {token.content for token in trained.tokenizer.get_added_tokens_decoder().values()}
    return [token for token in trained.tokenizer.get_vocab() if token not in controls]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_learns_from_control_strings(method: str) -> None:
    trained = learn(method, MARKED, bos="<s>", eos="</s>")
    # CORPUS has none of these signs, so no token has them but the single bytes.
    several = [token.strip("⁃") for token in spelled(trained)]
    assert [t for t in several if len(t) > 1 and any(marker in t for marker in MARKERS)] == []
    assert trained.corpus["control_strings"] == {
        "<|endoftext|>": 300, "</s>": 150, "<s>": 150, "<|im_end|>": 150, "<|im_start|>": 150,
    }  # fmt: skip
    assert trained.figures["bytes_per_token"] > 0.9


def test_markers_of_others_are_learned_where_one_asks_for_it() -> None:
    trained = learn("bpe", MARKED, borders="own")
    assert trained.corpus["control_strings"] == {"<|endoftext|>": 300}
    assert any("<|" in token for token in spelled(trained))
    assert trained.settings["borders"] == "own"


def test_the_text_of_html_ends_where_its_tag_is_a_control_and_only_there() -> None:
    corpus = corpus_of_texts(f"<b>{line.strip()}</b> <s>no</s>\n" for line in LINES)
    as_text = learn("bpe", corpus)
    assert as_text.corpus["control_strings"] == {}
    assert any("</" in token for token in spelled(as_text))
    # As the tokenizer itself will read it.
    as_control = learn("bpe", corpus, eos="<s>", extra_controls=["</s>"])
    assert as_control.corpus["control_strings"] == {"</s>": 300, "<s>": 300}


def test_held_out_files_end_at_controls_too(tmp_path: Path) -> None:
    held = tmp_path / "held.txt"
    held.write_text("".join(f"{line}<|im_end|>" for line in LINES[:20]), "utf-8")
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(LINES[:20]), "utf-8")
    marked, unmarked = (learn("bpe", CORPUS, held_out=[file]) for file in (held, plain))
    assert marked.figures["held_out_bytes"] == unmarked.figures["held_out_bytes"]
    assert marked.figures["bytes_per_token"] == unmarked.figures["bytes_per_token"]
    held.write_text("<|im_end|><|im_end|>", "utf-8")
    with pytest.raises(CorpusError, match="holds control strings alone"):
        learn("bpe", CORPUS, held_out=[held])
    with pytest.raises(CorpusError, match="no text is left"):
        learn("bpe", corpus_of_texts(["<|im_end|>", "<|im_start|>"]))


def test_an_extended_base_learns_nothing_from_its_own_controls(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe(300, ["<s>", "</s>"], LINES[:9])
    tokenizer.add_special_tokens(["[TURN]"])
    base = save_tokenizer(tokenizer, tmp_path / "base", bos_token="<s>", eos_token="</s>")
    corpus = corpus_of_texts(f"[TURN]{line}</s>" for line in LINES)
    made = extend_vocabulary(base, corpus, size=340)
    assert made.corpus["control_strings"] == {"</s>": 300, "[TURN]": 300}
    new = [token for token, i in made.tokenizer.get_vocab().items() if i >= 301]
    assert [token for token in new if any(sign in token for sign in "[]<>/T")] == []


def test_it_is_said_on_the_card_and_by_the_command(tmp_path: Path) -> None:
    text = tmp_path / "chat.txt"
    lines = [f"<|im_start|>{line}<|im_end|>[/x]\n<|endoftext|>\n" for line in LINES]
    text.write_text("".join(lines), "utf-8")
    arguments = ["train", "bpe", str(text), "--size", "330", "-o", f"{tmp_path}/out"]
    shown = CliRunner().invoke(main, [*arguments, "--control", "[/x]"])
    assert shown.exit_code == 0, shown.output
    assert "300 <|im_end|> in the text" in shown.stdout
    assert "300 [/x] in the text" in shown.stdout
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "end a document: `<|endoftext|>` 300, `<|im_end|>` 300" in card
    own = CliRunner().invoke(main, [*arguments, "--borders", "own", "--force", "--json"])
    facts = json.loads(own.stdout)
    assert facts["corpus"]["control_strings"] == {"<|endoftext|>": 300}
    assert facts["settings"]["borders"] == "own"


@pytest.mark.parametrize("method", ["bpe", "unigram", "wordpiece", "pathpiece", "superbpe"])
def test_controls_of_another_tokenizer_keep_their_ids(
    method: str, roberta: Path, tmp_path: Path
) -> None:
    trained = learn(method, CORPUS, controls_of=roberta, output=tmp_path / "new")
    tokenizer = load_vocabulary(tmp_path / "new").tokenizer
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 310}
    assert {token: tokenizer.token_to_id(token) for token in ids} == ids
    assert sorted(tokenizer.get_vocab().values()) == list(range(trained.size))
    auto = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert {role: getattr(auto, role) for role in ROLES} == ROLES
    one, two = (tokenizer.encode(line, add_special_tokens=False).ids for line in LINES[:2])
    assert auto(LINES[0], LINES[1])["input_ids"] == [0, *one, 2, 2, *two, 2]
    row = tokenizer.encode("row", add_special_tokens=False).ids
    assert auto("row <mask>")["input_ids"] == [0, *row, 310, 2]  # the mask takes the space
    assert trained.settings["controls_of"] == str(roberta)


def test_without_room_for_an_id_the_lowest_free_one_is_taken(roberta: Path) -> None:
    trained = train_vocabulary(CORPUS, size=290, controls_of=roberta, eos="<end>")
    vocabulary = trained.tokenizer.get_vocab()
    first = sorted(vocabulary, key=lambda token: vocabulary[token])[:6]
    assert first == ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<end>"]
    assert trained.config()["eos_token"] == "<end>"
    assert trained.config()["pad_token"] == "<pad>"


@pytest.mark.parametrize("name", TINY)
def test_controls_of_any_tokenizer_can_be_taken(name: str, tmp_path: Path) -> None:
    source = load_vocabulary(save_tokenizer(TINY[name](), tmp_path / "source"))
    trained = train_vocabulary(CORPUS, size=420, controls_of=source, output=tmp_path / "new")
    new = load_vocabulary(tmp_path / "new")
    for role, i in source.roles.items():
        assert new.roles[role] == i, role
    around = source.tokenizer.encode("").ids
    assert new.tokenizer.encode("").ids == around
    assert trained.size == 420


def test_a_control_that_a_file_would_take_for_text_is_refused() -> None:
    for control, message in (
        ("Ġthe", "is how files spell ' the'"),
        ("", "is empty"),
        ("e", "letter"),
    ):
        with pytest.raises(SettingError, match=message):
            train_vocabulary(CORPUS, size=300, extra_controls=[control])
    assert train_vocabulary(CORPUS, size=300, extra_controls=["<été>"]).size == 300


def test_options_that_extend_and_prune_have_no_use_for_are_named(roberta: Path, tmp_path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("".join(LINES), "utf-8")
    common = [str(text), "--base", str(roberta), "-o", f"{tmp_path}/out"]
    for arguments, option in (
        (["extend", "--size", "330", "--control", "<|new|>"], "--control"),
        (["extend", "--size", "330", "--pretokenizer", "gpt2"], "--pretokenizer"),
        (["prune", "--controls-of", str(roberta)], "--controls-of"),
        (["prune", "--borders", "own"], "--borders"),
    ):
        refused = CliRunner().invoke(main, ["train", *arguments, *common])
        assert refused.exit_code == 2
        assert f"has no use for {option}: leave it out" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_control_that_takes_its_spaces_along_loses_no_text_of_others() -> None:
    """As ModernBERT's ``[UNK]``: a hard text that spells it is no text of the trained tokenizer."""
    tokenizer = byte_level_bpe(300, ("<s>",))
    assert round_trips(tokenizer) == len(hard_texts())
    tokenizer.add_special_tokens([AddedToken("[UNK]", lstrip=True, rstrip=True)])
    spelled = sum("[UNK]" in text for text in hard_texts())
    assert spelled
    assert round_trips(tokenizer) == len(hard_texts()) - spelled
