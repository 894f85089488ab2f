"""From options to a `Recipe`: what transplant, compare and trained-limit share.

Options override the keys of a recipe file; what the command line does not say is left to the file,
else to the recipe's defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from tokensurgeon.cli import console
from tokensurgeon.errors import RecipeError
from tokensurgeon.recipe import Recipe
from tokensurgeon.recipe_yaml import read_yaml

ANY = "init"
"""In ``--set init.k=32``: the setting goes to whichever chosen method has it."""
SIDES = ("init.input", "init.output")
"""The keys that the option --init sets."""


def build_recipe(
    file: str | None, given: Mapping[str, Any], start: Mapping[str, Any] | None = None
) -> Recipe:
    """Return the recipe of a file with options laid over it.

    Parameters
    ----------
    file : str or None
        A YAML recipe; its paths count from its folder.
    given : mapping
        By key of the recipe, dotted for nested ones (``init.input``). None means "not given"; an
        empty tuple means none. ``init.settings`` is merged, every other key replaced.
    start : mapping, optional
        Keys of the recipe to lay options over where there is no file.
    """
    data: dict[str, Any] = dict(start or {})
    if file is not None:
        asked = [key for key, value in given.items() if value]
        data = Recipe.from_yaml(file, given=asked).model_dump(mode="json")
    for dotted, value in given.items():
        if value is None:
            continue
        *outer, key = dotted.split(".")
        part = data
        for name in outer:
            part = part.setdefault(name, {})
        if dotted == "init.settings":
            for method, settings in value.items():
                part.setdefault(key, {}).setdefault(method, {}).update(settings)
        else:
            part[key] = value
    if "source" not in data:
        raise click.UsageError("no SOURCE: give a checkpoint folder, or --recipe FILE")
    return Recipe.parse(data, where="options" if file is None else f"{file} with options")


def parse_settings(pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Turn ``omp.k=32`` into ``{"omp": {"k": 32}}``; values are read as YAML."""
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        left, equals, value = pair.partition("=")
        method, dot, key = left.rpartition(".")
        if not (equals and dot and method and key and value):
            raise click.BadParameter(
                f"'{pair}' is not METHOD.KEY=VALUE; write omp.k=32 or init.k=32",
                param_hint="--set",
            )
        try:
            parsed = read_yaml(value, "--set")
        except RecipeError:
            parsed = value
        settings.setdefault("*" if method == ANY else method, {})[key] = parsed
    return settings


def split_names(given: str, what: str, option: str) -> tuple[str, ...]:
    """Return the names that commas part; none at all is an error that says of what."""
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names:
        raise click.BadParameter(f"names no {what}", param_hint=option)
    return names


def parse_stages(stages: str | None) -> tuple[str, ...] | None:
    """Turn ``prior,readout`` into a tuple, ``none`` into an empty one; None means "not given"."""
    if stages is None:
        return None
    names = split_names(stages, "stage; say none to calibrate nothing", "--calibrate")
    return () if names == ("none",) else names


def parse_trainers(given: str | None) -> tuple[str, ...] | None:
    """Turn ``peft,trl`` into a tuple; None means "not given"."""
    return None if given is None else split_names(given, "trainer", "--hand-over")


def parse_pair(pair: str) -> tuple[str, str]:
    """Return the target and the source token of ``TARGET=SOURCE``; neither may be empty.

    The first ``=`` separates them. Where the pair starts with several, the last of these does, so
    that ``=`` and ``==`` can be targets. The key `map` of a recipe takes any two spellings.

    Examples
    --------
    >>> parse_pair("<|im_start|>=<s>"), parse_pair("a==")
    (('<|im_start|>', '<s>'), ('a', '='))
    >>> parse_pair("==</s>"), parse_pair("===</s>"), parse_pair("===")
    (('=', '</s>'), ('==', '</s>'), ('=', '='))
    """
    leading = len(pair) - len(pair.lstrip("="))
    cut = leading - 1 if leading > 1 else pair.find("=", 1)
    cut -= leading > 1 and leading == len(pair)
    target, source = pair[: max(cut, 0)], pair[cut + 1 :]
    if not (target and source):
        raise click.BadParameter(
            f"'{pair}' is not TARGET=SOURCE; give two spellings, such as '<pad>=</s>'",
            param_hint="--map",
        )
    return target, source


def parse_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return the source token of each target token; see `parse_pair`."""
    mapping: dict[str, str] = {}
    for target, source in map(parse_pair, pairs):
        if mapping.setdefault(target, source) != source:
            raise click.BadParameter(
                f"'{target}' is mapped twice; leave one out", param_hint="--map"
            )
    return mapping


OPTIONS: dict[str, Callable[[Any], Any]] = {}
"""Decorators by the key of the recipe that they set, in the order of help pages."""


def _option(
    key: str, usage: str, text: str | None = None, **attributes: Any
) -> Callable[[Any], Any]:
    """Add the option that sets a key of the recipe; its help is the key's where none is given."""
    if text is None:
        text = Recipe.model_fields[key].description or ""
    OPTIONS[key] = console.option(usage, text, key.replace(".", "__"), **attributes)
    return OPTIONS[key]


_option("tokenizer", "--tokenizer TARGET", "The new tokenizer; the donor's if not given.")
_option(
    "digits",
    "--digits source|target",
    "Whose cut of digit runs the new tokenizer has; source puts the source's before the target's "
    "own.  [default: target]",
    type=click.Choice(("source", "target")),
)
_option("output", "-o --output DIR", "Where the patched checkpoint goes.")
_option("donor", "--donor MODEL")
_option("for_draft", "--for-draft MODEL")
_option("draft_vocabulary", "--draft-vocabulary N", type=console.AT_LEAST_1)
_option(
    "init",
    "--init NAME",
    "The method that makes missing rows, both sides; auto measures what loses least.  "
    "[default: auto]",
)
_option("init.input", "--init-input NAME", "The method of the input rows (embedding).")
_option("init.output", "--init-output NAME", "The method of the output rows (lm_head).")
_option(
    "init.settings",
    "--set METHOD.KEY=VALUE",
    "A setting: omp.k=32, or init.k=32 for whichever method is chosen.",
    parse=parse_settings,
    multiple=True,
)
_option(
    "text.evaluation",
    "--text FILE",
    "Text to measure on; compare and trained-limit need it.",
    multiple=True,
)
_option(
    "text.generate",
    "--generate N",
    "Let the source and the result write N samples too, to say how many tokens are saved on what "
    "they write; needs --text.",
    type=console.COUNT,
)
_option(
    "text.calibration",
    "--calibration-text FILE",
    "Text that methods, calibration and training may look at, never the one it is measured on. The "
    "source writes some if not given; trained-limit needs it.",
    multiple=True,
)
_option(
    "text.chat",
    "--calibration-chat FILE",
    "With --for-draft: conversations, JSON lines with 'messages', under the big model's chat "
    "template; the draft is fitted to what the big model says of them.",
    multiple=True,
)
_option(
    "text.other",
    "--other-text FILE",
    "Text of another domain, on which calibration must lose nothing, and from which it learns too; "
    "the source writes some if not given.",
    multiple=True,
)
_option(
    "calibrate",
    "--calibrate STAGE,…|none",
    "Calibration stages, each kept only if it helps: quiet, lean, blend, context-rows, match, "
    "match-shared, shrunk, prior, readout, fold, unigram, unigram-shared, marginal, "
    "token-distillation, attention-influence, distil, shares, refit. If not given, those for a "
    "model of this size where the methods are chosen for you, none where they are named.",
    parse=parse_stages,
)
_option("heal", "--heal MINUTES", type=click.FloatRange(min=0))
_option("heal_body", "--heal-body")
_option(
    "budget",
    "--budget MINUTES",
    "For the choice of methods and their calibration, and up to half of it for what is done "
    "beside, such as measuring; 0 runs no forward pass for choice or calibration.  "
    "[default: 10]",
    type=click.FloatRange(min=0),
)
_option(
    "clip",
    "--clip PERCENTILE",
    "Shorten new rows to this percentile of the trained rows' norms.",
    type=click.FloatRange(min=0, max=100, min_open=True),
)
_option("baselines", "--baseline NAME", "A method to measure beside.", multiple=True)
_option("untie", "--untie", "Two matrices where the source has one.")
_option("pad_to_multiple_of", "--pad-to-multiple-of N", "Pad the rows.", type=click.IntRange(min=1))
_option("trim_rows", "--trim-rows", "Drop rows past the last id.")
map_option = _option(
    "map",
    "--map TARGET=SOURCE",
    "Match a target token with a source token by spelling; may be repeated. The first = "
    "separates the two, of several at the start the last: ===</s> maps == to </s>.",
    parse=parse_map,
    multiple=True,
)
export_map_option = _option("export_map", "--export-map FILE")
_option(
    "hand_over",
    "--hand-over TRAINER,…",
    "Write into continue/ of the output what trains the new rows first, then everything: peft, "
    "trl, axolotl, llamafactory.",
    parse=parse_trainers,
)
_option("chat_template", "--chat-template source|target|FILE", "Whose template to write.")
_option(
    "special_tokens",
    "--special-tokens source|target",
    "Whether texts end with the token that the target's tokenizer adds; source leaves it out where "
    "the source's adds none and the model is causal.  [default: source]",
    type=click.Choice(("source", "target")),
)
OPTIONS |= {
    "device": console.device_option,
    "dtype": console.dtype_option,
    "seed": console.seed_option,
    "force": console.force_option,
    "trust_remote_code": console.trust_option,
}
_option("allow_nonfinite", "--allow-nonfinite")
OPTIONS["allow_seen_text"] = console.seen_option
OPTIONS["allow_invalid_text"] = console.invalid_option
OPTIONS["allow_autotokenizer_mismatch"] = console.mismatch_option


def takes_options(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these keys.

    The command is called with those that were given, by key, and with its own options by name.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            function(_given(keys, values), **values)

        decorated: Callable[..., None] = command
        for key in reversed(keys):
            decorated = OPTIONS[key](decorated)
        return decorated

    return decorate


def _given(keys: Iterable[str], values: dict[str, Any]) -> dict[str, Any]:
    """Take the values of these keys, and return those that were given; --init sets both sides."""
    context = click.get_current_context()
    given = {}
    for key in keys:
        name = key.replace(".", "__")
        value = values.pop(name)
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            given[key] = value
    return dict.fromkeys(SIDES, given.pop("init", None)) | given


def takes_recipe(
    *keys: str, unless: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command SOURCE, the options of these keys and --recipe.

    The command is called with the `Recipe` they make, and with its own options by name. Where its
    option `unless` is given they make none: `recipe` is then what was given, by key.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            given = _given(("source", *keys), values)
            if unless is not None and values[unless]:
                file = {"recipe": values.pop("recipe")}
                function({key: one for key, one in (given | file).items() if one}, **values)
                return
            function(build_recipe(values.pop("recipe"), given), **values)

        decorated: Callable[..., None] = command
        for option in (
            console.option("--recipe FILE", "A YAML recipe; options override its keys."),
            *(OPTIONS[key] for key in reversed(keys)),
            click.argument("source", required=False),
        ):
            decorated = option(decorated)
        return decorated

    return decorate
