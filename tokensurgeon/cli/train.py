"""``tokensurgeon train``: a new vocabulary from text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokensurgeon.cli import console
from tokensurgeon.errors import SettingError
from tokensurgeon.text.borders import BORDERS
from tokensurgeon.trainers.counting.pretokenizers import (
    BARRIERS,
    DIGITS,
    NO_CROSS,
    PRETOKENIZER,
    PRETOKENIZERS,
    SCHEME,
)
from tokensurgeon.trainers.training_methods import ENCODERS, METHODS, SPARE

if TYPE_CHECKING:
    from tokensurgeon.trainers import TrainedVocabulary

EDITS = ("extend", "prune")


def _kinds(given: str | None) -> tuple[str, ...]:
    if given is None:
        return NO_CROSS
    return tuple(kind for kind in given.split(",") if kind and kind != "nothing")


def _read(name: str | None) -> str | None:
    from tokensurgeon.text.setting_file import read_setting

    return None if name is None else read_setting(name)


def cut_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how text is cut into segments."""
    for option in (
        console.option("--max-pieces N", "Of a run of words.", type=click.IntRange(min=2)),
        console.option(
            "--no-cross KINDS",
            f"What no token of several words crosses, of {', '.join(BARRIERS)}, or nothing."
            f"  [default: {','.join(NO_CROSS)}]",
            parse=_kinds,
        ),
        console.option(
            "--digits",
            f"How runs of digits are cut.  [default: as in --source, else {SCHEME}]",
            type=click.Choice(DIGITS),
        ),
        console.option(
            "--pretokenizer",
            f"How text is cut into words.  [default: {PRETOKENIZER}]",
            type=click.Choice(PRETOKENIZERS),
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Train a new vocabulary.")
@click.argument("method", metavar="METHOD", type=click.Choice((*METHODS, *EDITS)))
@click.argument("corpus", metavar="[CORPUS...]", nargs=-1)
@console.option(
    "--size N",
    "Number of ids; control tokens and the 256 bytes count. prune keeps the most used.",
    type=click.IntRange(min=257),
)
@console.option("-o --output DIR", "The folder to write.", required=True)
@console.option(
    "--mixture NAME=SHARE:FILES",
    "A part of the text and its share, or NAME:FILES without one; instead of CORPUS.",
    multiple=True,
)
@console.option(
    "--held-out FILE", "Text to measure on.  [default: a twentieth of the documents]", multiple=True
)
@cut_options
@console.option(
    "--source TOKENIZER", "That of the model to move: digits are cut as it does, without --digits."
)
@console.option(
    "--encoder",
    "Spell by merges, or with the fewest tokens.  [default: bpe where it can]",
    type=click.Choice(ENCODERS),
)
@console.option(
    "--transition SHARE",
    "Share of the tokens that are learned inside words.  [default: the method's]",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
)
@console.option("--max-words N", "Of a token.", "most_words", type=click.IntRange(2, 64), default=4)
@console.option("--longest N", "Bytes (characters) of a token.", type=console.AT_LEAST_1)
@console.option(
    "--list FILE",
    "A term, a morpheme or a parted word (Haus|tür) a line.",
    "terms",
    parse=lambda name: tuple((_read(name) or "").splitlines()),
)
@console.option("--parallel", "For parity: the parts are translations of each other.")
@console.option(
    "--add N", "For extend: number of new tokens, in place of --size.", type=console.AT_LEAST_1
)
@console.option(
    "--never-longer",
    "For extend: refuse a result in which a text could take more tokens than before.",
)
@console.option(
    "--spare SHARE",
    "For extend: share of tokens learned beyond those asked, of which the least used are dropped.",
    type=click.FloatRange(min=0),
    default=SPARE,
)
@console.option("--across", "Let extend make tokens of several words.")
@console.option(
    "--least-uses N",
    "For prune: keep tokens that the text has so often.",
    type=console.AT_LEAST_1,
    default=1,
)
@console.script_option
@console.option("--base TOKENIZER", "For extend and prune: the tokenizer whose ids are kept.")
@console.option("--bos TOKEN", "Starts a text.  [default: as --eos]")
@console.option("--eos TOKEN", "Ends a text.  [default: <|endoftext|>, or as in --controls-of]")
@console.option("--pad TOKEN", "Fills up a batch.  [default: none]")
@console.option(
    "--control TOKEN",
    "A further control token, such as a chat marker; may be repeated.",
    "extra_controls",
    multiple=True,
)
@console.option(
    "--controls-of TOKENIZER",
    "That of the model to move: its control tokens are taken, with their roles and ids.",
)
@console.option(
    "--borders",
    "Strings in the text that end a document and are not learned from: the vocabulary's own "
    "control tokens, or these and well-known ones such as <|im_start|>.",
    type=click.Choice(BORDERS),
    default=BORDERS[0],
)
@console.option(
    "--pad-to-multiple-of N",
    "Reserve control tokens up to such a number of ids; prune keeps further tokens.",
    type=console.AT_LEAST_1,
    default=1,
)
@console.option("--chat-template FILE", "A Jinja template to write beside.", parse=_read)
@console.field_option
@console.option("--processes N", "[default: all cores]", type=console.AT_LEAST_1)
@console.option(
    "--memory-gib GIB",
    "For counts of segments; beyond it the rarest are dropped.",
    type=click.FloatRange(min=0.01),
    default=2.0,
)
@console.option("--counts FILE", "Keep counts here, and go on from them.")
@console.option(
    "--from-counts DIR",
    "Train from what tokensurgeon count wrote, in the place of CORPUS; cuts are those of the "
    "counts.",
)
@console.option("--seed N", "Of the chunks of supertoken.", type=int, default=0)
@console.force_option
@console.json_option
def command(
    method: str,
    corpus: tuple[str, ...],
    mixture: tuple[str, ...],
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
    from tokensurgeon.report.tokenizer_tables import print_trained
    from tokensurgeon.trainers.mixture import parse_mixture

    textless = method == "prune" and (options["scripts"] or options["size"] is not None)
    n_given = bool(corpus) + bool(mixture) + (options["from_counts"] is not None)
    if n_given > 1 or (not n_given and not textless):
        raise SettingError("give files to train on, --mixture or --from-counts, one of them")
    text = parse_mixture(mixture) if mixture else list(corpus)
    with console.progress() as progress:
        options["progress"] = progress
        digits = {name: options.pop(name) for name in ("digits", "source")}
        if method in EDITS:
            if any(digits.values()):
                raise SettingError(
                    f"{method} cuts digits as --base does: leave out --digits, --source"
                )
            trained = _edit(method, base, text, options)
        elif base is not None:
            raise SettingError(
                f"--base is for {' and '.join(EDITS)}, not for {method}; leave it out"
            )
        else:
            trained = _train(method, text, options | {"digits": _scheme(**digits)})
    facts = {"path": str(trained.path), **trained.to_dict()}
    console.write_result(as_json, facts, print_trained, trained)


def _scheme(digits: str | None, source: str | None) -> str | None:
    """Return the scheme for digits: the one that is named, else the source's."""
    if digits or source is None:
        return digits
    from tokensurgeon.trainers.digit_cut import scheme_like
    from tokensurgeon.vocabulary import load_vocabulary

    return scheme_like(load_vocabulary(source))


def _train(method: str, text: Any, options: dict[str, Any]) -> TrainedVocabulary:
    from tokensurgeon.trainers import Shape, train_vocabulary

    for name in ("across", "add", "never_longer", "spare"):
        del options[name]
    if options.pop("least_uses") > 1 or options.pop("scripts"):
        raise SettingError(
            f"--least-uses and --keep-script are for prune, not for {method}: leave them out"
        )
    shape = Shape(**{field.name: options.pop(field.name) for field in fields(Shape)})
    return train_vocabulary(text, method=method, shape=shape, **options)


def _edit(method: str, base: str | None, text: Any, options: dict[str, Any]) -> TrainedVocabulary:
    from tokensurgeon.trainers import extend_vocabulary, prune_vocabulary

    if base is None:
        raise SettingError(f"{method} changes a tokenizer: give it with --base")
    if method == "extend" and (options["size"] is None) == (options["add"] is None):
        raise SettingError(
            "extend needs the number of new tokens, or of ids in the end: give one of "
            "--add and --size"
        )
    edit: Callable[..., TrainedVocabulary]
    edit = prune_vocabulary if method == "prune" else extend_vocabulary
    known = signature(edit).parameters
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name in options and name not in known and name != "size":
            raise SettingError(f"{method} has no use for {parameter.opts[-1]}: leave it out")
    return edit(base, text, **{name: options[name] for name in options if name in known})
