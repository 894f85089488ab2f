"""A recipe says a whole surgery; YAML on disk, `Recipe` in Python.

A recipe is data: it names no code to import, and its paths are taken relative to the file.
"""

from __future__ import annotations

import difflib
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tokensurgeon.errors import RecipeError

Settings = dict[str, Any]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, data: Any) -> Any:
        """Take a `Path` wherever a recipe in Python names a file."""
        if not isinstance(data, dict):
            return data
        return {key: _as_text(value) for key, value in data.items()}


class InitSpec(_Model):
    """Which initialiser makes which side's rows, and with which settings.

    `input` and `output` name initialisers; None means the default of this pair.
    """

    input: str | None = None
    output: str | None = None
    settings: dict[str, Settings] = Field(default_factory=dict)
    """By initialiser name: ``{"omp": {"k": 32}}``; ``"*"`` holds settings for any that has them."""


class TrainSpec(_Model):
    """Train the target tokenizer first; see `tokensurgeon.trainers.train_vocabulary`.

    With `base`, the methods are `extend` and `prune`; ``base: source`` is the recipe's own source,
    whose ids are then kept.
    """

    method: Literal[
        "bpe",
        "unigram",
        "wordpiece",
        "superbpe",
        "boundless",
        "supertoken",
        "mwt",
        "lzw",
        "pathpiece",
        "lib",
        "parity",
        "characters",
        "terms",
        "morphemes",
        "dna",
        "bytes",
        "extend",
        "prune",
    ]
    corpus: tuple[str, ...] = ()
    mixture: tuple[str, ...] = ()
    """Parts of the text, ``NAME=SHARE:FILES``, in place of `corpus`."""
    size: int | None = Field(default=None, ge=257)
    base: str | None = None
    across: bool = False
    pretokenizer: Literal["gpt2", "cl100k", "llama3", "o200k", "code", "none"] = "cl100k"
    digits: Literal["left-3", "right-3", "single", "any"] = "left-3"
    encoder: Literal["bpe", "min-tokens"] | None = None
    transition: float | None = Field(default=None, gt=0, lt=1)
    max_words: int = Field(default=4, ge=2, le=64)
    no_cross: tuple[str, ...] = ("newline", "digits")
    max_pieces: int | None = Field(default=None, ge=2)
    longest: int | None = Field(default=None, ge=1)
    parallel: bool = False
    list: str | None = None
    """A file with a term, a morpheme or a parted word a line."""
    save: str | None = None
    """A folder to keep the trained tokenizer in; beside the checkpoint if None."""

    @model_validator(mode="after")
    def _whole(self) -> TrainSpec:
        if bool(self.corpus) == bool(self.mixture):
            raise ValueError("give 'corpus' or 'mixture', one of them")
        if (self.base is not None) != (self.method in ("extend", "prune")):
            raise ValueError("'base' belongs to the methods extend and prune")
        return self


class TextSpec(_Model):
    """Texts, never mixed: each is a tuple of files (.txt, .md, .json, .jsonl), globs allowed."""

    calibration: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    """Text of another domain: a calibration that changes shared rows must not lose on it. Text
    that the source writes itself if none is given."""
    max_bytes: int = Field(default=500_000, ge=1_000)
    """Evaluate on whole documents, in their order, until this many bytes are reached."""


class Recipe(_Model):
    """One surgery, whole.

    Attributes
    ----------
    source : str
        A checkpoint folder, or a model id that is in the local hub cache.
    tokenizer : str or TrainSpec or None
        The target tokenizer; None means the donor's.
    donor : str or None
        A model (its vocabulary rows are enough) that has the target tokenizer.
    for_draft : str or None
        A big model that the result is to draft for: its tokenizer is taken, and as many rows as
        it has.
    output : str or None
        Where the patched checkpoint goes; None computes and reports without writing.
    """

    source: str
    tokenizer: str | TrainSpec | None = None
    donor: str | None = None
    for_draft: str | None = None
    output: str | None = None
    init: InitSpec = InitSpec()
    text: TextSpec = TextSpec()
    baselines: tuple[str, ...] = ("subword-mean",)
    calibrate: tuple[str, ...] | None = None
    """Calibration stages in their order, each kept only where it helps on text that no stage was
    fitted to. None tries all that need no gradient where `auto` chooses the methods, and none
    where methods are named."""
    heal: float = Field(default=0.0, ge=0)
    """Minutes of training of the vocabulary rows, the body frozen, after the other stages."""
    budget: float = Field(default=10.0, ge=0)
    """Minutes that the choice of methods and their calibration may take; 0 runs no forward pass
    of the model for either."""
    clip: float | None = Field(default=None, gt=0, le=100)
    """Shorten new rows to this percentile of the trained rows' norms."""
    untie: bool = False
    pad_to_multiple_of: int = Field(default=1, ge=1)
    trim_rows: bool = False
    map: dict[str, str] = Field(default_factory=dict)
    export_map: str | None = None
    """A .jsonl or .npz file for which source tokens stand for each target token."""
    chat_template: str = "source"
    """`source`, `target`, or a file."""
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward passes; rows are always computed in float32 and written in the file's dtype."""
    memory_gib: float = Field(default=4.0, gt=0)
    seed: int = Field(default=0, ge=0)
    force: bool = False
    trust_remote_code: bool = False
    allow_nonfinite: bool = False
    allow_autotokenizer_mismatch: bool = False
    allow_seen_text: bool = False
    """Evaluate on text that the target vocabulary was trained on."""

    @model_validator(mode="after")
    def _target_known(self) -> Recipe:
        if self.for_draft is not None and self.tokenizer not in (None, self.for_draft):
            raise ValueError("'for_draft' takes the big model's tokenizer; leave out 'tokenizer'")
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
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read a recipe; its relative paths count from the file's folder.

        Raises
        ------
        RecipeError
            Naming the file, the key, and the nearest right key.
        """
        path = Path(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f", line {where.line + 1}" if where else ""
            raise RecipeError(f"{path}{line} is not YAML: check its indentation") from error
        if not isinstance(data, dict):
            raise RecipeError(f"{path} holds no mapping; a recipe starts with 'source: …'")
        return cls.parse(data, where=str(path)).resolved(path.parent)

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

        What is written goes below the folder in any case; a name that is no file of it, and does
        not start with ``.`` or ``/`` or hold a wildcard, stays: it can be a model id.
        """
        return _resolved(self, folder)


_READ = {
    "source", "tokenizer", "donor", "for_draft", "chat_template",
    "calibration", "evaluation", "other", "corpus", "base", "list",
}  # fmt: skip
_WRITTEN = {"output", "export_map", "save"}
"""Keys that name files or folders, of any part of a recipe; besides them `mixture`."""
_NO_FILES = {"base": ("source",), "chat_template": ("source", "target")}
"""Values of these keys that name no file."""

_M = TypeVar("_M", bound=BaseModel)


def _resolved(part: _M, folder: Path) -> _M:
    """Return a part of a recipe with the paths of all its keys taken from the folder."""
    changed: dict[str, Any] = {}
    for key in type(part).model_fields:
        value = getattr(part, key)
        if isinstance(value, BaseModel):
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
    models: dict[str, type[BaseModel]] = {
        "init": InitSpec,
        "text": TextSpec,
        "tokenizer": TrainSpec,
    }
    model = models.get(location[0], Recipe) if len(location) > 1 else Recipe
    near = difflib.get_close_matches(location[-1], model.model_fields, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(model.model_fields)}"
    return f"unknown key '{key}'; {hint}"
