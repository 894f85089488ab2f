"""Tiny tokenizers of every kind, trained on a few sentences, and ways to disturb them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.world import byte_level_bpe
from tokensurgeon.vocabulary import Vocabulary, vocabulary_from_tokenizer

SENTENCES = [
    "the cat sat on the mat, and the cat's hat was on the mat too",
    "numbers such as 1, 22, 333, 4444, 2048 and 3.14159 are written in groups",
    "for row in table:\n    if row.value == 42:\n        return row\n",
    "größer café naïve 日本語 日本 übung Å",
    "tabs\tand  double  spaces   and newlines\n\nare whitespace",
]
HARD_TEXTS = [
    "the cat",
    " the cat",
    "  the  cat  ",
    "cat",
    "\n",
    "\n\n  \n",
    " ",
    "        deep",
    "tab\tnul\x00bell\x07",
    "日本語の🎉 emoji 👩‍👩‍👧 and é e\u0301",
    "1234567 x=20240131",
    "<s> <0x41> </s> <|im_start|> <unk>",
    "A<0x0A>B\nC",
    "▁the Ġthe ##the the</w>",
    "\u200b\ufeff\u00a0\u3000",
]

TINY: dict[str, Callable[[], Tokenizer]] = {}


def tiny(maker: Callable[[], Tokenizer]) -> Callable[[], Tokenizer]:
    TINY[maker.__name__] = maker
    return maker


def trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


@tiny
def byte_level() -> Tokenizer:
    return byte_level_bpe(340, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), SENTENCES * 3)


@tiny
def byte_level_prefix() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


@tiny
def byte_level_single_digits() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}|[^\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken("      ", special=False), AddedToken("<tool_call>")])
    return tokenizer


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Give a trained BPE byte fallback: 256 byte tokens before its own."""
    document = json.loads(tokenizer.to_str())
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    own = [token for token in document["model"]["vocab"] if token not in names]
    document["model"]["vocab"] = {token: i for i, token in enumerate([*names, *own])}
    document["model"].update(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    document["added_tokens"] = [_special(i, names[i]) for i in range(3)]
    return Tokenizer.from_str(json.dumps(document))


def _special(token_id: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, "special": True, **flags}


def _sentencepiece(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


@tiny
def sentencepiece_bpe() -> Tokenizer:
    tokenizer = _sentencepiece(Tokenizer(models.BPE()))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained(tokenizer, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    tokenizer.pre_tokenizer = None
    return _with_bytes(tokenizer)


@tiny
def metaspace_first() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    return _with_bytes(trained(tokenizer, trainers.BpeTrainer(vocab_size=120, show_progress=False)))


@tiny
def metaspace_never() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never"), decoders.Fuse()]
    )
    return _with_bytes(trained(tokenizer, trainers.BpeTrainer(vocab_size=120, show_progress=False)))


@tiny
def unigram_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained(
        tokenizer,
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    document = json.loads(tokenizer.to_str())
    own = [entry for entry in document["model"]["vocab"] if entry[0] != "<unk>"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    document["model"]["vocab"] = [*([name, -12.0] for name in names), *own]
    document["model"].update(unk_id=0, byte_fallback=True)
    document["added_tokens"] = [_special(i, names[i]) for i in range(3)]
    document["pre_tokenizer"] = None
    return _sentencepiece(Tokenizer.from_str(json.dumps(document)))


@tiny
def unigram_no_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return trained(
        tokenizer,
        trainers.UnigramTrainer(
            vocab_size=120,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )


@tiny
def wordpiece_lower() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    trained(tokenizer, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return tokenizer


@tiny
def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return trained(
        tokenizer, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    )


@tiny
def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return trained(
        tokenizer, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    )


@tiny
def end_of_word() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=200,
            special_tokens=["<unk>"],
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )


@cache
def made(name: str) -> Vocabulary:
    """Return the vocabulary of one of them, made once."""
    return vocabulary_from_tokenizer(TINY[name]())


LOSSLESS = (
    "byte_level",
    "byte_level_prefix",
    "sentencepiece_bpe",
    "metaspace_first",
    "metaspace_never",
    "unigram_bytes",
)
"""Those that give (almost) every text back."""


def shuffled_json(tokenizer: Tokenizer, seed: int = 0) -> Tokenizer:
    """Return the same tokenizer from a JSON whose vocabulary stands in another order."""
    document = json.loads(tokenizer.to_str())
    table = document["model"]["vocab"]
    if isinstance(table, dict):
        items = list(table.items())
        random.Random(seed).shuffle(items)
        document["model"]["vocab"] = dict(items)
    return Tokenizer.from_str(json.dumps(document))
