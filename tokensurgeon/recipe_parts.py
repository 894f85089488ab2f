"""Parts of a recipe: how rows are made, how a tokenizer is trained, what each text is for."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tokensurgeon.outputs import output_path

READ = {
    "source", "tokenizer", "donor", "for_draft", "chat_template",
    "calibration", "evaluation", "elsewhere", "other", "chat", "corpus", "base", "list",
}  # fmt: skip
WRITTEN = {"output", "export_map", "save"}
"""Keys that name files or folders, of any part of a recipe but `init`; besides them `mixture`."""


class RecipePart(BaseModel):
    """A part of a recipe: unknown keys are refused, and paths become strings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, data: Any) -> Any:
        """Take a `Path` wherever a recipe in Python names a file, and an output's ``~``."""
        if not isinstance(data, dict):
            return data
        return {key: _named(key, _as_text(value)) for key, value in data.items()}


class InitSpec(RecipePart):
    """Which initialiser makes which side's rows, and with which settings."""

    input: str | None = None
    """The method of the input rows (embedding). None for both sides is `auto`, which measures what
    loses least; None for one is the plain default of the pair."""
    output: str | None = None
    """The method of the output rows (lm_head); None as for `input`."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings by method: ``{"omp": {"k": 32}}``; those of ``"*"`` go to any method with them."""


class TrainSpec(RecipePart):
    """Train the target tokenizer first; see `tokensurgeon.trainers.train_vocabulary`."""

    method: Literal[
        "bpe", "unigram", "wordpiece", "superbpe", "boundless", "supertoken", "mwt", "lzw",
        "pathpiece", "lib", "parity", "characters", "terms", "morphemes", "dna", "bytes",
        "extend", "prune",
    ]  # fmt: skip
    """How the vocabulary is learned; `extend` and `prune` change the tokenizer `base`."""
    corpus: tuple[str, ...] = ()
    """Text to train on: files, folders, globs or ``hf:NAME``; this or `mixture`."""
    mixture: tuple[str, ...] = ()
    """Parts of the text, ``NAME=SHARE:FILES``, in place of `corpus`."""
    size: int | None = Field(default=None, ge=257)
    """Number of ids; control tokens and the 256 bytes count. `prune` and some others need none."""
    add: int | None = Field(default=None, ge=1)
    """For `extend`, in place of `size`: number of new tokens."""
    never_longer: bool = False
    """For `extend`: refuse a result in which a text could take more tokens than before."""
    spare: float = Field(default=0.15, ge=0, le=10)
    """For `extend`: share of tokens learned beyond those asked; those that the fewest documents use
    are dropped again."""
    base: str | None = None
    """For `extend` and `prune`: the tokenizer whose ids are kept; `source` is the recipe's own."""
    scripts: tuple[str, ...] = ()
    """For `prune`: keep all tokens of these Unicode scripts too, such as ``[Latin, Cyrillic]``."""
    across: bool = False
    """Let `extend` add tokens of several words."""
    pretokenizer: Literal["gpt2", "cl100k", "llama3", "o200k", "code", "none"] = "cl100k"
    """How text is cut into words."""
    controls: Literal["own", "source"] = "own"
    """Control tokens: ``<|endoftext|>`` alone, or those of the recipe's source with their roles and
    ids; `extend` and `prune` keep those of their base."""
    borders: Literal["known", "own"] = "known"
    """Control strings in the text that end a document and are not learned from: the vocabulary's
    `own`, or these and well-known ones such as ``<|im_start|>``."""
    digits: Literal["left-3", "right-3", "single", "any", "source"] | None = None
    """How runs of digits are cut: in threes from the left or the right, singly, not at all, or as
    the recipe's source cuts them. None is `source`, and `left-3` where the source cuts them in
    another way than these; `extend` and `prune` cut as their base does."""
    encoder: Literal["bpe", "min-tokens"] | None = None
    """Spell by merges, or with the fewest tokens; if None, by merges where the method can."""
    transition: float | None = Field(default=None, gt=0, lt=1)
    """Share of the tokens that are learned inside words; the method's own if None."""
    max_words: int = Field(default=4, ge=2, le=64)
    """Most words of a token of several words."""
    no_cross: tuple[str, ...] = ("newline", "digits")
    """What a token of several words never crosses: `newline`, `digits`, `punctuation`."""
    max_pieces: int | None = Field(default=None, ge=2)
    """Most words and signs in a run that such tokens are learned from; the method's own if None."""
    longest: int | None = Field(default=None, ge=1)
    """Most bytes of a token (for `characters`, characters); the method's own if None."""
    parallel: bool = False
    """For `parity`: the parts of `mixture` are translations of each other."""
    list: str | None = None
    """For `terms` and `morphemes`: a file with a term, a morpheme or a parted word a line."""
    save: str | None = None
    """A folder to keep the trained tokenizer in; only beside the checkpoint if None."""

    @model_validator(mode="after")
    def _whole(self) -> TrainSpec:
        textless = self.method == "prune" and (self.scripts or self.size)
        if bool(self.corpus) == bool(self.mixture) and (self.corpus or not textless):
            raise ValueError("give 'corpus' or 'mixture', one of them")
        if self.scripts and self.method != "prune":
            raise ValueError("'scripts' belongs to the method prune")
        if (self.base is not None) != (self.method in ("extend", "prune")):
            raise ValueError("'base' belongs to the methods extend and prune")
        if self.base is not None and self.digits is not None:
            raise ValueError(f"{self.method} cuts digits as its base does; leave out 'digits'")
        if self.base is not None and self.controls != "own":
            raise ValueError(f"{self.method} keeps its base's controls; leave out 'controls'")
        if (self.add is not None or self.never_longer) and self.method != "extend":
            raise ValueError("'add' and 'never_longer' belong to the method extend")
        if self.method == "extend" and (self.size is None) == (self.add is None):
            raise ValueError("extend needs the number of new tokens, 'add', or of ids, 'size'")
        return self


class TextSpec(RecipePart):
    """Texts for each use; a document is never used for two. Files, folders or globs."""

    calibration: tuple[str, ...] = ()
    """Text that methods, calibration and training may look at, its first GiB; if none, the source
    writes some."""
    evaluation: tuple[str, ...] = ()
    """Text to measure the source and the result on; nothing is measured if there is none."""
    hold_out: bool = False
    """Evaluate on a twentieth of the documents that `tokenizer` is trained on: they are held out of
    its training, and of `calibration` where that is the same text. All of it is held in memory."""
    elsewhere: tuple[str, ...] = ()
    """Text of another kind, to measure the source and the result on too; nothing sees it before."""
    other: tuple[str, ...] = ()
    """Text of another domain, on which a calibration that changes shared rows must not lose, and
    from which trainings learn too; if none, the source writes some."""
    chat: tuple[str, ...] = ()
    """Of a draft, conversations (JSON lines with ``messages``) that are rendered by the big model's
    chat template; the draft is fitted to what the big model says of them too."""
    max_bytes: int = Field(default=500_000, ge=1_000)
    """Evaluate on whole documents, in their order, until this many bytes are reached."""
    generate: int = Field(default=0, ge=0)
    """Let the source and the result write this many samples too, and say how many tokens are saved
    on them; only of causal models, beside an evaluation."""


def _as_text(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return tuple(_as_text(each) for each in value)
    return value


def _named(key: Any, value: Any) -> Any:
    """Return the value of a key, of an output with ``~`` expanded; a path is never empty."""
    if key in WRITTEN and isinstance(value, str):
        return str(output_path(value))
    if key in READ and (value == "" or (isinstance(value, tuple) and "" in value)):
        raise ValueError(f"'{key}' is empty: give a path or a name, or leave it out")
    return value
