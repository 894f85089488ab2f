"""Train a larger technical model, on an accelerator in minutes, to measure surgeries on.

    python scripts/train_larger_model.py CORPUS FOLDER [--minutes 5] [--device cuda] [--seed N]

CORPUS is what ``gather_technical.py`` wrote; what it held out is not trained on. FOLDER gets
a checkpoint that transformers loads: Llama, width 384, 8 layers, untied, a byte-level BPE of 16,384
entries trained on the same text. Broken off, a run goes on where it was. The text is under many
licences: the model is for measuring, not for shipping.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer
from train_demo_model import Part, build_model, train, train_tokenizer
from transformers import AutoTokenizer, GenerationConfig

LARGER = Part(
    "larger", 16384, "<|endoftext|>", "<|endoftext|>", None, 384, 6, 8, 1024, general_share=1.0
)
"""As large as minutes on one accelerator train to some use."""


def main() -> None:
    """Train the tokenizer if it is not there, then the model, then write both as a checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    own = args.folder / LARGER.name
    if not (own / "tokenizer.json").exists():
        own.mkdir(parents=True, exist_ok=True)
        train_tokenizer(LARGER, args.corpus, own)
    train(LARGER, args.corpus, args.folder, args)
    state = torch.load(args.folder / f"{LARGER.name}.checkpoint.pt", weights_only=True)
    model = build_model(LARGER, Tokenizer.from_file(str(own / "tokenizer.json")))
    model.load_state_dict(state["model"])
    model.config.use_cache = True
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.bfloat16().save_pretrained(own)
    AutoTokenizer.from_pretrained(own).save_pretrained(own)


if __name__ == "__main__":
    main()
