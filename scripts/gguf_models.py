"""Read what a GGUF file says of a language model as a Hugging Face checkpoint has it.

`scripts/real_models.py` uses it on two files: one of a Llama with a byte-level tokenizer, one of a
Gemma 3 with a SentencePiece one. GGUF names tensors otherwise, orders the rows of Llama's rotary
matrices otherwise, and holds scores in the place of a SentencePiece tokenizer's merges. Nothing
here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tokensurgeon.arrays import Float32

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
"""Kinds of tokens, as the GGUF format numbers them."""
SPACE_MARK = "▁"
FULL_ATTENTION_EVERY = 6
"""Five of Gemma 3's blocks look at a window, the sixth at everything; GGUF does not say which."""
GEMMA_SPECIAL = frozenset(
    f"<{name}>"
    for name in (
        *("pad", "eos", "bos", "unk"),
        *("start_of_turn", "end_of_turn", "start_of_image", "end_of_image"),
    )
)
"""The control tokens of the published tokenizer; GGUF marks more of its tokens as such."""

COMMON = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What a block's tensor is called in GGUF, and in a checkpoint."""
LLAMA_NAMES = {**COMMON, "ffn_norm": "post_attention_layernorm"}
GEMMA_NAMES = {
    **COMMON,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Converted:
    """What is written of a model besides its weights; `tensor` finishes one weight."""

    config: dict[str, Any]
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]
    tensor: Callable[[str, Float32], tuple[str, Float32]]


# -- weights -------------------------------------------------------------------------------------


def checkpoint_name(name: str, parts: Mapping[str, str]) -> str:
    """Return what a tensor of GGUF is called in a checkpoint.

    Examples
    --------
    >>> checkpoint_name("blk.3.attn_q.weight", COMMON)
    'model.layers.3.self_attn.q_proj.weight'
    """
    whole = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    if name in whole:
        return f"model.{whole[name]}"
    _, block, part, kind = name.split(".")
    return f"model.layers.{block}.{parts[part]}.{kind}"


def halves_apart(rows: Float32, n_heads: int) -> Float32:
    """Put the rows of a query or key matrix back into the order of a checkpoint.

    A rotary embedding turns pairs of rows. GGUF holds Llama's pairs side by side (0, h, 1, h + 1, …
    for heads of 2h rows), a checkpoint holds all first members of a head, then all second ones.

    Parameters
    ----------
    rows : float32 array, (n_heads · 2h, width)
    n_heads : int

    Returns
    -------
    float32 array, (n_heads · 2h, width)

    Examples
    --------
    >>> import numpy as np
    >>> halves_apart(np.array([[0], [2], [1], [3]], dtype=np.float32), 1).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    n_rows, width = rows.shape
    pairs = rows.reshape(n_heads, n_rows // n_heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(n_rows, width)


# -- tokenizers ----------------------------------------------------------------------------------


def merges_from_scores(
    tokens: Sequence[str], scores: Sequence[float], merged: Sequence[bool]
) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece model, which holds scores in their place.

    Any two tokens that spell a third may be merged to it, the pair whose result scores highest
    first; of equal ones the pair with the longer first, then the longer second token.

    Parameters
    ----------
    tokens : sequence of str
        By id.
    scores : sequence of float
        One for each token.
    merged : sequence of bool
        Whether a token takes part; control tokens and bytes do not.

    Examples
    --------
    >>> merges_from_scores(["a", "b", "ab", "aba"], [0, 0, -1, -2], [True] * 4)
    [('a', 'b'), ('ab', 'a')]
    """
    ids = {token: i for i, token in enumerate(tokens) if merged[i]}
    found = []
    for token, i in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                order = (-scores[i], -cut, cut - len(token), i, ids[left], ids[right])
                found.append((order, left, right))
    return [(left, right) for _, left, right in sorted(found)]


def with_added(tokenizer: Tokenizer, tokens: Sequence[str], special: frozenset[str]) -> Tokenizer:
    """Let tokens be found in text before it is cut; their ids are those of the model."""
    before = tokenizer.get_vocab_size()
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=token in special) for token in tokens]
    )
    if tokenizer.get_vocab_size() != before:
        raise ValueError(f"the tokenizer has {before:,} tokens, not all of those it adds")
    return tokenizer


def byte_level_tokenizer(fields: Fields) -> Tokenizer:
    """Return SmolLM2's: single digits, then bytes with the pattern of GPT-2."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    pairs = (merge.split(" ") for merge in fields["tokenizer.ggml.merges"])
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[(left, right) for left, right in pairs],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    return with_added(tokenizer, control, frozenset(control))


def byte_fallback_tokenizer(fields: Fields) -> Tokenizer:
    """Return Gemma's: spaces are marked, and what no token spells becomes bytes."""
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    tokens = [
        token.replace(" ", SPACE_MARK) if kind in (NORMAL, USER_DEFINED) else token
        for token, kind in zip(fields["tokenizer.ggml.tokens"], kinds, strict=True)
    ]
    blank = [not token.strip("\n\t" + SPACE_MARK) for token in tokens]
    # Users' tokens are found whole, but runs of blanks are merged too, before all else.
    scores = [
        0.0 if kind == USER_DEFINED else float(score)
        for score, kind in zip(fields["tokenizer.ggml.scores"], kinds, strict=True)
    ]
    merged = [
        is_blank if kind == USER_DEFINED else kind not in (CONTROL, BYTE)
        for kind, is_blank in zip(kinds, blank, strict=True)
    ]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=merges_from_scores(tokens, scores, merged),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bos = ("<bos>", tokens.index("<bos>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[bos]
    )
    whole = (CONTROL, USER_DEFINED)
    found = [token for token, kind in zip(tokens, kinds, strict=True) if kind in whole]
    return with_added(tokenizer, found, GEMMA_SPECIAL)


# -- models --------------------------------------------------------------------------------------


def shape(fields: Fields, family: str) -> dict[str, Any]:
    """Return what the two families' configurations have in common."""
    return {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields[f"{family}.embedding_length"],
        "intermediate_size": fields[f"{family}.feed_forward_length"],
        "num_hidden_layers": fields[f"{family}.block_count"],
        "num_attention_heads": fields[f"{family}.attention.head_count"],
        "num_key_value_heads": fields[f"{family}.attention.head_count_kv"],
        "max_position_embeddings": fields[f"{family}.context_length"],
        "rope_theta": fields[f"{family}.rope.freq_base"],
        "attention_bias": False,
        "tie_word_embeddings": True,
    }


def convert_llama(fields: Fields) -> Converted:
    """Read what SmolLM2's GGUF file says of it."""
    common = shape(fields, "llama")
    n_heads, n_kv = common["num_attention_heads"], common["num_key_value_heads"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **common,
        "head_dim": common["hidden_size"] // n_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }

    def tensor(name: str, values: Float32) -> tuple[str, Float32]:
        heads = {"attn_q": n_heads, "attn_k": n_kv}.get(name.split(".")[-2])
        rows = values if heads is None else halves_apart(values, heads)
        return checkpoint_name(name, LLAMA_NAMES), rows

    tokenizer_config = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "add_prefix_space": False,
        "chat_template": fields["tokenizer.chat_template"],
    }
    return Converted(config, byte_level_tokenizer(fields), tokenizer_config, tensor)


def convert_gemma(fields: Fields) -> Converted:
    """Read what Gemma's GGUF file says of it."""
    common = shape(fields, "gemma3")
    n_blocks = common["num_hidden_layers"]
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **common,
        "head_dim": fields["gemma3.attention.key_length"],
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10000.0,
        "sliding_window": fields["gemma3.attention.sliding_window"],
        "query_pre_attn_scalar": 256,
        "layer_types": [
            "sliding_attention" if (block + 1) % FULL_ATTENTION_EVERY else "full_attention"
            for block in range(n_blocks)
        ],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }

    def tensor(name: str, values: Float32) -> tuple[str, Float32]:
        # A norm multiplies by 1 + its weight; GGUF holds the sum.
        return checkpoint_name(name, GEMMA_NAMES), values - 1 if "norm" in name else values

    tokenizer_config = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "add_bos_token": True,
        "add_eos_token": False,
        "padding_side": "left",
    }
    return Converted(config, byte_fallback_tokenizer(fields), tokenizer_config, tensor)
