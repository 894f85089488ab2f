"""``tokensurgeon train``: a new vocabulary from text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.trainers.counting.pretokenizers import BARRIERS, DIGITS, NO_CROSS, PRETOKENIZERS
from tokensurgeon.trainers.training_methods import ENCODERS, METHODS

if TYPE_CHECKING:
    from tokensurgeon.trainers import TrainedVocabulary

EDITS = ("extend", "prune")


@click.command(short_help="Train a new vocabulary.")
@click.argument("method", metavar="METHOD", type=click.Choice((*METHODS, *EDITS)))
@click.argument("corpus", metavar="[CORPUS...]", nargs=-1)
@click.option(
    "--size",
    type=click.IntRange(min=257),
    metavar="N",
    help="Number of ids; control tokens and the 256 bytes count.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write.")
@click.option(
    "--mixture",
    multiple=True,
    metavar="NAME=SHARE:FILES",
    help="A part of the text and its share, or NAME:FILES without one; instead of CORPUS.",
)
@click.option(
    "--held-out",
    multiple=True,
    metavar="FILE",
    help="Text to measure on.  [default: a twentieth of the documents]",
)
@click.option(
    "--pretokenizer",
    type=click.Choice(PRETOKENIZERS),
    default="cl100k",
    show_default=True,
    help="How text is cut into words.",
)
@click.option(
    "--digits",
    type=click.Choice(DIGITS),
    default="left-3",
    show_default=True,
    help="How runs of digits are cut.",
)
@click.option(
    "--encoder",
    type=click.Choice(ENCODERS),
    help="Spell by merges, or with the fewest tokens.  [default: bpe where it can]",
)
@click.option(
    "--transition",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the tokens that are learned inside words.  [default: the method's]",
)
@click.option(
    "--max-words",
    type=click.IntRange(2, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Of a token.",
)
@click.option(
    "--no-cross",
    metavar="KINDS",
    help=f"What no token of several words crosses, of {', '.join(BARRIERS)}, or nothing."
    f"  [default: {','.join(NO_CROSS)}]",
)
@click.option("--max-pieces", type=click.IntRange(min=2), metavar="N", help="Of a run of words.")
@click.option(
    "--longest", type=click.IntRange(min=1), metavar="N", help="Bytes (characters) of a token."
)
@click.option(
    "--list",
    "list_file",
    metavar="FILE",
    help="A term, a morpheme or a parted word (Haus|tür) a line.",
)
@click.option(
    "--parallel", is_flag=True, help="For parity: the parts are translations of each other."
)
@click.option("--across", is_flag=True, help="Let extend make tokens of several words.")
@click.option(
    "--base", metavar="TOKENIZER", help="For extend and prune: the tokenizer whose ids are kept."
)
@click.option("--bos", metavar="TOKEN", help="Starts a text.  [default: as --eos]")
@click.option(
    "--eos", metavar="TOKEN", default="<|endoftext|>", show_default=True, help="Ends a text."
)
@click.option("--pad", metavar="TOKEN", help="Fills up a batch.  [default: none]")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="TOKEN",
    help="A further control token, such as a chat marker; may be repeated.",
)
@click.option(
    "--pad-to-multiple-of",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Reserve control tokens up to such a number of ids.",
)
@click.option("--chat-template", metavar="FILE", help="A Jinja template to write beside.")
@console.field_option
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="[default: all cores]")
@click.option(
    "--memory-gib",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    help="For counts of segments; beyond it the rarest are dropped.",
)
@click.option("--counts", metavar="FILE", help="Keep counts here, and go on from them.")
@click.option("--seed", type=int, default=0, help="Of the chunks of supertoken.")
@console.force_option
@console.json_option
def command(
    method: str,
    corpus: tuple[str, ...],
    output: str,
    mixture: tuple[str, ...],
    list_file: str | None,
    base: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a vocabulary on text, and write it as a folder that transformers can load.

    METHOD is bpe, unigram or wordpiece; superbpe, boundless, supertoken, mwt or lzw, whose tokens
    may span several words; pathpiece or lib, which keep what shortens the text; parity, which
    serves all languages of a --mixture; characters, terms, morphemes, dna or bytes; or extend or
    prune, which change the tokenizer --base and keep its ids. All but extended and pruned ones are
    over bytes and so lossless.

    CORPUS is files, folders or globs: .txt, .md and source code, .json, .jsonl and .parquet, packed
    with .gz or .zst or not, and hf:NAME[:SPLIT] for a dataset. Some of the text is held out to
    measure bytes per token, beside a plain BPE of equal size.
    """
    from tokensurgeon.trainers.mixture import parse_mixture

    if bool(corpus) == bool(mixture):
        raise SettingError("give either files to train on or --mixture, one of them")
    text = parse_mixture(mixture) if mixture else list(corpus)
    with console.progress() as progress:
        shared = {"output": output, "progress": progress}
        if method in EDITS:
            trained = _edit(method, base, text, options | shared)
        elif base is not None:
            raise SettingError(f"--base is for {' and '.join(EDITS)}, not for {method}")
        else:
            trained = _train(method, text, list_file, options | shared)
    if as_json:
        console.write_json({"path": str(trained.path), **trained.to_dict()})
    else:
        from tokensurgeon.report.tokenizer_tables import print_trained

        print_trained(console.stdout(), trained)


def _train(
    method: str, text: Any, list_file: str | None, options: dict[str, Any]
) -> TrainedVocabulary:
    from tokensurgeon.trainers import Shape, train_vocabulary

    template = options.pop("chat_template")
    shape = Shape(
        encoder=options.pop("encoder"),
        transition=options.pop("transition"),
        most_words=options.pop("max_words"),
        no_cross=_kinds(options.pop("no_cross")),
        max_pieces=options.pop("max_pieces"),
        longest=options.pop("longest"),
        parallel=options.pop("parallel"),
        terms=tuple(_read(list_file).splitlines()) if list_file else (),
    )
    options.pop("across")
    return train_vocabulary(
        text,
        method=method,
        shape=shape,
        extra_controls=options.pop("controls"),
        chat_template=_read(template) if template else None,
        **options,
    )


def _edit(method: str, base: str | None, text: Any, options: dict[str, Any]) -> TrainedVocabulary:
    from tokensurgeon.trainers import extend_vocabulary, prune_vocabulary

    if base is None:
        raise SettingError(f"{method} changes a tokenizer: give it with --base")
    shared = {name: options[name] for name in ("output", "field", "force", "progress")}
    if method == "prune":
        if options["size"] is not None:
            raise SettingError("prune keeps what the text uses: leave --size out")
        return prune_vocabulary(base, text, **shared)
    if options["size"] is None:
        raise SettingError("extend needs --size, the number of ids in the end")
    return extend_vocabulary(
        base,
        text,
        most_words=options["max_words"],
        no_cross=_kinds(options["no_cross"]),
        **{
            name: options[name]
            for name in (
                "size", "across", "longest", "held_out", "processes", "memory_gib", "counts",
            )
        },
        **shared,
    )  # fmt: skip


def _kinds(given: str | None) -> tuple[str, ...]:
    if given is None:
        return NO_CROSS
    return tuple(kind for kind in given.split(",") if kind and kind != "nothing")


def _read(name: str) -> str:
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise CorpusError(f"cannot read {name}: {reason}") from error
