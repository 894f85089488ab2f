"""A recipe says a whole surgery; YAML on disk, `Recipe` in Python.

A recipe is data: it names no code to import, and its paths are taken relative to the file. What is
read may lie anywhere. What is written may not climb out of the recipe's folder by ``..``; a path
from the root is taken as it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tokensurgeon.errors import RecipeError
from tokensurgeon.outputs import output_path
from tokensurgeon.recipe_yaml import read_bounded, read_yaml


class _Model(BaseModel):
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


class InitSpec(_Model):
    """Which initialiser makes which side's rows, and with which settings."""

    input: str | None = None
    """The method of the input rows (embedding). None for both sides is `auto`, which measures what
    loses least; None for one is the plain default of the pair."""
    output: str | None = None
    """The method of the output rows (lm_head); None as for `input`."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings by method: ``{"omp": {"k": 32}}``; those of ``"*"`` go to any method with them."""


class TrainSpec(_Model):
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
        if bool(self.corpus) == bool(self.mixture):
            raise ValueError("give 'corpus' or 'mixture', one of them")
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


class TextSpec(_Model):
    """Texts for each use; a document is never used for two. Files, folders or globs."""

    calibration: tuple[str, ...] = ()
    """Text that methods, calibration and training may look at, its first GiB; if none, the source
    writes some."""
    evaluation: tuple[str, ...] = ()
    """Text to measure the source and the result on; nothing is measured if there is none."""
    other: tuple[str, ...] = ()
    """Text of another domain, on which a calibration that changes shared rows must not lose; if
    none, the source writes some."""
    chat: tuple[str, ...] = ()
    """Of a draft, conversations (JSON lines with ``messages``) that are rendered by the big model's
    chat template; the draft is fitted to what the big model says of them too."""
    max_bytes: int = Field(default=500_000, ge=1_000)
    """Evaluate on whole documents, in their order, until this many bytes are reached."""


class Recipe(_Model):
    """One surgery, whole.

    Examples
    --------
    >>> recipe = Recipe(source="model", donor="other", text={"evaluation": ["a.txt"]})
    >>> recipe.target, recipe.text.evaluation, recipe.budget
    ('other', ('a.txt',), 10.0)
    """

    source: str
    """The model to change: a checkpoint folder, or a model id that is in the local hub cache."""
    tokenizer: str | TrainSpec | None = None
    """The target tokenizer: a folder, file, model id, or how to train it; the donor's if None."""
    digits: Literal["source", "target"] = "target"
    """Whose cut of digit runs the new tokenizer has: `target` leaves its own; `source` puts the
    source's (single digits, or groups of three) before it, and is refused where the target cannot
    take it. Tokens that are then never written keep their ids."""
    donor: str | None = None
    """A model that has the target tokenizer; only its vocabulary rows are read."""
    for_draft: str | None = None
    """A big model that the result is to draft for: its tokenizer and number of rows are taken."""
    draft_vocabulary: int | None = Field(default=None, ge=1)
    """Of a draft, how many tokens its output side is cut to in engines that can: those that the
    calibration text has most often. Maps are written beside the checkpoint, which stays whole."""
    output: str | None = None
    """The folder to write; None computes and reports without writing."""
    init: InitSpec = InitSpec()
    """The methods that make the rows of missing tokens."""
    text: TextSpec = TextSpec()
    """Texts to look at and to measure on."""
    baselines: tuple[str, ...] = ("subword-mean",)
    """Methods to measure beside the result, where there is text to measure on."""
    calibrate: tuple[str, ...] | None = None
    """Calibration stages in their order, each kept only where it helps on text that no stage was
    fitted to. None tries those for a model of this size where `auto` chooses the methods, and none
    where methods are named; an empty list calibrates nothing."""
    heal: float = Field(default=0.0, ge=0)
    """Minutes of training of the vocabulary rows, the body frozen, after the other stages."""
    heal_body: bool = False
    """Let calibration change some linear weights of the body too, by an update of low rank that is
    merged into them: the result is one plain checkpoint. It takes its time of the budget."""
    budget: float = Field(default=10.0, ge=0)
    """Minutes that the choice of methods and their calibration may take, and with `heal` all three
    together; what does not fit is made smaller or left out. 0 runs no forward pass of the model
    for choice or calibration."""
    clip: float | None = Field(default=None, gt=0, le=100)
    """Shorten new rows to this percentile of the trained rows' norms; None shortens none."""
    untie: bool = False
    """Write two matrices where the source has one for both sides."""
    pad_to_multiple_of: int = Field(default=1, ge=1, le=65_536)
    """Pad the rows to a multiple of this number; hardware asks for some hundreds."""
    trim_rows: bool = False
    """Drop the source's rows past the last id, where the target is the source's vocabulary."""
    map: dict[str, str] = Field(default_factory=dict)
    """Source tokens to take for target tokens, by spelling: ``{"<|im_end|>": "</s>"}``."""
    export_map: str | None = None
    """A .jsonl or .npz file to write: which source tokens stand for each target token."""
    chat_template: str = "source"
    """Whose template to write: `source`, `target`, or a file."""
    special_tokens: Literal["source", "target"] = "source"
    """Whether the new tokenizer of a causal model ends texts with a token: `source` leaves the
    target's out where the source's tokenizer adds none, for a prompt would else end in it; `target`
    keeps it, as `for_draft` does."""
    device: str = "cpu"
    """A torch device, such as ``cuda:0``; `auto` divides a model between all there are."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward passes; rows are always computed in float32 and written in the file's dtype."""
    memory_gib: float = Field(default=4.0, gt=0)
    """Memory that methods may use for their own arrays, in GiB."""
    seed: int = Field(default=0, ge=0)
    """Of whatever is random."""
    force: bool = False
    """Replace an output that exists, if it is as tokensurgeon wrote it and nothing is beside it."""
    trust_remote_code: bool = False
    """Run the model code that comes with a checkpoint."""
    allow_nonfinite: bool = False
    """Accept source rows with NaN or Inf."""
    allow_autotokenizer_mismatch: bool = False
    """Accept that AutoTokenizer loads the new tokenizer with other ids."""
    allow_seen_text: bool = False
    """Evaluate on text that the target vocabulary was trained on."""
    allow_invalid_text: bool = False
    """Calibrate and evaluate on text of which more than 1 % is not UTF-8; it counts as U+FFFD."""

    @model_validator(mode="after")
    def _target_known(self) -> Recipe:
        if self.for_draft is not None and self.tokenizer not in (None, self.for_draft):
            raise ValueError("'for_draft' takes the big model's tokenizer; leave out 'tokenizer'")
        if self.for_draft is not None and self.digits == "source":
            raise ValueError("'for_draft' cuts digits as the big model does; leave out 'digits'")
        if self.draft_vocabulary is not None and self.for_draft is None:
            raise ValueError("'draft_vocabulary' cuts the head of a draft; give 'for_draft'")
        if self.draft_vocabulary is not None and not self.text.calibration:
            raise ValueError(
                "'draft_vocabulary' keeps what a text needs most often; give 'text.calibration'"
            )
        if self.text.chat and self.for_draft is None:
            raise ValueError("'text.chat' is what a draft is fitted to; give 'for_draft'")
        if self.tokenizer is None and self.donor is None and self.for_draft is None:
            raise ValueError("no target: give 'tokenizer', or a 'donor' whose tokenizer is taken")
        return self

    @property
    def target(self) -> str | None:
        """What the target's tokenizer is read from; None where it is trained."""
        if isinstance(self.tokenizer, TrainSpec):
            return None
        return self.tokenizer or self.for_draft or self.donor

    @classmethod
    def from_yaml(cls, path: str | Path, *, given: Collection[str] = ()) -> Recipe:
        """Read a recipe; its relative paths count from the file's folder.

        Parameters
        ----------
        path : str or Path
        given : collection of str
            Keys that whoever runs it sets too: of `ASKED_TWICE` the file may set these alone, and
            where it would write is not looked at for these.

        Raises
        ------
        RecipeError
            Naming the file, the key, and the nearest right key.
        """
        path = Path(path)
        data = read_yaml(read_bounded(path), str(path))
        if not isinstance(data, dict):
            raise RecipeError(f"{path} holds no mapping of keys; write source: MODEL and so on")
        recipe = cls.parse(data, where=str(path))
        for key in ASKED_TWICE:
            if getattr(recipe, key) and key not in given:
                raise RecipeError(
                    f"{path} sets '{key}', which a file alone may not: take it out, or add "
                    f"--{key.replace('_', '-')} to the command too"
                )
        _check_written(recipe, str(path), given)
        return recipe.resolved(path.parent)

    @classmethod
    def parse(cls, data: dict[str, Any], where: str = "recipe") -> Recipe:
        """Validate a mapping; `where` names it in messages."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(f"{where}: {_first_problem(error)}") from error

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `from_yaml` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def resolved(self, folder: Path) -> Recipe:
        """Return the recipe with relative paths that exist in `folder` taken from there.

        What is written is taken from the folder in any case; a name that is no file of it, and does
        not start with ``.`` or ``/`` or hold a wildcard, stays: it can be a model id.
        """
        return _resolved(self, folder)


_READ = {
    "source", "tokenizer", "donor", "for_draft", "chat_template",
    "calibration", "evaluation", "other", "chat", "corpus", "base", "list",
}  # fmt: skip
_WRITTEN = {"output", "export_map", "save"}
"""Keys that name files or folders, of any part of a recipe but `init`; besides them `mixture`."""
_NO_FILES = {"base": ("source",), "chat_template": ("source", "target")}
"""Values of these keys that name no file."""

ASKED_TWICE = ("force", "trust_remote_code")
"""Keys that a file cannot set alone: they replace what is there, or run what came with a model."""

_M = TypeVar("_M", bound=BaseModel)


def _resolved(part: _M, folder: Path) -> _M:
    """Return a part of a recipe with the paths of all its keys taken from the folder."""
    changed: dict[str, Any] = {}
    for key in type(part).model_fields:
        value = getattr(part, key)
        if isinstance(value, TrainSpec | TextSpec):
            changed[key] = _resolved(value, folder)
        elif key == "mixture":
            entries = [entry.partition(":") for entry in value]
            changed[key] = tuple(f"{n}{colon}{_taken(p, folder)}" for n, colon, p in entries)
        elif not value or value in _NO_FILES.get(key, ()):
            continue
        elif key in _WRITTEN:
            changed[key] = str(folder / value)
        elif key in _READ and isinstance(value, tuple):
            changed[key] = tuple(_taken(name, folder) for name in value)
        elif key in _READ:
            changed[key] = _taken(value, folder)
    return part.model_copy(update=changed)


def _check_written(recipe: Recipe, where: str, given: Collection[str]) -> None:
    """Refuse to write at a path that climbs out of the recipe's folder."""
    spec = recipe.tokenizer if isinstance(recipe.tokenizer, TrainSpec) else None
    for key, value in (
        ("output", recipe.output),
        ("export_map", recipe.export_map),
        ("tokenizer.save", spec.save if spec else None),
    ):
        place = Path(os.path.normpath(value or "."))
        if ".." in place.parts and key not in given:
            raise RecipeError(
                f"{where}: '{key}' is {value!r}, which leaves the recipe's folder: name a place "
                "below it, or give the whole path"
            )


def _taken(name: str, folder: Path) -> str:
    """Take `name` from the folder, unless it can only be a model id."""
    candidate = folder / name
    if name.startswith((".", "/")) or any(c in name for c in "*?["):
        return str(candidate)
    try:
        return str(candidate) if candidate.exists() else name
    except (OSError, ValueError):  # no name of a file: too long, or with a zero byte
        return name


def _as_text(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return tuple(_as_text(each) for each in value)
    return value


def _named(key: Any, value: Any) -> Any:
    """Return the value of a key, of an output with ``~`` expanded; a path is never empty."""
    if key in _WRITTEN and isinstance(value, str):
        return str(output_path(value))
    if key in _READ and (value == "" or (isinstance(value, tuple) and "" in value)):
        raise ValueError(f"'{key}' is empty: give a path or a name, or leave it out")
    return value


def _names_spec(part: int | str) -> bool:
    """Whether a part of a problem's place is pydantic's name of `TrainSpec`, not a key."""
    return TrainSpec.__name__ in str(part)


def _first_problem(error: ValidationError) -> str:
    """Say the first validation problem in one line, with the nearest right key."""
    problems = error.errors()
    # Of a tokenizer that is a mapping, what is wrong inside it; then, an unknown key says most.
    inside = [p for p in problems if any(map(_names_spec, p["loc"]))]
    inner = [p for p in inside if p["type"] != "model_type"] or problems
    problem = next((p for p in inner if p["type"] == "extra_forbidden"), inner[0])
    location = [str(part) for part in problem["loc"] if part != "str" and not _names_spec(part)]
    key = ".".join(location)
    key = key if len(key) <= 80 else key[:77] + "..."
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        return f"'{key}': {message}" if key else message
    models: dict[str, type[_Model]] = {"init": InitSpec, "text": TextSpec, "tokenizer": TrainSpec}
    model = models.get(location[0], Recipe) if len(location) > 1 else Recipe
    near = difflib.get_close_matches(location[-1], model.model_fields, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(model.model_fields)}"
    return f"unknown key '{key}'; {hint}"
