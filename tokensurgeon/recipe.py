"""A recipe says a whole surgery; YAML on disk, `Recipe` in Python.

A recipe is data: it names no code to import, and its paths are taken relative to the file. What is
read may lie anywhere. What is written may not climb out of the recipe's folder by ``..``; a path
from the root is taken as it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from tokensurgeon.errors import RecipeError
from tokensurgeon.recipe_parts import READ, WRITTEN, InitSpec, RecipePart, TextSpec, TrainSpec
from tokensurgeon.recipe_yaml import read_bounded, read_yaml

Trainer = Literal["peft", "trl", "axolotl", "llamafactory"]
"""Tools that a checkpoint can be handed over to, to be trained further."""
__all__ = ["ASKED_TWICE", "InitSpec", "Recipe", "TextSpec", "TrainSpec"]


class Recipe(RecipePart):
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
    keep_shared: bool = False
    """Leave every row of a shared token as the source has it, bit for bit: calibration and training
    change new rows alone, and stages that would move nothing else are not tried."""
    heal: float = Field(default=0.0, ge=0)
    """Minutes of training of the vocabulary rows, the body frozen, after the other stages."""
    heal_body: bool = False
    """Let calibration change some linear weights of the body too, by an update of low rank that is
    merged into them: the result is one plain checkpoint. It takes its time of the budget."""
    budget: float = Field(default=10.0, ge=0)
    """Minutes that the choice of methods and their calibration may take, and with `heal` all three
    together; what does not fit is made smaller or left out. Where reading, measuring and writing
    take more than 7 % of it besides, they take of its minutes too, at most half of them. 0 runs no
    forward pass of the model for choice or calibration."""
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
    hand_over: tuple[Trainer, ...] = ()
    """Trainers to write files for, into `continue/` of the output, that train the new rows first
    and then everything."""
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

    @model_validator(mode="after")
    def _held_out(self) -> Recipe:
        if self.text.hold_out and self.text.evaluation:
            raise ValueError(
                "'text.hold_out' measures on a part of the text; leave out 'evaluation'"
            )
        spec = self.tokenizer
        if self.text.hold_out and not (isinstance(spec, TrainSpec) and spec.corpus):
            raise ValueError("'text.hold_out' needs a 'tokenizer' that is trained on a 'corpus'")
        return self

    @property
    def measures(self) -> bool:
        """Whether there is text to measure on."""
        return bool(self.text.evaluation or self.text.hold_out)

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


NO_FILES = {"base": ("source",), "chat_template": ("source", "target")}
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
        elif not value or value in NO_FILES.get(key, ()):
            continue
        elif key in WRITTEN:
            changed[key] = str(folder / value)
        elif key in READ and isinstance(value, tuple):
            changed[key] = tuple(_taken(name, folder) for name in value)
        elif key in READ:
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
    models: dict[str, type[RecipePart]] = {
        "init": InitSpec,
        "text": TextSpec,
        "tokenizer": TrainSpec,
    }
    model = models.get(location[0], Recipe) if len(location) > 1 else Recipe
    near = difflib.get_close_matches(location[-1], model.model_fields, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(model.model_fields)}"
    return f"unknown key '{key}'; {hint}"
