"""What is to be trained: settings, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from tokensurgeon.errors import SettingError
from tokensurgeon.trainers.counting.pretokenizers import (
    BARRIERS,
    DIGITS,
    NO_CROSS,
    PRETOKENIZERS,
    check_choice,
    check_range,
    joined_pattern,
    pattern,
)
from tokensurgeon.trainers.training_methods import METHODS, METHODS_BY_NAME

MAX_SIZE = 2_000_000
MOST_WORDS = 4
"""Of a token, counted in pieces of the pre-tokenizer; as SuperBPE published."""
LONGEST_SUPERWORD = 64
"""In bytes: rules and tables drawn with punctuation would else become tokens."""


@dataclass(frozen=True)
class Shape:
    """How tokens of a vocabulary may look; None, or a method that has no use for it: its own way.

    Attributes
    ----------
    encoder : {"bpe", "min-tokens"} or None
    transition : float or None
        Share of what is learned that is learned inside words.
    most_words : int
        Of a token of several words.
    no_cross : tuple of {"newline", "digits", "punctuation"}
        What such a token never crosses.
    max_pieces : int or None
        The most words and signs in a run that such tokens are learned from.
    longest : int or None
        Bytes of a token; for `characters`, characters.
    terms : tuple of str
        For `terms` and `morphemes`.
    parallel : bool
        For `parity`: the parts are translations of each other. Else they are taken for that where
        they have equally many lines, and compared by bytes where not.
    """

    encoder: str | None = None
    transition: float | None = None
    most_words: int = MOST_WORDS
    no_cross: tuple[str, ...] = NO_CROSS
    max_pieces: int | None = None
    longest: int | None = None
    terms: tuple[str, ...] = ()
    parallel: bool = False


@dataclass(frozen=True)
class Plan:
    """The settings of one training, checked; made by `make_plan`.

    Attributes
    ----------
    method : str
    size : int
        Number of ids, controls and bytes included.
    controls : tuple of str
    preset, digits : str
    encoder : {"bpe", "min-tokens"}
    shape : Shape
    seed : int
    """

    method: str
    size: int
    controls: tuple[str, ...] = ()
    preset: str = "cl100k"
    digits: str = "left-3"
    encoder: str = "bpe"
    shape: Shape = Shape()
    seed: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens that are not controls: the 256 bytes and what is learned."""
        return self.size - len(self.controls)

    @property
    def cut(self) -> str | None:
        """The pattern of words; None where nothing is cut."""
        return pattern(self.preset, self.digits)

    @property
    def joined(self) -> str:
        """The pattern of runs of words."""
        return joined_pattern(
            self.preset, self.digits, no_cross=self.shape.no_cross, max_pieces=self.shape.max_pieces
        )

    def within(self, default: float) -> int:
        """Return how many tokens there are after the first stage, the bytes included."""
        share = default if self.shape.transition is None else self.shape.transition
        return 256 + max(1, round(share * (self.n_tokens - 256)))


def make_plan(
    method: str,
    size: int | None,
    preset: str,
    digits: str,
    shape: Shape,
    controls: Sequence[str],
    multiple: int = 1,
    seed: int = 0,
) -> Plan:
    """Return a checked plan.

    Raises
    ------
    UsageError
        If a setting is unknown, out of range, or not one that the method has.
    """
    check_choice("method", method, METHODS)
    check_choice("pre-tokenizer", preset, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    for barrier in shape.no_cross:
        check_choice("barrier", barrier, BARRIERS)
    way = METHODS_BY_NAME[method]
    encoder = shape.encoder or way.encoders[0]
    check_choice(f"encoder for {method}", encoder, way.encoders)
    if way.lists != bool(shape.terms):
        raise SettingError(
            f"{method} needs a list of terms" if way.lists else f"{method} takes no list of terms"
        )
    if shape.transition is not None and not 0 < shape.transition < 1:
        raise SettingError(f"transition is {shape.transition}; take a share between 0 and 1")
    check_range("most words of a token", shape.most_words, 2, 64)
    if shape.max_pieces is not None:
        check_range("most pieces of a run", shape.max_pieces, 2, 10_000)
    if shape.longest is not None:
        check_range("longest token", shape.longest, 1, 1_000)
    check_range("multiple", multiple, 1, 65_536)
    least = 256 + len(controls)
    if method == "bytes":
        size = least
    if size is None:
        raise SettingError(f"{method} needs a size")
    check_range("size", size, least + (method != "bytes"), MAX_SIZE)
    # The reserved tokens are controls too; what is learned is not made less by them.
    n_reserved = -size % multiple
    reserved = tuple(f"<|reserved_{number}|>" for number in range(n_reserved))
    return Plan(
        method=method,
        size=size + n_reserved,
        controls=(*controls, *reserved),
        preset=preset,
        digits=digits,
        encoder=encoder,
        shape=shape,
        seed=seed,
    )


def distinct_controls(controls: Sequence[str]) -> list[str]:
    """Return control tokens, each once.

    Raises
    ------
    SettingError
        If one is empty or a single letter.
    """
    found: list[str] = []
    for control in controls:
        if not control or control.isspace():
            raise SettingError("a control token is empty; give it a spelling such as <|endoftext|>")
        if len(control) == 1:
            raise SettingError(f"the control token {control!r} is a letter of text; spell it <…>")
        if control not in found:
            found.append(control)
    return found


def settings_of(plan: Plan, roles: Mapping[str, str], n_controls: int) -> dict[str, Any]:
    """Return the settings as ``training.json`` has them."""
    return {
        "method": plan.method,
        "encoder": plan.encoder,
        "size": plan.size,
        "pretokenizer": plan.preset,
        "digits": plan.digits,
        "transition": plan.shape.transition,
        "most_words": plan.shape.most_words,
        "no_cross": list(plan.shape.no_cross),
        "max_pieces": plan.shape.max_pieces,
        "longest": plan.shape.longest,
        "terms": len(plan.shape.terms),
        "parallel": plan.shape.parallel,
        "seed": plan.seed,
        "controls": dict(roles),
        "extra_controls": [
            each for each in plan.controls[:n_controls] if each not in roles.values()
        ],
        "reserved": len(plan.controls) - n_controls,
    }


def few_words(plan: Plan) -> Callable[[bytes], bool]:
    """Return a rule for `Merger`: a token of few words, and not too long."""
    cut = regex.compile(str(plan.cut))
    longest = plan.shape.longest or LONGEST_SUPERWORD

    def allow(token: bytes) -> bool:
        if len(token) > longest:
            return False
        # A token may begin or end inside a character; its parts then count as any other text.
        return len(cut.findall(token.decode("utf-8", errors="replace"))) <= plan.shape.most_words

    return allow
