#!/usr/bin/env python3
"""Patch a tiny model of every family that transformers builds, and write the table.

    python scripts/sweep_architectures.py [--only FAMILY …] [-o docs/reference/model-families.md]

For each family of causal models, and for other models by their class, a model of two small layers
is made from its configuration class, tied and untied, with random weights and the byte-level
tokenizer of this script. It is then given its own vocabulary, which must give the same bytes back,
and the same vocabulary with other ids, which must give the same logits in the other order, or the
same states where there are no logits. What cannot be built, or is refused, is named.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
N_TOKENS, N_ROWS = 290, 304
PROBE = (3, 40, 5, 9, 288, 17, 100)

FAMILIES = (
    *("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "mistral"),
    *("gpt2", "gpt_neox", "opt", "cohere", "cohere2", "granite", "deepseek_v2", "deepseek_v3"),
    *("gpt_oss", "mamba", "mamba2", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "olmo"),
    *("olmo2", "olmo3", "olmoe", "falcon", "falcon_h1", "bloom", "mpt", "gptj", "gpt_neo"),
    *("codegen", "gpt_bigcode", "starcoder2", "stablelm", "smollm3", "glm", "glm4", "glm4_moe"),
    *("granitemoe", "granitemoehybrid", "granitemoeshared", "exaone4", "ernie4_5", "nemotron"),
    *("minicpm3", "internlm3", "hunyuan_v1_dense", "seed_oss", "helium", "persimmon", "phimoe"),
    *("biogpt", "xglm", "jamba", "bamba", "zamba2", "recurrent_gemma", "falcon_mamba", "lfm2"),
    *(
        "apertus",
        "arcee",
        "dots1",
        "diffllama",
        "doge",
        "gemma3n_text",
        "gemma4_text",
        "llama4_text",
    ),
    *("modernbert-decoder", "nanochat", "vaultgemma", "minimax", "ministral", "qwen3_5_text"),
    *("youtu", "bitnet", "dbrx", "jetmoe", "openai-gpt", "ctrl", "rwkv", "moshi", "ministral3"),
)
"""Causal language models by their model type, most used first."""

CLASSES = (
    *("BertForMaskedLM", "BertForPreTraining", "BertModel", "BertForSequenceClassification"),
    *("RobertaForMaskedLM", "XLMRobertaForMaskedLM", "XLMRobertaModel", "DistilBertForMaskedLM"),
    *("ModernBertForMaskedLM", "ElectraForMaskedLM", "AlbertForMaskedLM", "CamembertForMaskedLM"),
    *("DebertaV2ForMaskedLM", "MPNetForMaskedLM", "EuroBertForMaskedLM"),
    *("T5ForConditionalGeneration", "T5EncoderModel", "MT5ForConditionalGeneration"),
    *("UMT5ForConditionalGeneration", "BartForConditionalGeneration", "MarianMTModel"),
    *("MBartForConditionalGeneration", "PegasusForConditionalGeneration"),
    *("M2M100ForConditionalGeneration", "BlenderbotForConditionalGeneration"),
    *("LEDForConditionalGeneration", "WhisperForConditionalGeneration"),
    *("Speech2TextForConditionalGeneration",),
    *("LlavaForConditionalGeneration", "Qwen2VLForConditionalGeneration"),
    *("Qwen2_5_VLForConditionalGeneration", "Gemma3ForConditionalGeneration"),
    *("PaliGemmaForConditionalGeneration", "Mistral3ForConditionalGeneration"),
    *("LlavaNextForConditionalGeneration", "Idefics3ForConditionalGeneration"),
    *("SmolVLMForConditionalGeneration", "InternVLForConditionalGeneration"),
)
"""Everything else by its class: encoders, encoder–decoders, text beside images."""

COPY = re.compile(r"(shared|encoder\.embed_tokens|decoder\.embed_tokens)$")
IMAGE = re.compile(r"^(image|video|vision|audio|img|boi|eoi).*_token_(id|index)$")

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "dff"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "hidden_dim"), 48),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("d_kv", "embedding_size"), 8),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("intermediate_size_mlp", "shared_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim", "mamba_d_head", "mamba_n_heads"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("dropout", "attention_dropout", "hidden_dropout", "resid_pdrop"), 0.0),
    **dict.fromkeys(("embd_pdrop", "attn_pdrop", "activation_dropout"), 0.0),
    **dict.fromkeys(("vocab_size", "decoder_vocab_size"), N_ROWS),
}
"""Small values of what configurations call their sizes."""

ROPE = {"rope_type": "default", "rope_theta": 1e4}

OWN: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 4, "n_groups": 1},
    # Keys and values have as many heads as queries in latent attention.
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "minicpm3": {"num_key_value_heads": 4},
    "youtu": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "modernbert-decoder": {"pad_token_id": 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
    "gemma3n_text": {
        "vocab_size_per_layer_input": N_ROWS,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {"vocab_size_per_layer_input": N_ROWS, "num_kv_shared_layers": 0},
    "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"]},
    "LEDForConditionalGeneration": {"attention_window": [8, 8]},
    **{
        name: {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}}
        for name in ("qwen2_vl_text", "qwen2_5_vl_text")
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
}


@dataclass(frozen=True)
class Outcome:
    """What came of a family, tied or not.

    Attributes
    ----------
    built : str
        Empty, or why no model could be made.
    error : str
        Empty, or what the patch was refused for or failed with.
    tensors : int
        Vocabulary-shaped tensors found.
    identical : bool
        Whether the source's own vocabulary gave the same bytes.
    difference : float
        Largest difference of permuted logits, relative to the largest logit.
    """

    family: str
    tied: bool
    built: str = ""
    error: str = ""
    tensors: int = 0
    really_tied: bool = False
    identical: bool = False
    difference: float = float("nan")

    @property
    def right(self) -> bool:
        """Whether the model was built and patched as it should be."""
        return not self.built and not self.error and self.identical and self.difference < 1e-4


def tokenizer(folder: Path, moved: list[int]) -> None:
    """Save a byte-level BPE whose ids are moved."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    spellings = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for a, b in [(a, b) for a in "Ġthacsm" for b in "thaeisnmorlcb"]:
        if len(spellings) < N_TOKENS and a + b not in spellings:
            merges.append((a, b))
            spellings.append(a + b)
    made = Tokenizer(models.BPE({one: moved[i] for i, one in enumerate(spellings)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(one, special=True) for one in ("<s>", "</s>")])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def config_of(family: str, tied: bool) -> Any:
    """Return a small configuration of a family, or of a class."""
    import transformers
    from transformers import AutoConfig

    pad = None
    if is_class(family):
        kind = getattr(transformers, family).config_class.model_type
        pad = 1  # some count positions from it
    else:
        kind = family
    return small(AutoConfig.for_model(kind), kind, family, tied, pad)


def is_class(family: str) -> bool:
    """Tell a class from a model type."""
    return family in CLASSES


def small(fresh: Any, kind: str, family: str, tied: bool, pad: int | None) -> Any:
    """Return a configuration like this one, with small sizes, at every level."""
    from transformers import AutoConfig

    names = set(fresh.to_dict()) | set(getattr(type(fresh), "attribute_map", {}))
    chosen = {name: value for name, value in SIZES.items() if name in names}
    # A list of layer kinds is as long as the default's layers: the class makes it anew.
    lists = ("layer_types", "mlp_layer_types", "layers_block_type")
    chosen |= {n: None for n in lists if n in names and not _is_computed(fresh, n)}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": pad}
    if is_class(family):  # where an image stands; an id that stays
        chosen |= {name: 1 for name in fresh.to_dict() if IMAGE.search(name)}
    nested = {
        name: small(value, value.model_type, value.model_type, tied, pad).to_dict()
        for name in ("text_config", "vision_config")
        if (value := getattr(fresh, name, None)) is not None
    }
    chosen |= {**nested, **ids, "tie_word_embeddings": tied, **OWN.get(family, {})}
    return AutoConfig.for_model(kind, **chosen)


def _is_computed(config: Any, name: str) -> bool:
    """Say whether a class works a value out from others, and takes none."""
    own = getattr(type(config), name, None)
    name = getattr(type(config), "attribute_map", {}).get(name, name)
    mapped = getattr(type(config), name, None)
    return any(isinstance(one, property) and one.fset is None for one in (own, mapped))


def build(family: str, tied: bool, folder: Path) -> None:
    """Save a random model of a family with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(7)
    if is_class(family):
        model = getattr(transformers, family)(config_of(family, tied))
    else:
        model = transformers.AutoModelForCausalLM.from_config(config_of(family, tied))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1) * 0.5)
        copies = [m for n, m in model.named_modules() if COPY.search(n)]
        for copy in copies[1:]:  # an encoder–decoder reads one table, by whatever name
            copy.weight.copy_(copies[0].weight)
    model.float().save_pretrained(folder)
    tokenizer(folder, list(range(N_TOKENS)))


def try_family(family: str, tied: bool, folder: Path) -> Outcome:
    """Build, patch twice, and compare."""
    from tokensurgeon.checkpoint import Checkpoint, PatchPlan, write_checkpoint
    from tokensurgeon.checkpoint.embeddings import HEADLESS
    from tokensurgeon.errors import TokensurgeonError
    from tokensurgeon.models.load import load_model
    from tokensurgeon.models.reload import reload_check
    from tokensurgeon.vocabulary import load_vocabulary

    source = folder / "source"
    try:
        build(family, tied, source)
    except Exception as error:  # noqa: BLE001 - whatever a configuration class trips over
        return Outcome(family, tied, built=_line(error))
    moved = np.random.default_rng(3).permutation(N_TOKENS)
    if is_class(family):  # roles stay: some models count positions from a role's id
        moved = np.concatenate([[0, 1], moved[moved > 1]])
    order = np.concatenate([moved, np.arange(N_TOKENS, N_ROWS)])
    tokenizer(folder / "target", [int(i) for i in moved])
    found: dict[str, Any] = {}
    try:
        checkpoint = Checkpoint.open(source)
        found = {"tensors": len(checkpoint.layout.names), "really_tied": checkpoint.layout.tied}

        def patch(target: Path, taken: np.ndarray, out: Path) -> None:
            bias = checkpoint.output_bias()
            plan = PatchPlan(
                checkpoint=checkpoint,
                target=load_vocabulary(target),
                input_rows=checkpoint.input_rows()[taken],
                output_rows=checkpoint.output_rows()[taken],
                output_bias=None if bias is None else bias[taken],
                copied_input=taken.astype(np.int64),
                copied_output=taken.astype(np.int64),
                id_map={int(i): place for place, i in enumerate(taken)},
            )
            write_checkpoint(plan, out, check=reload_check(plan), allow_autotokenizer_mismatch=True)

        patch(source, np.arange(N_ROWS), folder / "same")
        weights = [path.name for path in source.glob("*.safetensors")]
        found["identical"] = all(
            (source / name).read_bytes() == (folder / "same" / name).read_bytes()
            for name in weights
        )
        patch(folder / "target", np.argsort(order), folder / "moved")
        before = load_model(source).logits(list(PROBE))
        after = load_model(folder / "moved").logits([int(order[i]) for i in PROBE])
        scale = float(np.abs(before).max()) or 1.0
        if checkpoint.layout.kind != HEADLESS:
            after = after[:, order]
        found["difference"] = float(np.abs(after - before).max()) / scale
    except TokensurgeonError as error:
        return Outcome(family, tied, error=_line(error), **found)
    except Exception as error:  # noqa: BLE001 - the table must show it
        return Outcome(family, tied, error=f"{type(error).__name__}: {_line(error)}", **found)
    return Outcome(family, tied, **found)


def autotokenizer() -> str:
    """Load this script's tokenizer under every model type, as users of a patched folder would."""
    from transformers import CONFIG_MAPPING

    from tokensurgeon.checkpoint import encodings
    from tokensurgeon.checkpoint.verify import check_autotokenizer
    from tokensurgeon.vocabulary import load_vocabulary

    wrong: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer(folder, list(range(N_TOKENS)))
        vocabulary = load_vocabulary(folder)
        wanted = encodings.whole_encodings(encodings.load(folder))
        types = sorted(CONFIG_MAPPING.keys())
        for kind in types:
            (folder / "config.json").write_text(json.dumps({"model_type": kind}))
            difference = check_autotokenizer(folder, vocabulary, ["the cat sat on 12 mats"])
            if difference is None:
                given = encodings.whole_encodings(encodings.load(folder))
                difference = encodings.difference(wanted, given)
            if difference is not None:
                wrong.setdefault(re.split(r", whose| \(|;", difference)[0], []).append(kind)
    good = len(types) - sum(map(len, wrong.values()))
    lines = [
        f"Of {len(types)} model types, {good} load a patched folder's tokenizer unchanged through "
        "AutoTokenizer, with the same whole encodings (pairs, padding, truncation, decoding). The "
        "others are told by name before anything is published:",
        "",
        *(f"- {what}: {', '.join(kinds)}" for what, kinds in sorted(wrong.items())),
    ]
    return "\n".join(lines) + "\n"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"/\S+/", "", text)[:160].replace("|", "\\|")


def table(outcomes: list[Outcome]) -> str:
    """Return the page's table."""
    import transformers

    built = [one for one in outcomes if not one.built]
    right = [one for one in built if one.right]
    families = {one.family for one in right}
    lines = [
        f"transformers {transformers.__version__}: {len(built)} models of "
        f"{len({one.family for one in built})} families were built; {len(right)} of them, of "
        f"{len(families)} families, were patched and gave the right bytes and logits.",
        "",
        "| family | asked | in the file | tensors | own vocabulary | permuted logits |",
        "|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        asked = "tied" if one.tied else "untied"
        if one.built:
            continue
        if one.error:
            lines.append(f"| {one.family} | {asked} | | {one.tensors or ''} | {one.error} | |")
            continue
        lines.append(
            f"| {one.family} | {asked} | {'tied' if one.really_tied else 'untied'} | "
            f"{one.tensors} | {'the same bytes' if one.identical else 'other bytes'} | "
            f"{one.difference:.0e} |"
        )
    not_built = [one for one in outcomes if one.built]
    if not_built:
        lines += ["", "Not built by this script from the class's defaults:", ""]
        lines += [
            f"- {one.family}, {'tied' if one.tied else 'untied'}: {one.built}" for one in not_built
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[*FAMILIES, *CLASSES], metavar="FAMILY")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    outcomes = []
    for family in asked.only:
        for tied in (False, True):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(try_family(family, tied, Path(folder)))
            one = outcomes[-1]
            what = one.built or one.error or f"{one.identical} {one.difference:.0e}"
            took = time.perf_counter() - start
            print(
                f"{family} {'tied' if tied else 'untied'}: {what} ({took:.1f} s)", file=sys.stderr
            )
    text = table(outcomes) + "\n## AutoTokenizer\n\n" + autotokenizer()
    if asked.output is None:
        print(text)
        return
    page = asked.output.read_text("utf-8")
    begin, end = "<!-- sweep -->\n", "<!-- /sweep -->"
    head, rest = page.split(begin)
    asked.output.write_text(head + begin + text + end + rest.split(end)[1], "utf-8")


if __name__ == "__main__":
    main()
