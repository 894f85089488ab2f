"""The vocabularies that ship: they load, lose nothing, and are what their cards say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

ROOT = Path(__file__).parent.parent / "vocabularies"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/tokenizer.json"))


def test_every_folder_is_named_on_the_page() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    assert len(FOLDERS) >= 4
    assert [each.name for each in FOLDERS if f"`{each.name}`" not in page] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_vocabulary_is_what_its_card_says(folder: Path) -> None:
    facts = json.loads((folder / "training.json").read_text("utf-8"))
    card = (folder / "README.md").read_text("utf-8")
    found = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    assert facts["sha256"] == found in card
    assert f"{facts['figures']['bytes_per_token']:.3f}" in card
    assert not any("/" in name for name in facts["corpus"]["files"])
    stock = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder)
    assert load_vocabulary(folder).n_rows == facts["settings"]["size"]
    for text in hard_texts():
        ids = stock.encode(text, add_special_tokens=False).ids
        assert stock.decode(ids, skip_special_tokens=False) == text
        assert auto(text, add_special_tokens=False)["input_ids"] == ids
