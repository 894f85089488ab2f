"""Which chat template a patched checkpoint gets, and what is to be said of it.

A template is text to be copied. It is rendered once at most, when all is written, to tell whether
it works, and then in a process of its own that is bounded in time and memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.encodings import difference
from tokensurgeon.checkpoint.files import check_inside, read_optional_json
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.template_child import render
from tokensurgeon.errors import UnknownNameError, reason
from tokensurgeon.vocabulary.reading import MOST_TEMPLATE, read_text

CLOCK = 30
"""Seconds of processor time in which three messages have to be rendered: the start of the process
takes three, a template thousandths of one."""

BESIDE = ("response_template", "response_schema", "chat_control_tokens")
"""Keys of tokenizer_config.json that belong to a template and follow it."""

_MARKER = re.compile(r"<\|[^|<>\s]{1,64}\|>")
"""How most chat templates spell their control tokens."""

_CHILD = """
talk = [("user", "How many cats?"), ("assistant", "12."), ("user", "And now?")]
talk = [{"role": role, "content": content} for role, content in talk]
for folder in sys.argv[3:]:
    tokenizer = load(folder)
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    print(json.dumps({"text": text, "ids": ids}), flush=True)
"""


@dataclass(frozen=True)
class ChosenTemplate:
    """A chat template and where it came from.

    Attributes
    ----------
    template : str, list or None
        Its text, or transformers' list of named ones.
    origin : str
        ``"source"``, ``"target"``, the path of a file, or ``"neither"``.
    beside : dict
        Keys of tokenizer_config.json that belong to it.
    warnings : tuple of str
    """

    template: Any
    origin: str
    beside: dict[str, Any]
    warnings: tuple[str, ...] = ()


def choose_template(plan: PatchPlan, target_folder: Path | None) -> ChosenTemplate:
    """Return the template that a plan asks for, with what the user should know of the choice.

    Raises
    ------
    TokenizerError, UnknownNameError
        If it cannot be read.
    """
    choice = plan.chat_template
    if choice is None:
        return ChosenTemplate(None, "neither", {})
    own, own_beside = _stored(plan.checkpoint.path)
    theirs, their_beside = (None, {}) if target_folder is None else _stored(target_folder)
    theirs = theirs or plan.target.chat_template
    if choice == "source":
        template, beside = own, own_beside
    elif choice == "target":
        template, beside = theirs, their_beside
    else:
        template, beside = _from_file(choice), {}
    if template is None:
        return ChosenTemplate(None, "neither", {}, _not_written(choice, own, theirs))
    return ChosenTemplate(template, choice, beside, tuple(_missing_markers(template, plan)))


def _not_written(choice: str, own: Any, theirs: Any) -> tuple[str, ...]:
    """Say that there is a template which is not written, and how it would be."""
    if choice == "source" and theirs is not None:
        return (
            "no chat template is written: the source has none, and the target's was not asked for; "
            "--chat-template target writes it, but the model has learned no chat",
        )
    if choice == "target" and own is not None:
        return (
            "no chat template is written: the target has none, and the source's was not asked for; "
            "--chat-template source writes it",
        )
    if choice == "target":
        return ("no chat template is written: neither the target nor the source has one",)
    return ()


def _from_file(name: str) -> str:
    """Return the text of a file, or refuse it before all of it is read."""
    try:
        with Path(name).open("rb") as file:
            data = file.read(MOST_TEMPLATE + 1)
        text = data.decode("utf-8-sig") if len(data) <= MOST_TEMPLATE else None
    except UnicodeDecodeError as error:
        raise UnknownNameError(
            f"the chat template {name!r} is no text in UTF-8: byte {error.start} is none; convert "
            "it, or give a template's file"
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise UnknownNameError(
            f"the chat template {name!r} is neither 'source', 'target' nor a "
            f"readable file ({why}); check the path"
        ) from error
    if text is None:
        raise UnknownNameError(
            f"the chat template {name!r} has over {MOST_TEMPLATE >> 20} MiB; give a template's file"
        )
    if not text.strip():
        raise UnknownNameError(f"the chat template {name!r} is empty; give a template's file")
    return text


def _stored(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the template of a folder, from whichever place holds it, and what belongs to it."""
    config = read_optional_json(folder, "tokenizer_config.json") or {}
    beside = {key: config[key] for key in BESIDE if key in config}
    if (folder / "chat_template.jinja").exists():
        path = check_inside(folder, "chat_template.jinja")
        return read_text(path, MOST_TEMPLATE), beside
    for stored in (read_optional_json(folder, "chat_template.json") or {}, config):
        template = stored.get("chat_template")
        if isinstance(template, (str, list)):
            return template, beside
    return None, {}


def texts_of(template: Any) -> list[str]:
    """Return the text of a template, of each of a list of named ones, or nothing of None."""
    if template is None or isinstance(template, str):
        return [] if template is None else [template]
    texts = [one.get("template") for one in template if isinstance(one, dict)]
    return [text for text in texts if isinstance(text, str)]


def literals(template: str) -> list[str]:
    """Return what a template spells itself: the text between expressions, and strings in them.

    The template is cut into tokens, not rendered. One that cannot be cut is returned whole.

    Examples
    --------
    >>> literals("{# <|a|> #}<|{{ m.role }}|>{{ '<|end|>' + m.x }}")
    ['<|', '|>', '<|end|>']
    """
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tokens = list(Environment().lexer.tokenize(template))
    except TemplateSyntaxError:
        return [template]
    return [str(token.value) for token in tokens if token.type in ("data", "string")]


def _missing_markers(template: Any, plan: PatchPlan) -> list[str]:
    """Warn of special tokens that a template names and the target lacks."""
    spelled = [part for text in texts_of(template) for part in literals(text)]
    markers = dict.fromkeys(marker for part in spelled for marker in _MARKER.findall(part))
    stored = read_optional_json(plan.checkpoint.path, "tokenizer.json") or {}
    added = stored.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        spelling = token.get("content") if isinstance(token, dict) else None
        if not isinstance(spelling, str) or len(spelling) <= 2:
            continue
        if any(spelling in part for part in spelled):
            markers[spelling] = None
    lost = [marker for marker in markers if plan.target.id_of(marker) is None]
    if not lost:
        return []
    shown = ", ".join(lost[:8]) + (", …" if len(lost) > 8 else "")
    return [
        f"the chat template names {len(lost)} special tokens that the target tokenizer lacks "
        f"({shown}); they will be read as plain text"
    ]


@dataclass(frozen=True)
class Rendering:
    """What came of rendering the template of a written folder.

    Attributes
    ----------
    problem : str or None
        Why it cannot be used.
    difference : str or None
        What it gives otherwise than in the folder that it came from.
    """

    problem: str | None = None
    difference: str | None = None


def try_template(folder: Path, template: Any, before: Path | None = None) -> Rendering:
    """Render three messages with the chat template of a written folder, in a bounded process.

    Parameters
    ----------
    folder : Path
        The written folder.
    template : str, list or None
        Its template.
    before : Path or None
        A folder in which the same template should give the same text and ids.
    """
    texts = texts_of(template)
    if not any("{" in text for text in texts):
        return Rendering()
    wrong = next(filter(None, map(syntax_problem, texts)), None)
    if wrong is not None:
        return Rendering(f"the chat template is copied as it is, and is no valid one: {wrong}")
    folders = [str(folder), *([] if before is None else [str(before)])]
    rendered = render(_CHILD, CLOCK, *folders)
    lines = rendered.lines
    if not lines:
        return Rendering(f"the chat template fails on three messages: {rendered.why}")
    if len(lines) < len(folders):  # it works here, and never did there
        return Rendering()
    after, *others = map(json.loads, lines)
    wanted = [one for one in others if one != after]
    return Rendering(None, difference(wanted[0], after) if wanted else None)


def syntax_problem(text: str) -> str | None:
    """Return what is wrong with the syntax of a template, which is parsed and not rendered."""
    from jinja2 import Environment, TemplateSyntaxError

    if "generation" in text:  # a tag that transformers adds
        return None
    try:
        extensions = ["jinja2.ext.loopcontrols"]
        Environment(extensions=extensions).parse(text)
    except TemplateSyntaxError as error:
        return f"{(error.message or 'unknown')[:100]} (line {error.lineno})"
    except RecursionError:
        return "it is nested too deeply"
    return None
