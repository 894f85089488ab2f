"""Train the target tokenizer that a recipe describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError, RecipeError
from tokensurgeon.outputs import scratch_folder
from tokensurgeon.progress import Progress
from tokensurgeon.recipe import TrainSpec
from tokensurgeon.text.corpus import Corpus
from tokensurgeon.text.seen import SEEN_FILE
from tokensurgeon.text.setting_file import read_setting
from tokensurgeon.trainers.counting.pretokenizers import DIGITS
from tokensurgeon.trainers.digit_cut import scheme_like
from tokensurgeon.trainers.edits.extend import extend_vocabulary
from tokensurgeon.trainers.edits.prune import prune_vocabulary
from tokensurgeon.trainers.mixture import Part, parse_mixture
from tokensurgeon.trainers.plan import Shape
from tokensurgeon.trainers.train import train_vocabulary
from tokensurgeon.trainers.trained import check_output
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

SOURCE = "source"
"""The name by which a recipe refers to its own source's tokenizer, as a base or for digits."""


def train_target(
    spec: TrainSpec,
    source: Vocabulary,
    force: bool,
    progress: Progress,
    parted: tuple[Corpus, Corpus] | None = None,
) -> Vocabulary:
    """Train and load a tokenizer; save it if the recipe names a folder.

    `source` is that of the recipe's source model. `parted` is the text to train on and the text to
    measure on, where they were read already.

    Raises
    ------
    UsageError, CorpusError, TokenizerError
        As `train_vocabulary`, `extend_vocabulary` and `prune_vocabulary` do.
    """
    with scratch_folder() as scratch:
        folder = Path(spec.save) if spec.save else scratch / "tokenizer"
        text: dict[str, Part] | Sequence[str] | Corpus
        text = parse_mixture(spec.mixture) if spec.mixture else spec.corpus
        base = source.folder if spec.base == SOURCE else spec.base
        common: dict[str, Any] = {"output": folder, "force": force, "progress": progress}
        if spec.save:
            check_output(folder, force, text, base)
        if parted is not None:
            text, common["held_out"] = parted
        if base is None:
            shape = Shape(
                encoder=spec.encoder,
                transition=spec.transition,
                most_words=spec.max_words,
                no_cross=spec.no_cross,
                max_pieces=spec.max_pieces,
                longest=spec.longest,
                terms=_read_lines(spec.list),
                parallel=spec.parallel,
            )
            train_vocabulary(
                text,
                method=spec.method,
                size=spec.size,
                pretokenizer=spec.pretokenizer,
                digits=_digits(spec, source),
                shape=shape,
                controls_of=source if spec.controls == SOURCE else None,
                borders=spec.borders,
                **common,
            )
        elif spec.method == "prune":
            common.pop("held_out", None)  # it is measured on what it is pruned for
            prune_vocabulary(base, text, scripts=spec.scripts, size=spec.size, **common)
        else:
            extend_vocabulary(
                base,
                text,
                size=spec.size,
                add=spec.add,
                never_longer=spec.never_longer,
                spare=spec.spare,
                across=spec.across,
                most_words=spec.max_words,
                no_cross=spec.no_cross,
                longest=spec.longest,
                borders=spec.borders,
                **common,
            )
        vocabulary = load_vocabulary(folder)
        if (folder / SEEN_FILE).is_file():
            vocabulary.carried[SEEN_FILE] = (folder / SEEN_FILE).read_bytes()
        return vocabulary


def patterns_of(spec: TrainSpec) -> list[str]:
    """Return the files, globs and datasets that a tokenizer is trained on."""
    parts = parse_mixture(spec.mixture)
    return [*spec.corpus, *(pattern for part in parts.values() for pattern in part.patterns)]


def _digits(spec: TrainSpec, source: Vocabulary) -> str:
    """Return the scheme by which digits are to be cut."""
    if spec.digits == SOURCE and source.number_scheme not in DIGITS:
        raise RecipeError(
            f"the source cuts digits as {source.number_scheme!r}; give 'digits' one of "
            f"{', '.join(DIGITS)}"
        )
    return scheme_like(source) if spec.digits in (None, SOURCE) else spec.digits


def _read_lines(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    try:
        return tuple(read_setting(name, "the list").splitlines())
    except CorpusError as error:
        raise RecipeError(str(error)) from error
