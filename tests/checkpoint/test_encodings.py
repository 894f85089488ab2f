"""Users get the whole encodings that the model was trained on, not only the right ids of a text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from tests.world import (
    N_ROWS,
    SENTENCES,
    byte_level_bpe,
    make_model,
    permute,
    plan_of,
    save_tokenizer,
)
from tokensurgeon.checkpoint import Checkpoint, recheck, write_checkpoint
from tokensurgeon.checkpoint import chat_template as templates
from tokensurgeon.checkpoint.chat_template import literals, try_template
from tokensurgeon.checkpoint.encodings import difference, whole_encodings
from tokensurgeon.checkpoint.post_processor import template, with_second_type, without_end
from tokensurgeon.errors import TokenizerError, UnknownNameError
from tokensurgeon.vocabulary import load_vocabulary

PAIR = ("the index is scanned", "a row that is locked")
LANGUAGES = ["eng_Latn", "deu_Latn", "tur_Latn"]
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def moved_rows(source: Path, target: Path, out: Path, **changes: Any) -> Any:
    """Write the source with the rows of the target's ids, by spelling."""
    before, after = load_vocabulary(source), load_vocabulary(target)
    taken = np.array([-1 if s is None else before.id_of(s) or 0 for s in after.spellings])
    plan = plan_of(Checkpoint.open(source), after, taken, **changes)
    return write_checkpoint(plan, out)


def rewritten(folder: Path, to: Path, config: dict[str, Any] = {}, **document: Any) -> Path:  # noqa: B006
    """Copy a tokenizer with parts of tokenizer.json and of its configuration changed."""
    to.mkdir()
    stored = json.loads((folder / "tokenizer.json").read_text())
    (to / "tokenizer.json").write_text(json.dumps({**stored, **document}))
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    (to / "tokenizer_config.json").write_text(json.dumps({**stored, **config}))
    return to


def config_of(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
    return stored


def without_length(tokenizer: Any) -> dict[str, Any]:
    """Return whole encodings without the longest text, which a written folder always names."""
    fields = whole_encodings(tokenizer)
    del fields["model_max_length"]
    return fields


def piece_tokenizer(model: Any, trainer: Any, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    unknown = {"unk_token": "<unk>"} if trainer is trainers.UnigramTrainer else {}
    tokenizer.train_from_iterator(
        SENTENCES,
        trainer(vocab_size=200, special_tokens=specials, show_progress=False, **unknown),
    )
    return tokenizer


# BERT: type ids


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=160, special_tokens=list(BERT_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    transformers.BertTokenizer(vocab=tokenizer.get_vocab()).save_pretrained(folder)
    torch.manual_seed(3)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=64, num_labels=3,
            initializer_range=0.5,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def scores(folder: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        result: np.ndarray = model(**tokenizer(*PAIR, return_tensors="pt")).logits.numpy()
    return result


@pytest.mark.parametrize("target", ["own", "no class", "no template", "no type ids", "other ids"])
def test_a_cross_encoder_gives_the_same_scores_to_pairs(
    cross_encoder: Path, tmp_path: Path, target: str
) -> None:
    generic = {"tokenizer_class": "TokenizersBackend"}
    cls, sep = map(BERT_TOKENS.index, ("[CLS]", "[SEP]"))
    plain = template(["[CLS]"], ["[SEP]"], ["[SEP]"], {"[CLS]": cls, "[SEP]": sep})
    named = {"type": "BertProcessing", "cls": ["[CLS]", cls], "sep": ["[SEP]", sep]}
    make: dict[str, Callable[[Path], Path]] = {
        "own": lambda to: rewritten(cross_encoder, to),
        "no class": lambda to: rewritten(cross_encoder, to, generic, post_processor=named),
        "no template": lambda to: rewritten(cross_encoder, to, generic, post_processor=None),
        "no type ids": lambda to: rewritten(cross_encoder, to, generic, post_processor=plain),
        "other ids": lambda to: permute(rewritten(cross_encoder, tmp_path / "own", generic), to),
    }
    moved_rows(cross_encoder, make[target](tmp_path / "target"), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert sorted(set(tokenizer(*PAIR)["token_type_ids"])) == [0, 1]
    np.testing.assert_allclose(scores(tmp_path / "out"), scores(cross_encoder), atol=1e-5)


def test_a_model_without_type_ids_is_not_given_any(
    model_of: Callable[..., Path], cross_encoder: Path, tmp_path: Path
) -> None:
    moved_rows(model_of(), cross_encoder, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert sorted(tokenizer(*PAIR)) == ["attention_mask", "input_ids"]


# Languages of translation


def translation_model(folder: Path, tokenizer: Any) -> Path:
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = json.loads(piece_tokenizer(models.BPE(), trainers.BpeTrainer, specials).to_str())
    tokenizer = transformers.NllbTokenizer(
        vocab=trained["model"]["vocab"],
        merges=[tuple(merge) for merge in trained["model"]["merges"]],
        additional_special_tokens=LANGUAGES,
        src_lang="eng_Latn",
    )
    folder = translation_model(tmp_path_factory.mktemp("nllb"), tokenizer)
    stored = config_of(folder)
    stored["additional_special_tokens"] = LANGUAGES
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    return folder


@pytest.mark.parametrize("target", ["own", "no class", "no template"])
def test_setting_a_language_has_its_effect(nllb: Path, tmp_path: Path, target: str) -> None:
    other: dict[str, Any] = {}
    config = {} if target == "own" else {"tokenizer_class": "TokenizersBackend"}
    if target == "no template":
        other["post_processor"] = None
    result = moved_rows(nllb, rewritten(nllb, tmp_path / "target", config, **other), tmp_path / "o")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (nllb, tmp_path / "o"))
    assert type(after).__name__ == "NllbTokenizer", result.warnings
    for tokenizer in (before, after):
        tokenizer.src_lang = "tur_Latn"
    assert after("a row").tokens()[0] == "tur_Latn"
    assert without_length(after) == without_length(before)


def test_a_class_that_reads_the_file_otherwise_is_told_with_what_is_lost(tmp_path: Path) -> None:
    """NLLB's class merges pieces by BPE; a Unigram file would come out letter by letter."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", *LANGUAGES, "<mask>"]
    model = piece_tokenizer(models.Unigram(), trainers.UnigramTrainer, specials)
    own = save_tokenizer(model, tmp_path / "own", pad_token="<pad>", unk_token="<unk>")
    loaded = AutoTokenizer.from_pretrained(own)
    folder = translation_model(tmp_path / "model", loaded)
    said = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": LANGUAGES}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config_of(folder), **said}))
    result = moved_rows(folder, folder, tmp_path / "out")
    assert config_of(tmp_path / "out")["tokenizer_class"] == "TokenizersBackend"
    lines = [line for line in result.warnings if "NllbTokenizer is not kept" in line]
    assert len(lines) == 1
    assert "src_lang" in lines[0]
    assert "other ids" in lines[0]


# What stands at the end of a prompt

ENDS: dict[str, Any] = {
    "template": template(["<s>"], ["</s>"], ["</s>"], {"<s>": 0, "</s>": 1}),
    "sequence": {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
             "use_regex": True},
            template(["<s>"], [], ["</s>"], {"<s>": 0, "</s>": 1}),
        ],
    },
    "bert": {"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1]},
    "roberta": {"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1],
                "trim_offsets": True, "add_prefix_space": False},
    "two ends": template(["<s>"], [], ["x", "</s>"], {"<s>": 0, "</s>": 1, "x": 89}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("whose", ["source", "target"])
def test_a_prompt_does_not_end_in_a_token_that_the_source_did_not_put_there(
    model_of: Callable[..., Path], tmp_path: Path, kind: str, whose: str
) -> None:
    source, target = model_of(), tmp_path / "target"
    rewritten(source, target, {"add_eos_token": True}, post_processor=ENDS[kind])
    text = "every row"
    wanted = AutoTokenizer.from_pretrained(target)(text)["input_ids"]
    assert wanted[-1] == 1
    result = moved_rows(source, target, tmp_path / "out", special_tokens=whose)
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"]
    plain = load_vocabulary(source).encode(text)
    assert ids == ([0, *plain] if whose == "source" else wanted)
    assert config_of(tmp_path / "out")["add_eos_token"] is (whose == "target")
    line = next(line for line in result.warnings if "ends every text with" in line)
    assert ("--special-tokens target" if whose == "source" else "add_special_tokens=False") in line


def test_an_end_that_the_source_has_too_stays(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = shutil.copytree(model_of(), tmp_path / "source")
    ended = rewritten(source, tmp_path / "target", post_processor=ENDS["template"])
    shutil.copyfile(ended / "tokenizer.json", source / "tokenizer.json")
    result = moved_rows(source, ended, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("row")["input_ids"][-1] == 1
    assert not any("ends every text" in line for line in result.warnings)
    result = moved_rows(source, model_of(), tmp_path / "none")
    assert any("the source's tokenizer ends every text with </s>" in w for w in result.warnings)


def test_generation_goes_on_from_a_prompt_that_is_encoded_by_default(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    target = rewritten(model_of(), tmp_path / "target", post_processor=ENDS["bert"])
    moved_rows(model_of(), target, tmp_path / "out")
    prompt = AutoTokenizer.from_pretrained(tmp_path / "out")("every row", return_tensors="pt")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.eos_token_id not in prompt["input_ids"][0, -1:]
    assert model.generate(**prompt, max_new_tokens=2, do_sample=False).shape[1] > 3


def test_an_encoder_keeps_its_end(cross_encoder: Path, tmp_path: Path) -> None:
    moved_rows(cross_encoder, cross_encoder, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("row").tokens()[-1] == "[SEP]"


def test_post_processors_are_changed_as_json() -> None:
    assert without_end(None) is None
    ended = ENDS["template"]
    assert without_end(without_end(ended)) == without_end(ended)
    marked = with_second_type(ended)
    assert [next(iter(p.values()))["type_id"] for p in marked["pair"]] == [0, 0, 0, 1, 1]
    assert marked["single"] == ended["single"]
    for post in (None, ENDS["sequence"]["processors"][0], *ENDS.values()):
        tokenizer = byte_level_bpe(300, ["<s>", "</s>"])
        document = {**json.loads(tokenizer.to_str()), "post_processor": with_second_type(post)}
        pair = Tokenizer.from_str(json.dumps(document)).encode("a", "b")
        assert pair.type_ids[0] == 0
        assert pair.type_ids[-1] == 1


# What the model expects


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation_are_on_the_sources_side(
    model_of: Callable[..., Path], tmp_path: Path, side: str
) -> None:
    other = {"left": "right", "right": "left"}[side]
    source = rewritten(
        model_of(), tmp_path / "tokenizer", {"padding_side": side, "truncation_side": side}
    )
    source = shutil.copytree(model_of(), tmp_path / "source", dirs_exist_ok=True)
    stored = {**config_of(source), "padding_side": side, "truncation_side": side}
    (source / "tokenizer_config.json").write_text(json.dumps(stored))
    settings = {"padding_side": other, "truncation_side": other, "pad_token": "</s>"}
    target = rewritten(model_of(), tmp_path / "target", settings)
    moved_rows(source, target, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(["every row", "a"], padding=True)["attention_mask"][1]
    assert batch[0 if side == "left" else -1] == 0
    assert tokenizer.truncation_side == side


def test_a_start_that_the_target_lacks_is_told(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = shutil.copytree(model_of(), tmp_path / "source")
    started = rewritten(
        source, tmp_path / "started", post_processor=template(["<s>"], [], [], {"<s>": 0})
    )
    shutil.copyfile(started / "tokenizer.json", source / "tokenizer.json")
    result = moved_rows(source, model_of(), tmp_path / "out")
    line = next(line for line in result.warnings if "starts every text with <s>" in line)
    assert "add_bos_token=True" in line
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out", add_bos_token=True)
    assert loaded("row")["input_ids"][0] == 0


def test_a_field_that_differs_is_named(cross_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    wanted = whole_encodings(tokenizer)
    assert difference(wanted, whole_encodings(tokenizer)) is None
    tokenizer.padding_side = "left"
    assert difference(wanted, whole_encodings(tokenizer)).startswith(
        "input_ids of a padded batch: "
    )
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    told = difference(wanted, whole_encodings(tokenizer))
    assert told.startswith("token_type_ids of a text: nothing instead of [")


def test_what_autotokenizer_gives_otherwise_is_an_error_unless_allowed(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = rewritten(model_of(), tmp_path / "target", {"clean_up_tokenization_spaces": True})
    from tokensurgeon.checkpoint import tokenizer_files

    monkeypatch.setattr(
        tokenizer_files, "DROPPED", (*tokenizer_files.DROPPED, "clean_up_tokenization_spaces")
    )
    before, after = Checkpoint.open(model_of()), load_vocabulary(target)
    plan = plan_of(before, after, np.arange(N_ROWS))
    with pytest.raises(TokenizerError, match=r"clean_up_tokenization_spaces: .*mismatch"):
        write_checkpoint(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_checkpoint(plan, tmp_path / "out", allow_autotokenizer_mismatch=True)


def test_verify_names_a_field_that_changed_since(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    moved_rows(model_of(), model_of(), tmp_path / "out")
    assert recheck(tmp_path / "out").problems == []
    path = tmp_path / "out" / "tokenizer_config.json"
    path.write_text(json.dumps({**config_of(path.parent), "truncation_side": "left"}))
    assert any("cut to 8 tokens" in problem for problem in recheck(tmp_path / "out").problems)


# Chat templates

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    controls = ("<s>", "</s>", "<|user|>", "<|assistant|>")
    return save_tokenizer(
        byte_level_bpe(320, controls),
        tmp_path / "chat",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT,
    )


def test_a_template_that_is_not_written_is_told(
    model_of: Callable[..., Path], tmp_path: Path, chat: Path
) -> None:
    result = moved_rows(model_of(), chat, tmp_path / "out")
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    assert sum("no chat template is written" in line for line in result.warnings) == 1
    assert any("--chat-template target" in line for line in result.warnings)


def test_a_template_that_is_asked_for_works_as_in_the_target(
    model_of: Callable[..., Path], tmp_path: Path, chat: Path
) -> None:
    named = [{"name": "default", "template": CHAT}, {"name": "tool_use", "template": "{{ tools }}"}]
    stored = {**config_of(chat), "chat_template": named}
    (chat / "tokenizer_config.json").write_text(json.dumps(stored))
    result = moved_rows(model_of(), chat, tmp_path / "out", chat_template="target")
    assert not any("chat template" in line for line in result.warnings)
    talk = [{"role": "user", "content": "every row"}]
    ids, wanted = (
        AutoTokenizer.from_pretrained(folder).apply_chat_template(talk, return_dict=False)
        for folder in (tmp_path / "out", chat)
    )
    assert ids == wanted


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (CHAT, ["<|", "|>", "</s>", "<|assistant|>"]),
        ("{{ '<|im_start|>' + m.role }}", ["<|im_start|>"]),
        ('{# <|old|> #}x{{ "<|a\'|>" }}', ["x", "<|a'|>"]),
        ("{% raw %}<|{{ m }}|>{% endraw %}", ["<|{{ m }}|>"]),
        ("{% if m == '<|b|>' %}{% endif %}", ["<|b|>"]),
        ("{{- '\\u003c|c|>' -}}", ["<|c|>"]),
        ("{% generation %}<|d|>{% endgeneration %}", ["<|d|>"]),
        ("<|e|>{{ 'not closed }}", ["<|e|>{{ 'not closed }}"]),
    ],
)
def test_markers_are_looked_for_where_a_template_spells_them(text: str, spelled: list[str]) -> None:
    assert literals(text) == spelled


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for m in messages %}", "no valid one"),
        ("{{ '<|a|>' ", "no valid one"),
        ("{% while x %}", "no valid one"),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "nested too deeply"),
    ],
)
def test_a_template_that_cannot_be_parsed_is_told_and_never_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr("subprocess.run", None)  # would fail if a process were started
    assert why in (try_template(tmp_path, text).problem or "")


def test_a_template_that_does_not_end_or_raises_is_told(
    chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = config_of(chat)
    for text in (
        "{{ raise_exception('no system') }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ):
        (chat / "tokenizer_config.json").write_text(json.dumps({**stored, "chat_template": text}))
        monkeypatch.setattr(templates, "CLOCK", 60 if "raise" in text else 4)
        problem = try_template(chat, text).problem or ""
        assert "no system" in problem if "raise" in text else "4 seconds" in problem


def test_a_template_without_end_is_not_read(model_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="over 1 MiB"):
        moved_rows(model_of(), model_of(), tmp_path / "out", chat_template="/dev/zero")


def test_two_sources_of_the_same_kind_agree(tmp_path: Path) -> None:
    """A model and its tokenizer of one's own stay as they were: no line, no change."""
    tokenizer = save_tokenizer(byte_level_bpe(290, ("<s>", "</s>")), tmp_path / "t",
                               bos_token="<s>", eos_token="</s>")  # fmt: skip
    folder = make_model(tmp_path / "model", "llama", 290, tokenizer=tokenizer)
    result = moved_rows(folder, folder, tmp_path / "out")
    assert result.warnings == ()
    before, after = (AutoTokenizer.from_pretrained(one) for one in (folder, tmp_path / "out"))
    assert without_length(after) == without_length(before)


def test_a_file_beside_another_tokenizer_is_the_one_that_is_written(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = rewritten(model_of(), tmp_path / "target")
    byte_level_bpe(280, ("<s>", "</s>")).save(str(folder / "other.json"))
    moved_rows(model_of(), folder / "other.json", tmp_path / "out")
    assert len(load_vocabulary(tmp_path / "out")) == 280


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{{ \xff }}", "is no text in UTF-8: byte 3 is none"),
        (b" \n", "is empty"),
        (None, r"nor a readable file \(Is a directory\)"),
    ],
)
def test_a_template_that_is_no_text_is_refused_by_what_it_is(
    model_of: Callable[..., Path], tmp_path: Path, data: bytes | None, said: str
) -> None:
    path = tmp_path / "template"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(UnknownNameError, match=said):
        moved_rows(model_of(), model_of(), tmp_path / "out", chat_template=str(path))


def test_the_mark_of_an_encoding_is_no_part_of_a_template(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "template").write_bytes(b"\xef\xbb\xbf{{ messages[0].content }}")
    moved_rows(model_of(), model_of(), tmp_path / "out", chat_template=str(tmp_path / "template"))
    written = (tmp_path / "out" / "chat_template.jinja").read_text("utf-8")
    assert written == "{{ messages[0].content }}"


def test_where_nobody_has_the_template_that_was_asked_for_it_is_said(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    result = moved_rows(model_of(), model_of(), tmp_path / "out", chat_template="target")
    assert any("neither the target nor the source has one" in line for line in result.warnings)


def test_a_class_that_reads_a_folder_otherwise_than_its_file_is_told(tmp_path: Path) -> None:
    """GPT-2's builds what it reads by tokenizer_config.json, which may say another thing."""
    folder = save_tokenizer(
        byte_level_bpe(290, ("<s>", "</s>")),
        tmp_path / "model",
        bos_token="<s>",
        eos_token="</s>",
        tokenizer_class="GPT2Tokenizer",
        add_prefix_space=True,
    )
    make_model(folder, "llama", 290)
    result = moved_rows(folder, folder, tmp_path / "out")
    said = " ".join(result.warnings)
    assert "AutoTokenizer reads the target's folder otherwise than its tokenizer.json" in said
