"""Infer mixtures that are known: the table of docs/reference/inspection.md.

    python scripts/measure_mixture.py FOLDER-OF-TEXTS

A stock BPE is trained on every other block of fifty lines of each text, cut to given shares. Its
mixture is inferred from the other blocks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tokensurgeon.inspection import infer_mixture
from tokensurgeon.vocabulary import vocabulary_from_tokenizer

MIXTURES = (
    ({"flores-en": 0.7, "flores-de": 0.3}, 130_000),
    ({"flores-en": 0.9, "flores-de": 0.1, "flores-es": 0.0}, 130_000),
    ({"flores-en": 0.5, "flores-de": 0.3, "flores-es": 0.2}, 200_000),
    ({"wikitext2-valid": 0.6, "code-python-attrs": 0.4}, 200_000),
    ({"wikitext2-valid": 0.5, "code-python-attrs": 0.3, "flores-es": 0.2}, 300_000),
)
SIZE = 3_300
"""Tokens: somewhat more than the merges from which a mixture is inferred."""


def halves(path: Path) -> tuple[str, str]:
    """Return two halves of a text, of alternating blocks of fifty lines."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    blocks = ["".join(lines[start : start + 50]) for start in range(0, len(lines), 50)]
    return "".join(blocks[::2]), "".join(blocks[1::2])


def trained(texts: list[str], kind: str) -> Tokenizer:
    """Train a stock BPE, over bytes or like SentencePiece's."""
    tokenizer = Tokenizer(models.BPE())
    alphabet: list[str] = []
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main(folder: Path) -> None:
    """Print one line per mixture and kind of BPE."""
    print("| trained on | BPE | inferred | largest error | merges used | slack | CPU-seconds |")
    print("|---|---|---|---|---|---|---|")
    for shares, total in MIXTURES:
        texts = {name: halves(folder / f"{name}.txt") for name in shares}
        given = {
            name: texts[name][0].encode()[: int(total * share)].decode("utf-8", "ignore")
            for name, share in shares.items()
        }
        n_bytes = {name: len(text.encode()) for name, text in given.items()}
        true = {name: n / sum(n_bytes.values()) for name, n in n_bytes.items()}
        for kind in ("bytes", "metaspace"):
            vocabulary = vocabulary_from_tokenizer(trained(list(given.values()), kind))
            started = time.process_time()
            mixture = infer_mixture(vocabulary, {name: [texts[name][1]] for name in shares})
            seconds = time.process_time() - started
            error = max(abs(mixture.shares[name] - true[name]) for name in shares)
            expected, inferred = (", ".join(f"{n} {100 * x:.1f}" for n, x in t.items())
                                  for t in (true, mixture.shares))  # fmt: skip
            print(f"| {expected} | {kind} | {inferred} | {100 * error:.1f} | {mixture.merges} | "
                  f"{100 * mixture.slack:.1f} % | {seconds:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
