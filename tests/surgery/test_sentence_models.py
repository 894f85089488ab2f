"""A sentence-transformers folder with a pruned vocabulary gives the vectors that it gave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from tests.world import SENTENCES, byte_level_bpe, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.trainers import prune_vocabulary

WIDTH, N_OUT = 32, 6
PAIRS = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], "a row"), ("values", SENTENCES[4])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Return the source and its pruned copy, of vectors (BertModel) or of scores of pairs."""
    root = tmp_path_factory.mktemp("sentence")

    def get(name: str) -> tuple[Path, Path]:
        source, patched = root / name, root / f"{name}-pruned"
        if not patched.exists():
            make_sentence_model(source, name)
            (root / "text.txt").write_text("\n".join(SENTENCES))
            target = prune_vocabulary(source, [root / "text.txt"], output=root / f"{name}-target")
            assert target is not None
            transplant(source=source, tokenizer=root / f"{name}-target", output=patched)
        return source, patched

    return get


def make_sentence_model(folder: Path, name: str) -> None:
    """Save a tiny model with the modules of a sentence-transformers folder."""
    import transformers

    specials = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
    tokenizer = byte_level_bpe(420, specials, [*SENTENCES, "other words that nobody needs"])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    roles = {"pad": "<pad>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    named = {f"{role}_token": token for role, token in roles.items()}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    save_tokenizer(tokenizer, folder, model_max_length=200, model_input_names=inputs, **named)
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=WIDTH, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=200, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    if name != "BertModel":
        return
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
         "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    files: dict[str, Any] = {
        "modules.json": modules,
        "config_sentence_transformers.json": {"prompts": {"query": "find: "}},
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": WIDTH,
                                  "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"in_features": WIDTH, "out_features": N_OUT, "bias": True,
                                "activation_function": "torch.nn.modules.activation.Tanh"},
    }  # fmt: skip
    for file, data in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(data))
    dense = {"linear.weight": torch.randn(N_OUT, WIDTH), "linear.bias": torch.randn(N_OUT)}
    save_file(dense, folder / "2_Dense/model.safetensors")


def vectors_by_hand(folder: Path) -> np.ndarray:
    """Return the vectors of the sentences: mean over tokens, dense layer, tanh, unit length."""
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(
        list(SENTENCES), padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    dense = load_file(folder / "2_Dense/model.safetensors")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        out = torch.tanh(mean @ dense["linear.weight"].T + dense["linear.bias"])
        return np.asarray(torch.nn.functional.normalize(out, dim=1))


def test_a_pruned_sentence_model_gives_the_same_vectors(
    folders: Callable[[str], tuple[Path, Path]],
) -> None:
    source, patched = folders("BertModel")
    names = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    assert names <= {p.relative_to(patched).as_posix() for p in patched.rglob("*")}
    config = json.loads((patched / "config.json").read_text())
    assert config["vocab_size"] < 420
    np.testing.assert_allclose(vectors_by_hand(patched), vectors_by_hand(source), atol=1e-5)


def test_the_package_loads_a_pruned_sentence_model(
    folders: Callable[[str], tuple[Path, Path]],
) -> None:
    package = pytest.importorskip("sentence_transformers", reason="the package is not installed")
    source, patched = folders("BertModel")
    before, after = (package.SentenceTransformer(str(f), device="cpu") for f in (source, patched))
    assert after.prompts["query"] == "find: "
    for prompt in (None, "query"):
        old, new = (m.encode(list(SENTENCES), prompt_name=prompt) for m in (before, after))
        assert old.shape == (len(SENTENCES), N_OUT)
        np.testing.assert_allclose(new, old, atol=1e-5)
    np.testing.assert_allclose(after.encode(list(SENTENCES)), vectors_by_hand(source), atol=1e-5)


def test_the_package_gives_a_pruned_cross_encoder_the_same_scores(
    folders: Callable[[str], tuple[Path, Path]],
) -> None:
    package = pytest.importorskip("sentence_transformers", reason="the package is not installed")
    source, patched = folders("BertForSequenceClassification")
    old, new = (
        package.CrossEncoder(str(f), device="cpu").predict(PAIRS) for f in (source, patched)
    )
    np.testing.assert_allclose(new, old, atol=1e-5)
    assert np.ptp(old) > 1e-3
