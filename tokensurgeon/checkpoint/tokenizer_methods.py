"""What the class of a tokenizer has that others of transformers lack."""

from __future__ import annotations

from typing import Any

GENERIC = "TokenizersBackend"
"""Reads tokenizer.json as it is. With another class, or none, AutoTokenizer may build its own."""
_BASES = (GENERIC, "PreTrainedTokenizerFast", "PythonBackend", "PreTrainedTokenizer",
          "SentencePieceBackend", "PreTrainedTokenizerBase", "object")  # fmt: skip
"""Classes that any tokenizer has; what they define is no class's own."""
_PLUMBING = ("save_vocabulary", "vocab_size", "get_vocab", "vocab", "convert_tokens_to_string",
             "build_inputs_with_special_tokens", "get_special_tokens_mask", "mask_token",
             "create_token_type_ids_from_sequences", "update_post_processor", "do_lower_case",
             "num_special_tokens_to_add", "convert_from_spm_model", "model")  # fmt: skip
"""Methods by which a class does what tokenizer.json says; nobody misses them."""


def class_name(tokenizer: Any) -> str:
    """Return the name of a tokenizer's class, as tokenizer_config.json spells it."""
    name = type(tokenizer).__name__
    return name.removesuffix("Fast") if name not in _BASES else name


def is_special(tokenizer: Any) -> bool:
    """Say whether the class of a tokenizer is one of a family."""
    return tokenizer is not None and type(tokenizer).__name__ not in _BASES


def own_methods(tokenizer: Any) -> list[str]:
    """Return the public methods and properties that only the class of a tokenizer has."""
    names: dict[str, None] = {}
    for cls in type(tokenizer).__mro__:
        if cls.__name__ in _BASES:
            break
        for name, value in vars(cls).items():
            is_method = callable(value) or isinstance(value, (property, classmethod, staticmethod))
            if is_method and not name.startswith("_") and name not in _PLUMBING:
                names[name] = None
        if "__call__" in vars(cls):
            names["__call__"] = None
    return list(names)
