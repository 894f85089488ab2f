#!/usr/bin/env python3
"""Write a tiny tokenizer of every class that transformers has, and say which classes are kept.

    python scripts/sweep_tokenizers.py [--only CLASS …] [-o docs/reference/model-families.md]

For each class a tokenizer is made of a tiny vocabulary of the kind that the class takes, saved, and
written as the tokenizer of a patched checkpoint would be: once as its own target, and once with
the same tokenizer.json in a folder that names no class, as a trained vocabulary does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TEXTS = (
    "The index is scanned from left to right, and every row that matches is returned.",
    "A table has rows and columns; a row that is locked cannot be changed by another session.",
)
SPECIALS = (
    *("<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<mask>"),
    *("<|endoftext|>", "en_XX", "de_DE", "eng_Latn", "deu_Latn", "__eng__", "__deu__"),
)
"""What classes look for in their vocabulary."""


@dataclass(frozen=True)
class Kept:
    """What became of a class.

    Attributes
    ----------
    name : str
    own, bare : str
        The class that was written where the target was the tokenizer itself, and where its folder
        named no class.
    lines : tuple of str
        What was said.
    methods : tuple of str
        What only this class can do.
    failed : str
        Why no tokenizer of the class could be made.
    """

    name: str
    own: str = ""
    bare: str = ""
    lines: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    failed: str = ""


def classes() -> dict[str, str]:
    """Return a model type by the name of each class that reads a tokenizer.json."""
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    found: dict[str, str] = {}
    for kind, name in sorted(TOKENIZER_MAPPING_NAMES.items()):
        cls = getattr(transformers, name or "", None)
        if isinstance(cls, type) and issubclass(cls, transformers.TokenizersBackend):
            found.setdefault(cls.__name__, kind)
    found.pop("TokenizersBackend", None)
    return dict(sorted(found.items()))


def trained(model: str, byte_level: bool) -> Any:
    """Return the vocabulary of a tiny model of a kind, and its merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(getattr(models, model)())
    made.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if byte_level
        else pre_tokenizers.BertPreTokenizer()
        if model == "WordPiece"
        else pre_tokenizers.Metaspace()
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else []
    trainer = getattr(trainers, f"{model.replace('BPE', 'Bpe')}Trainer")(
        vocab_size=400, special_tokens=list(SPECIALS), initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXTS, trainer)
    document = json.loads(made.to_str())["model"]
    if model == "Unigram":
        return {"vocab": [(piece, score) for piece, score in document["vocab"]]}
    if model == "BPE":
        return {"vocab": document["vocab"], "merges": [tuple(m) for m in document["merges"]]}
    return {"vocab": document["vocab"]}


def make(name: str) -> Any:
    """Return a tiny tokenizer of a class."""
    import transformers

    cls = getattr(transformers, name)
    model = cls.model.__name__ if cls.model is not None else "BPE"
    try:
        tokenizer = cls(**trained(model, byte_level=False))
    except (TypeError, ValueError):  # some take a list of pieces with scores, whatever they say
        return cls(**trained("Unigram", byte_level=False))
    if model == "BPE" and "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer):
        tokenizer = cls(**trained(model, byte_level=True))
    return tokenizer


def try_class(name: str, kind: str, folder: Path) -> Kept:
    """Write the tokenizer of a class, and say which class was written."""
    from tokensurgeon.checkpoint import transformers_internals as internals
    from tokensurgeon.checkpoint.tokenizer_methods import own_methods
    from tokensurgeon.errors import TokensurgeonError

    source, bare = folder / "source", folder / "bare"
    try:
        with internals.quiet():
            made = make(name)
            made.save_pretrained(source)
    except Exception as error:  # noqa: BLE001 - whatever a class trips over
        return Kept(name, failed=f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
    (source / "config.json").write_text(json.dumps({"model_type": kind}))
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    stored = json.loads((source / "tokenizer_config.json").read_text())
    roles = {key: value for key, value in stored.items() if key.endswith("_token")}
    roles["tokenizer_class"] = "TokenizersBackend"
    (bare / "tokenizer_config.json").write_text(json.dumps(roles))
    written, lines = [], []
    try:
        for target in (source, bare):
            done = write(source, target, folder / f"out-{target.name}")
            written.append(done[0])
            lines += done[1]
    except TokensurgeonError as error:
        return Kept(name, failed=str(error)[:160])
    methods = tuple(own_methods(made))
    return Kept(name, written[0], written[1], tuple(dict.fromkeys(lines)), methods)


def write(source: Path, target: Path, out: Path) -> tuple[str, list[str]]:
    """Write a tokenizer as for a patched checkpoint; return its class and what was said."""
    from tokensurgeon.checkpoint.embeddings import HEADLESS
    from tokensurgeon.checkpoint.tokenizer_class import settle_class
    from tokensurgeon.checkpoint.tokenizer_files import tokenizer_files
    from tokensurgeon.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(target)
    checkpoint = SimpleNamespace(
        path=source, layout=SimpleNamespace(kind=HEADLESS), max_positions=None
    )
    plan: Any = SimpleNamespace(
        checkpoint=checkpoint, target=vocabulary, chat_template=None, special_tokens="source",
        id_map={i: i for i in range(vocabulary.n_rows)},
    )  # fmt: skip
    files = tokenizer_files(plan)
    out.mkdir()
    (out / "config.json").write_bytes((source / "config.json").read_bytes())
    for name, data in files.files.items():
        (out / name).write_bytes(data)
    difference = settle_class(files, plan, out)
    said = [*files.warnings, *([] if difference is None else [f"refused: {difference}"])]
    written = json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"]
    return written, said


def page(outcomes: list[Kept]) -> str:
    """Return the section of the page."""
    built = [one for one in outcomes if not one.failed]
    kept = [one for one in built if one.own == one.name]
    methods = [one for one in built if one.bare == one.name]
    lines = [
        f"Of the {len(outcomes)} classes of tokenizers that read a tokenizer.json, "
        f"{len(built)} were made with a tiny vocabulary. {len(kept)} of them are kept as they are, "
        "for AutoTokenizer then gives the very tokenizer that was written; "
        f"{len(methods)} have methods of their own and are kept even where the target's folder "
        "names no class. Elsewhere TokenizersBackend is written, which reads tokenizer.json as it "
        "is.",
        "",
        f"- kept: {', '.join(one.name for one in kept) or 'none'}",
        "- TokenizersBackend in its place: "
        + (", ".join(one.name for one in built if one not in kept) or "none"),
    ]
    if any(one.failed for one in outcomes):
        lines.append(f"- not made: {', '.join(one.name for one in outcomes if one.failed)}")
    return "\n".join(textwrap.fill(line, 100, subsequent_indent="  " * (line[:1] == "-"))
                     for line in lines) + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=None, metavar="CLASS")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    outcomes = []
    for name, kind in classes().items():
        if asked.only is None or name in asked.only:
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(try_class(name, kind, Path(folder)))
            one = outcomes[-1]
            print(f"{name} ({kind}): {one.failed or (one.own, one.bare)}", file=sys.stderr)
            print(*(f"    {line}" for line in one.lines), sep="\n", file=sys.stderr)
    if asked.output is None:
        print(page(outcomes))
        return
    whole = asked.output.read_text("utf-8")
    begin, end = "<!-- classes -->\n", "<!-- /classes -->"
    head, rest = whole.split(begin)
    asked.output.write_text(head + begin + page(outcomes) + end + rest.split(end)[1], "utf-8")


if __name__ == "__main__":
    main()
