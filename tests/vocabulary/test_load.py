"""Loading: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from tests.vocabulary.tiny_tokenizers import TINY, made
from tokensurgeon.alignment import align
from tokensurgeon.errors import TokenizerError, UnknownNameError
from tokensurgeon.vocabulary import Kind, load_vocabulary, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.parts import guarded


def write(folder: Path, name: str = "byte_level", change: Callable[[Any], None] | None = None):
    document = json.loads(TINY[name]().to_str())
    if change is not None:
        change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    return folder


def test_a_folder_and_its_file_are_the_same_vocabulary(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<|im_end|>"}')
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    folder, file = load_vocabulary(tmp_path), load_vocabulary(str(tmp_path / "tokenizer.json"))
    assert folder.fingerprint == file.fingerprint
    assert folder.eos_id == folder.pad_id == folder.id_of("<|im_end|>")
    assert folder.chat_template == "{{ bos_token }}"
    assert folder.folder == tmp_path
    assert folder.raw_config == {"eos_token": "<|im_end|>"}


def test_a_default_among_several_chat_templates_is_taken(tmp_path: Path) -> None:
    templates = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load_vocabulary(write(tmp_path)).chat_template == "D"


def duplicate_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = table[list(table)[60]]


def huge_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = 4_000_000_000


def distant_id(document: dict[str, Any]) -> None:
    document["model"]["vocab"]["far"] = 6_214_741


def negative_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = -1


def colliding_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "<|x|>", "id": 77})


def empty_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "", "id": 900})


def twice_added(document: Any) -> None:
    document["added_tokens"].append(document["added_tokens"][1])


def twice_added_otherwise(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][1], "id": 3})


def float_id(document: Any) -> None:
    document["added_tokens"][1]["id"] = 1.0


def true_id(document: Any) -> None:
    document["added_tokens"][1]["id"] = True


def renumbered_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "<|x|>", "id": 900})


def long_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = "a" * 3000


def piece_that_is_a_list(document: Any) -> None:
    document["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], [["a"], -1.0]]}


def merge_of_nothing(document: Any) -> None:
    document["model"]["merges"].append(["nothing", "known"])


def no_model(document: Any) -> None:
    del document["model"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (duplicate_id, "both have the id"),
        (huge_id, "4000000000"),
        (distant_id, r"the id 6214741; correct it, for ids of \d+ tokens are below 1\d{6}$"),
        (negative_id, "not an id"),
        (long_id, "not an id"),
        (piece_that_is_a_list, "a piece without text"),
        (colliding_added, "both have the id 77"),
        (empty_added, "without content"),
        (twice_added, r"lists the added token '<\|im_start\|>' twice, with the ids 1 and 1"),
        (
            twice_added_otherwise,
            r"lists the added token '<\|im_start\|>' twice, with the ids 1 and 3",
        ),
        (float_id, "not an id"),
        (true_id, "not an id"),
        (renumbered_added, "once loaded"),
        (merge_of_nothing, "cannot be loaded"),
        (no_model, "no model vocabulary"),
    ],
)
def test_ids_that_cannot_be_meant_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(TokenizerError, match=says) as caught:
        load_vocabulary(write(tmp_path, change=change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def template(token: str, *ids: int, **parts: Any) -> dict[str, Any]:
    special = {token: {"id": token, "ids": list(ids), "tokens": [token] * len(ids)}}
    one, first, second = (
        {"SpecialToken": {"id": token, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    plain = {"single": [one, first], "pair": [one, first, second], "special_tokens": special}
    return {"type": "TemplateProcessing", **plain, **parts}


def named(kind: str, cls: list[Any], sep: list[Any]) -> dict[str, Any]:
    more = {"trim_offsets": True, "add_prefix_space": True} if kind.startswith("R") else {}
    return {"type": kind, "cls": cls, "sep": sep, **more}


START, END = ["<|im_start|>", 1], ["<|im_end|>", 2]
NO_ID = {"<|im_start|>": {"id": "<|im_start|>", "ids": [], "tokens": ["<|im_start|>"]}}
SEQUENCE = [{"Sequence": {"id": "A", "type_id": 0}}]


@pytest.mark.parametrize(
    ("post", "says"),
    [
        (
            template("<nope>", 999),
            "'<nope>' around texts as id 999, which is no id: they end at 339",
        ),
        (template("<|im_start|>", 1, 340), "as id 340, which is no id: they end at 339"),
        (
            template("<|im_start|>", 2),
            r"'<\|im_start\|>' around texts as id 2, which is '<\|im_end",
        ),
        (template("<|im_start|>", 1, special_tokens={}), "'single' names .* and gives it no id"),
        (template("<|im_start|>", 1, single=SEQUENCE * 101), "'single' puts 101 parts together"),
        (template("<|im_start|>", *[1] * 200), "'single' puts 201 parts together"),
        (template("<|im_start|>", 1, single=SEQUENCE * 2), "holds the texts A and A instead of A"),
        (
            {"type": "Sequence", "processors": [template("<|im_start|>", 1)] * 2},
            "two templates, which fail on a pair of texts",
        ),
        (template("<|im_start|>", 1, special_tokens=NO_ID), "as id None, which is no id"),
        (template("<|im_start|>", 1, single=[]), "'single' holds the texts none instead of A"),
        (template("<|im_start|>", 1, pair=SEQUENCE), "'pair' holds the texts A instead of A and B"),
        (named("BertProcessing", ["<s>", 901], ["</s>", 900]), "'<s>' around texts as id 901"),
        (named("BertProcessing", START, ["</s>", 2]), "'</s>' around texts as id 2, which is"),
        (named("RobertaProcessing", START, ["</s>", 900]), "'</s>' around texts as id 900"),
        (
            {
                "type": "Sequence",
                "processors": [
                    template("<|im_start|>", 1),
                    {"type": "Sequence", "processors": [template("<nope>", 5000)]},
                ],
            },
            "as id 5000",
        ),
    ],
)
def test_ids_that_a_post_processor_puts_around_texts_are_checked(
    tmp_path: Path, post: Any, says: str
) -> None:
    def change(document: Any) -> None:
        document["post_processor"] = post

    with pytest.raises(TokenizerError, match=says) as caught:
        load_vocabulary(write(tmp_path, change=change))
    assert "\n" not in str(caught.value)


def test_sound_post_processors_load(tmp_path: Path) -> None:
    stages = [template("<|im_start|>", 1), named("RobertaProcessing", START, END)]
    label = template("start", 1)
    label["special_tokens"]["start"]["tokens"] = ["<|im_start|>"]
    for post in (*stages, label, {"type": "Sequence", "processors": stages[:1]}):

        def change(document: Any, post: Any = post) -> None:
            document["post_processor"] = post

        loaded = load_vocabulary(write(tmp_path, change=change))
        assert 1 in loaded.tokenizer.encode("the").ids


def test_stored_dropout_is_said_and_off(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["model"]["dropout"] = 0.9

    dropping = load_vocabulary(write(tmp_path, change=change))
    (note,) = dropping.notes
    assert "stores a BPE dropout of 0.9" in note
    plain = made("byte_level")
    assert dropping.fingerprint == plain.fingerprint
    for text in ("the cat sat on the mat", "numbers such as 2048"):
        assert [dropping.encode(text) for _ in range(9)] == [plain.encode(text)] * 9
    assert align(plain, dropping).warnings[0] == note
    # What is written is the tokenizer as it was measured.
    assert dropping.edited
    assert json.loads(dropping.tokenizer.to_str())["model"]["dropout"] is None


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_no_dropout_is_nothing_to_say(tmp_path: Path, dropout: float | None) -> None:
    def change(document: Any) -> None:
        document["model"]["dropout"] = dropout

    vocabulary = load_vocabulary(write(tmp_path, change=change))
    assert vocabulary.notes == ()
    assert not vocabulary.edited


def test_a_file_of_another_name_is_not_the_tokenizer_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "words")
    other = tmp_path / "other.json"
    TINY["byte_level"]().save(str(other))
    assert load_vocabulary(other).edited
    assert not load_vocabulary(tmp_path).edited


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = (write(tmp_path) / "tokenizer.json").read_text("utf-8")
    first, *_ = json.loads(text)["model"]["vocab"]
    twice = text.replace('"vocab": {', '"vocab": {' + f"{json.dumps(first)}: 299,", 1)
    (tmp_path / "tokenizer.json").write_text(twice, "utf-8")
    with pytest.raises(TokenizerError, match="twice, with two values"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_what_stands_beside_a_tokenizer_is_told_by_its_own_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path) / name
    path.write_bytes(b"{ \xff")
    with pytest.raises(TokenizerError, match=rf"{name} is not UTF-8 text: byte 2 is 0xff"):
        load_vocabulary(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(TokenizerError, match=f"{name} is a folder and no file"):
        load_vocabulary(tmp_path)


def test_a_huge_template_is_not_read(tmp_path: Path) -> None:
    with (write(tmp_path) / "chat_template.jinja").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja has more than 1 MiB"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.tiktoken"]
)
def test_no_file_is_read_past_its_bound(tmp_path: Path, name: str) -> None:
    if name != "vocab.tiktoken":
        write(tmp_path)
    with (tmp_path / name).open("ab") as file:
        if name == "vocab.tiktoken":
            file.write(b"YQ== 0\n")
        file.truncate(1 << 40)
    with pytest.raises(TokenizerError, match=f"{name} has more than 256 MiB"):
        load_vocabulary(tmp_path)


def test_a_device_is_no_file(tmp_path: Path) -> None:
    (write(tmp_path) / "chat_template.jinja").symlink_to("/dev/zero")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja is a device"):
        load_vocabulary(tmp_path)


def test_two_pieces_of_a_unigram_list_and_an_added_token_may_not_collide(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["added_tokens"].append({**document["added_tokens"][0], "content": "<q>", "id": 9})

    with pytest.raises(TokenizerError, match="both have the id 9"):
        load_vocabulary(write(tmp_path, "unigram_bytes", change))


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "not readable JSON"), ("[1]", "not an object"), ("[" * 50_000, "nested too deeply")],
)
def test_broken_json_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=says):
        load_vocabulary(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="save_pretrained"):
        load_vocabulary(tmp_path)


def test_a_folder_of_plain_files_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    vocabulary = load_vocabulary(tmp_path)
    assert vocabulary.token_bytes[5:] == (b" the", b" cat", b"s")
    assert vocabulary.roles["cls"] == 2


def test_a_path_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="neither a folder"):
        load_vocabulary(tmp_path / "nowhere" / "at all")
    with pytest.raises(TokenizerError, match="not a folder here"):
        load_vocabulary("nobody-at-all/no-such-model")


def test_a_panic_beneath_is_one_of_our_errors() -> None:
    class PanicException(BaseException):
        pass

    def panic() -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value\nat line 3")

    with pytest.raises(TokenizerError, match="here: called"):
        guarded("here", panic)
    with pytest.raises(KeyboardInterrupt):
        guarded("here", interrupt)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_regex_that_runs_away_is_one_of_our_errors(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("(a+)+$"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    with pytest.raises(TokenizerError, match="cannot be encoded: Onig"):
        vocabulary.encode("a" * 40 + "b")
    assert vocabulary.pieces_of(b"a" * 40 + b"b") is not None
    capfd.readouterr()


def test_a_stored_padding_of_a_million_is_off(tmp_path: Path) -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.enable_padding(length=1_000_000)
    tokenizer.enable_truncation(1)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load_vocabulary(tmp_path).encode("the cat")) < 8


def test_two_equal_pieces_of_a_unigram_list_are_one_token_and_one_unused_id() -> None:
    document = json.loads(TINY["unigram_bytes"]().to_str())
    entries = document["model"]["vocab"]
    twin = next(n for n, (piece, _) in enumerate(entries) if piece == "▁t")
    entries.append(list(entries[twin]))
    vocabulary = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    emitted = vocabulary.emits(b" t")
    assert emitted in (twin, len(entries) - 1, None)
    assert sorted(vocabulary.kinds[[twin, len(entries) - 1]].tolist()) == [
        Kind.ORDINARY,
        Kind.UNUSED,
    ]


def test_an_unknown_spelling_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"<\|im_start\|>"):
        made("byte_level").require_id("<|im_strat|>")


def test_a_number_of_very_many_digits_is_said_in_our_words(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": ' + "9" * 5000 + "}")
    with pytest.raises(TokenizerError, match="a number has more than 4,300 digits; restore"):
        load_vocabulary(folder)
