"""A pad token that positions depend on has to stay; where they do not, it may move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.world import byte_level_bpe, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import pad_ids
from tokensurgeon.errors import UnsupportedCheckpointError
from tokensurgeon.models.load import load_model

SMALL = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_layers": 1, "ffn_dim": 16,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 40,
    "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2, "vocab_size": 90, "scale_embedding": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more", "allowed"),
    [
        ("RobertaModel", {}, (1,)),
        ("CamembertModel", {"pad_token_id": 4}, (4,)),
        ("XLMRobertaModel", {}, (1,)),
        ("LongformerModel", {}, (1,)),
        ("Data2VecTextModel", {}, (1,)),
        ("IBertModel", {}, (1,)),
        ("LukeModel", {}, (1,)),
        ("MPNetModel", {"pad_token_id": 0}, (1,)),  # written into the class
        ("EsmModel", {"position_embedding_type": "absolute"}, (1,)),
        ("EsmModel", {"position_embedding_type": "rotary"}, None),
        ("ProphetNetModel", {}, (1,)),
        ("M2M100Model", {}, (1,)),
        ("NllbMoeModel", {"num_experts": 2, "expert_capacity": 2}, (1,)),
        ("Speech2TextModel", {}, (1,)),
        ("FSMTModel", {"langs": ["a", "b"], "src_vocab_size": 90, "tgt_vocab_size": 90}, (1,)),
        ("TrOCRForCausalLM", {"use_learned_position_embeddings": False}, (1,)),
        ("TrOCRForCausalLM", {"use_learned_position_embeddings": True}, None),
        ("XGLMForCausalLM", {}, (None, 0, 1)),
        ("BertModel", {}, None),
        ("ElectraModel", {}, None),
        ("BartModel", {}, None),
        ("MBartModel", {}, None),
        ("MarianModel", {}, None),
        ("PegasusModel", {}, None),
        ("BlenderbotModel", {}, None),
        ("T5Model", {"d_kv": 8, "d_ff": 16, "num_heads": 2}, None),
        ("OPTModel", {"word_embed_proj_dim": 16}, None),
        ("XLMModel", {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "n_words": 90}, None),
    ],
)
def test_the_classes_whose_positions_need_the_pad_id(name: str, more: Any, allowed: Any) -> None:
    import transformers

    cls = getattr(transformers, name)
    known = cls.config_class().to_dict()
    fields = {key: value for key, value in SMALL.items() if key in known}
    with torch.device("meta"):
        assert pad_ids(cls(cls.config_class(**{**fields, "pad_token_id": 1, **more}))) == allowed


NAMES = ("<s>", "<pad>", "</s>", "<unk>", "<a>", "<b>")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizers with their pad token at 1 (the source), at 0, at 5, and with none."""
    root = tmp_path_factory.mktemp("pads")
    orders = {
        "1": NAMES,
        "0": ("<pad>", "<s>", *NAMES[2:]),
        "5": ("<s>", "<b>", *NAMES[2:5], "<pad>"),
        "none": ("<s>", "<slot>", *NAMES[2:]),
    }
    return {
        name: save_tokenizer(
            byte_level_bpe(300, order), root / name, bos_token="<s>", eos_token="</s>",
            **({} if name == "none" else {"pad_token": "<pad>"}),
        )
        for name, order in orders.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Any:
    root = tmp_path_factory.mktemp("sources")

    def get(name: str) -> Path:
        import transformers

        folder = root / name
        if not folder.exists():
            cls = getattr(transformers, name)
            known = cls.config_class().to_dict()
            fields = {key: value for key, value in SMALL.items() if key in known}
            ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
            torch.manual_seed(2)
            model = cls(cls.config_class(**{**fields, **ids, "vocab_size": 300}))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
            model.save_pretrained(folder)
            for file in tokenizers["1"].iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return get


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("M2M100ForConditionalGeneration", "m2m_100 counts positions from the id of its pad"),
        ("Speech2TextForConditionalGeneration", "speech_to_text counts positions from the id"),
        ("XGLMForCausalLM", "xglm blanks the position whose number is its pad token's id"),
    ],
)
def test_a_pad_token_that_may_not_move_is_refused_at_the_start(
    name: str, why: str, sources: Any, tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    source = sources(name)
    with pytest.raises(UnsupportedCheckpointError, match=why) as caught:
        transplant(source=source, tokenizer=tokenizers["5"], output=tmp_path / "out", dry_run=True)
    assert "has its pad token at 5: train one with --controls-of" in str(caught.value)
    transplant(source=source, tokenizer=tokenizers["1"], output=tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out").config["pad_token_id"] == 1


def test_a_pad_token_at_a_free_position_may_move(
    sources: Any, tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    source = sources("XGLMForCausalLM")
    transplant(source=source, tokenizer=tokenizers["0"], output=tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out").config["pad_token_id"] == 0
    ids = [20, 7, 100, 280, 33, 41]
    before, after = (load_model(folder).logits(ids) for folder in (source, tmp_path / "out"))
    np.testing.assert_allclose(after[:, 2:], before[:, 2:], atol=1e-5)


def test_a_token_may_be_taken_for_a_pad_token(
    sources: Any, tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    """Without a pad token of its own, the target has one by the user's mapping."""
    options: dict[str, Any] = {
        "source": sources("M2M100ForConditionalGeneration"),
        "tokenizer": tokenizers["none"],
        "output": tmp_path / "out",
    }
    with pytest.raises(
        UnsupportedCheckpointError, match=r"has no pad token: .* --map '<slot>=<pad>'"
    ):
        transplant(**options)
    transplant(**options, map={"<slot>": "<pad>"})
    assert Checkpoint.open(tmp_path / "out").config["pad_token_id"] == 1
