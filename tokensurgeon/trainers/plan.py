"""The settings of a training, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tokensurgeon.errors import SettingError
from tokensurgeon.trainers.control_tokens import Controls
from tokensurgeon.trainers.counting.pretokenizers import (
    BARRIERS,
    DIGITS,
    NO_CROSS,
    PRETOKENIZER,
    PRETOKENIZERS,
    SCHEME,
    check_choice,
    check_range,
    joined_pattern,
    pattern,
)
from tokensurgeon.trainers.training_methods import METHODS, METHODS_BY_NAME

MAX_SIZE = 2_000_000
"""Most ids: the merge engine packs two of them, of 21 bits each, into one number."""
MOST_WORDS = 4
"""Words of a token, counted in pieces of the pre-tokenizer; as SuperBPE published."""
LONGEST_SUPERWORD = 64
"""Bytes of a token of several words: otherwise lines drawn with punctuation would become tokens."""


@dataclass(frozen=True)
class Shape:
    """What tokens of a vocabulary may look like. None means the method's default.

    A method ignores the settings that it has no use for.

    Attributes
    ----------
    encoder : {"bpe", "min-tokens"} or None
    transition : float or None
        Share of the learned tokens that are learned inside words.
    most_words : int
        Most words of a token of several words.
    no_cross : tuple of {"newline", "digits", "punctuation"}
        What such a token never crosses.
    max_pieces : int or None
        Most words and signs in a run that such tokens are learned from.
    longest : int or None
        Most bytes of a token; for `characters`, characters.
    terms : tuple of str
        The list of terms or morphemes, for `terms` and `morphemes`.
    parallel : bool
        For `parity`: the parts are translations of each other. Otherwise parts with about equally
        many lines count as translations, and others are compared by bytes.
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
    """The checked settings of one training; made by `make_plan`.

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
    preset: str = PRETOKENIZER
    digits: str = SCHEME
    encoder: str = "bpe"
    shape: Shape = Shape()
    seed: int = 0

    @property
    def n_tokens(self) -> int:
        """Number of tokens without controls: the 256 bytes and those to be learned."""
        return self.size - len(self.controls)

    @property
    def cut(self) -> str | None:
        """Pattern of words; None if nothing is cut."""
        return pattern(self.preset, self.digits)

    @property
    def joined(self) -> str:
        """Pattern of runs of words."""
        return joined_pattern(
            self.preset, self.digits, no_cross=self.shape.no_cross, max_pieces=self.shape.max_pieces
        )

    def n_first(self, default: float) -> int:
        """Return the number of tokens after the first stage, the bytes included.

        `default` is the transition of a method whose shape has none.
        """
        return self.n_at(default if self.shape.transition is None else self.shape.transition)

    def n_at(self, share: float) -> int:
        """Return the number of tokens when a share of those to be learned is learned."""
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
        If a setting is unknown, out of range, or not allowed for the method.
    """
    check_choice("method", method, METHODS)
    check_choice("pre-tokenizer", preset, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    for barrier in shape.no_cross:
        check_choice("barrier", barrier, BARRIERS)
    needs = METHODS_BY_NAME[method]
    encoder = shape.encoder or needs.encoders[0]
    check_choice(f"encoder for {method}", encoder, needs.encoders)
    if needs.lists != bool(shape.terms):
        verb = (
            "needs a list of terms; give one" if needs.lists else "takes no terms; leave them out"
        )
        raise SettingError(f"{method} {verb}")
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
        raise SettingError(f"{method} needs a size; give one")
    check_range("size", size, least + (method != "bytes"), MAX_SIZE)
    # Reserved tokens are controls too; they do not reduce the number of learned tokens.
    n_reserved = -size % multiple
    reserved = tuple(f"<|reserved_{number}|>" for number in range(n_reserved))
    controls = (*controls, *reserved)
    return Plan(method, size + n_reserved, controls, preset, digits, encoder, shape, seed)


def settings_of(plan: Plan, controls: Controls) -> dict[str, Any]:
    """Return the settings for ``training.json``."""
    roles, n_controls = controls.roles, len(controls.tokens)
    no_cross, n_terms = list(plan.shape.no_cross), len(plan.shape.terms)
    shape = asdict(plan.shape) | {"no_cross": no_cross, "terms": n_terms}
    del shape["encoder"]  # that of the plan is never None
    return {
        "method": plan.method,
        "encoder": plan.encoder,
        "size": plan.size,
        "pretokenizer": plan.preset,
        "digits": plan.digits,
        **shape,
        "seed": plan.seed,
        "controls": roles,
        "extra_controls": [c for c in plan.controls[:n_controls] if c not in roles.values()],
        "controls_of": controls.like,
        "reserved": len(plan.controls) - n_controls,
    }
