"""Published ways to cut text before merges count, and the names that llama.cpp has for them."""

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
"""By the beginning of a tiktoken file's name, which does not say how text is cut; r50k and p50k cut
as gpt2 does, llama3 as cl100k."""

GGUF = {"cl100k": "llama-bpe", "gpt2": "gpt-2", "qwen": "qwen2"}


def gguf_name(parts: Parts) -> str | None:
    """Return what llama.cpp calls the way a tokenizer cuts text, or None where it has no such.

    Its converter tells a tokenizer by a checksum of the ids of one text, so it knows none that was
    trained for the occasion ("pre-tokenizer was not recognized"); this is the name to give it then,
    as `tokenizer.ggml.pre`. Only the ways of the most used vocabularies are told apart.
    """
    if parts.model_type == "Unigram" or (parts.byte_fallback and not parts.byte_level):
        return "SentencePiece"
    if parts.model_type == "WordPiece":
        return "WordPiece"
    if parts.model_type != "BPE" or not parts.byte_level:
        return None
    found = set(regexes(parts.pre_tokenizer))
    plain = [e for e in walk(parts.pre_tokenizer) if e["type"] == "ByteLevel" and e["use_regex"]]
    if plain and not found:
        return GGUF["gpt2"]
    names = [name for name, pattern in PATTERNS.items() if found == {pattern}]
    return GGUF[names[0]] if names and not plain else None
