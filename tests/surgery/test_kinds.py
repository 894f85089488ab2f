"""Encoders, encoder–decoders and models without output rows: the same surgery, another measure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.world import SENTENCES, byte_level_bpe, permute, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import EvaluationError, UnsupportedCheckpointError, UsageError
from tokensurgeon.evaluation import evaluate_checkpoint
from tokensurgeon.evaluation.model_kinds import hidden_with
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import load_vocabulary

ROLES = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "mask": "<mask>"}
WIDE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 200,
}
TWICE = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 200,
    "decoder_start_token_id": 2,
}
SIZES = {
    "BertForMaskedLM": WIDE,
    "RobertaForMaskedLM": WIDE,
    "DistilBertForMaskedLM": {
        "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 200,
    },
    "ModernBertForMaskedLM": WIDE,
    "BertModel": WIDE,
    "BertForSequenceClassification": WIDE,
    "BartForConditionalGeneration": TWICE,
    "T5ForConditionalGeneration": {
        "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2,
        "decoder_start_token_id": 1,
    },
    "WhisperForConditionalGeneration": {
        **TWICE, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 200,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers with an encoder's roles: a source, the same with other ids, a target; a text."""
    root = tmp_path_factory.mktemp("kinds")
    roles = {f"{role}_token": token for role, token in ROLES.items()}
    specials = ("<s>", "<pad>", "</s>", "<mask>")
    save_tokenizer(byte_level_bpe(330, specials), root / "source", **roles)
    permute(root / "source", root / "permuted")
    save_tokenizer(byte_level_bpe(360, specials, SENTENCES[::-2]), root / "target", **roles)
    documents = [json.dumps({"text": text}) for text in SENTENCES[:3]]
    (root / "text.jsonl").write_text("\n".join(documents))
    return root


@pytest.fixture(scope="module")
def models(kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    root = tmp_path_factory.mktemp("models")

    def get(name: str) -> Path:
        import transformers

        folder = root / name
        if not folder.exists():
            torch.manual_seed(3)
            found = getattr(transformers, name)
            ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
            config = found.config_class(vocab_size=330, **ids, **SIZES[name])
            model = found(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
            model.save_pretrained(folder)
            for file in (kinds / "source").iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return get


MEASURED = [name for name in SIZES if name.endswith(("ForMaskedLM", "Generation"))]


@pytest.mark.parametrize("name", [n for n in MEASURED if not n.startswith("Roberta")])
def test_other_ids_change_no_figure(name: str, models, kinds: Path, tmp_path: Path) -> None:
    result = transplant(
        source=models(name),
        tokenizer=kinds / "permuted",
        output=tmp_path / "out",
        text={"evaluation": [str(kinds / "text.jsonl")]},
        baselines=[],
    )
    source, patched = result.evaluation.entries
    assert patched.bits_per_byte == pytest.approx(source.bits_per_byte, rel=1e-5)
    # What was written is what was measured.
    again = evaluate_checkpoint(tmp_path / "out", [kinds / "text.jsonl"])
    assert again.entries[0].bits_per_byte == pytest.approx(source.bits_per_byte, rel=1e-5)
    protocol = result.evaluation.to_dict()["protocol"]
    assert again.to_dict()["protocol"] == protocol
    assert protocol in result.report.warnings


@pytest.mark.parametrize("name", SIZES)
def test_the_own_vocabulary_gives_the_same_bytes(name: str, models, tmp_path: Path) -> None:
    source = models(name)
    transplant(source=source, tokenizer=source, output=tmp_path / "out")
    file = "model.safetensors"
    assert (tmp_path / "out" / file).read_bytes() == (source / file).read_bytes()


@pytest.mark.parametrize("name", SIZES)
def test_another_vocabulary_loads_and_runs(name: str, models, kinds: Path, tmp_path: Path) -> None:
    measured = name in MEASURED
    result = transplant(
        source=models(name),
        tokenizer=kinds / "target",
        output=tmp_path / "out",
        text={"evaluation": [str(kinds / "text.jsonl")]} if measured else {},
    )
    assert load_model(tmp_path / "out").n_rows == load_vocabulary(kinds / "target").n_rows
    assert (
        Checkpoint.open(tmp_path / "out").layout.kind == Checkpoint.open(models(name)).layout.kind
    )
    if measured:
        assert [e.name for e in result.evaluation.entries][:2] == ["source", "patched"]
        assert all(math.isfinite(e.bits_per_byte) for e in result.evaluation.entries)


@pytest.mark.parametrize(
    "name", ["BertForMaskedLM", "RobertaForMaskedLM", "BartForConditionalGeneration",
             "T5ForConditionalGeneration", "WhisperForConditionalGeneration"],
)  # fmt: skip
def test_untying_writes_every_copy(name: str, models, kinds: Path, tmp_path: Path) -> None:
    source = models(name)
    result = transplant(
        source=source,
        tokenizer=kinds / "target",
        output=tmp_path / "out",
        untie=True,
        init={"input": "subword-mean", "output": "subword-last"},
    )
    rows = result.rows
    assert not np.array_equal(rows.input.rows, rows.output.rows)
    loaded = load_model(tmp_path / "out").model
    inner, outer = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    assert np.array_equal(inner.weight.numpy(), rows.input.rows)
    assert np.array_equal(outer.weight.numpy(), rows.output.rows)
    # Whatever name the body reads its input rows by, they are the input rows.
    tables = [m.weight for n, m in loaded.named_modules() if n.endswith("embed_tokens")]
    assert all(np.array_equal(table.numpy(), rows.input.rows) for table in tables)
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    kept = json.loads((source / "config.json").read_text())
    if name.startswith("T5"):  # there the flag scales the logits
        assert told.get("tie_word_embeddings") == kept.get("tie_word_embeddings")
        assert any("flag of tying" in line for line in result.report.warnings)
    else:
        assert told["tie_word_embeddings"] is False


def test_the_loss_of_an_encoder_is_what_transformers_gives(models, kinds: Path) -> None:
    model: Any = load_model(models("BertForMaskedLM"))
    vocabulary = load_vocabulary(kinds / "source")
    text = "rows tables stand"
    found = vocabulary.encode_with_bytes(text)
    ids, ends = list(found.ids), np.array(found.ends)
    hidden = hidden_with(text.encode(), ends)
    start, end, mask = (vocabulary.roles[role] for role in ("cls", "sep", "mask"))
    losses = model.pseudo_nll(ids, hidden, (start, end, mask))
    for i, one in enumerate(ids):
        # By hand: this token, and what is left of its word, is masked.
        asked = list(ids)
        rest = text.encode()[int(ends[i]) :].split(b" ")[0]
        asked[i] = mask
        for j in range(i + 1, len(ids)):
            if len(rest) and int(ends[j - 1]) < int(ends[i]) + len(rest):
                asked[j] = mask
        with torch.no_grad():
            logits = model.model(torch.tensor([[start, *asked, end]])).logits[0, i + 1]
        assert losses[i] == pytest.approx(-float(logits.log_softmax(-1)[one]), rel=1e-4)


def test_the_loss_of_a_decoder_is_what_transformers_gives(models, kinds: Path) -> None:
    model: Any = load_model(models("BartForConditionalGeneration"))
    read, written = [5, 6, 7, 2], [8, 9, 10]
    losses = model.decoder_nll(read, written)
    with torch.no_grad():
        told = model.model(torch.tensor([read]), labels=torch.tensor([written])).loss
    assert losses.mean() == pytest.approx(float(told), rel=1e-5)


def test_words_part_what_is_hidden() -> None:
    #              th | e  | cat sat | " " | .
    hidden = hidden_with(b"the cat sat .", np.array([2, 3, 11, 12, 13]))
    assert hidden.astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    # A token over two words hides what is left of its last one.
    assert hidden_with(b"a bcd", np.array([3, 5])).astype(int).tolist() == [[1, 1], [0, 1]]


def test_positions_counted_from_the_pad_id_want_it_in_its_place(
    models, kinds: Path, tmp_path: Path
) -> None:
    source = models("RobertaForMaskedLM")
    assert Checkpoint.open(source).max_positions == 198
    with pytest.raises(UnsupportedCheckpointError, match="whose pad token is id 1"):
        transplant(source=source, tokenizer=kinds / "permuted", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("BertModel", {"text": {"evaluation": ["TEXT"]}}, "no loss on a text"),
        ("BertModel", {"untie": True}, "input rows only"),
        ("BertForMaskedLM", {"calibrate": ["shrunk"]}, "--calibrate works on causal"),
        ("T5ForConditionalGeneration", {"heal": 1.0}, "the source is an encoder–decoder"),
    ],
)
def test_what_a_kind_cannot_do_is_refused(
    name: str, more: dict, said: str, models, kinds: Path, tmp_path: Path
) -> None:
    more = json.loads(json.dumps(more).replace("TEXT", str(kinds / "text.jsonl")))
    with pytest.raises(UsageError, match=said):
        transplant(source=models(name), tokenizer=kinds / "target", output=tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_an_encoder_needs_a_mask_to_be_measured(
    models, kinds: Path, world: Path, tmp_path: Path
) -> None:
    source, text = models("BertForMaskedLM"), {"evaluation": [str(kinds / "text.jsonl")]}
    with pytest.raises(EvaluationError, match="start, end and mask"):
        transplant(source=source, tokenizer=world / "target", output=tmp_path / "out", text=text)
    result = transplant(source=source, tokenizer=world / "target", output=tmp_path / "out")
    assert any("no mask token" in line for line in result.report.warnings)


def test_kinds_are_not_compared_with_each_other(models, kinds: Path) -> None:
    with pytest.raises(EvaluationError, match="no measure in common"):
        evaluate_checkpoint(
            models("BertForMaskedLM"),
            [kinds / "text.jsonl"],
            models("BartForConditionalGeneration"),
        )


def test_a_second_vocabulary_is_not_left_behind(models, tmp_path: Path) -> None:
    """A decoder's table of its own, and of the same size, is refused: it is no copy."""
    from safetensors.torch import save_file

    source = tmp_path / "source"
    source.mkdir()
    for file in models("BartForConditionalGeneration").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors = load_file(source / "model.safetensors")
    shared = tensors["model.shared.weight"]
    tensors["lm_head.weight"] = shared.clone()
    tensors["model.encoder.embed_tokens.weight"] = shared.clone()
    tensors["model.decoder.embed_tokens.weight"] = shared.clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert len(Checkpoint.open(source).layout.input_names) == 3
    tensors["model.decoder.embed_tokens.weight"] = shared.flip(0).contiguous()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=r"decoder\.embed_tokens"):
        Checkpoint.open(source)
