"""Published patterns of pre-tokenizers, and the names that llama.cpp has for them."""

from __future__ import annotations

from tokensurgeon.vocabulary.parts import Parts, regexes, walk

PATTERNS = {
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""By the first letters of a tiktoken file's name: the file itself does not say how text is cut.
r50k and p50k cut as gpt2 does, llama3 as cl100k."""

GGUF = {"cl100k": "llama-bpe", "gpt2": "gpt-2", "qwen": "qwen2"}


def gguf_name(parts: Parts) -> str | None:
    """Return llama.cpp's name for the way a tokenizer cuts text, or None if it has none.

    Its converter identifies a tokenizer by a checksum of the ids of one text, so it cannot know a
    newly trained one ("pre-tokenizer was not recognized"): give it this name as
    `tokenizer.ggml.pre` then. Only the patterns of the most used vocabularies are distinguished.
    """
    if parts.model_type == "Unigram" or (parts.byte_fallback and not parts.byte_level):
        return "SentencePiece"
    if parts.model_type == "WordPiece":
        return "WordPiece"
    if parts.model_type != "BPE" or not parts.byte_level:
        return None
    own = set(regexes(parts.pre_tokenizer))
    as_gpt2 = any(
        part["type"] == "ByteLevel" and part["use_regex"] for part in walk(parts.pre_tokenizer)
    )
    if as_gpt2:
        return None if own else GGUF["gpt2"]
    return next((GGUF[name] for name, pattern in PATTERNS.items() if own == {pattern}), None)
