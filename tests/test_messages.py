"""Every error text of the package: a fact, then the next step, and whatever it names exists.

The texts are collected from the code, so a new one is read here too. The house writes them as what
follows "tokensurgeon: error: ", in lower case and without a full stop.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import tokensurgeon
from tokensurgeon import errors
from tokensurgeon.cli.main import COMMANDS, main
from tokensurgeon.errors import CheckpointError, CorpusError, reading, reason
from tokensurgeon.initialisers import names

PACKAGE = Path(tokensurgeon.__file__).parent
OURS = {name for name, one in vars(errors).items() if isinstance(one, type)}
CLICKS = {"UsageError", "BadParameter", "ClickException"}

STEPS = {
    "add", "align", "ask", "check", "choose", "compare", "convert", "copy", "correct", "count",
    "cut", "decorate", "download", "drop", "evaluate", "export", "extend", "fetch", "fill", "free",
    "give", "have", "install", "leave", "lower", "make", "measure", "mend", "move", "name",
    "pack", "part", "patch", "pip", "prune", "put", "python", "raise", "remove", "rename",
    "repair", "report", "restore", "run", "save", "score", "set", "spell", "start", "take", "train",
    "transplant", "uninstall", "unpack", "unset", "untie", "update", "use", "write",
}  # fmt: skip
"""Verbs that a next step begins with."""

ALLOWED = re.compile(
    r"refused|must (be|end|say)|needs '\{\}'|known: \{\}|there are \{\}|is one of|says no|"
    r"allows \{\}|the last id is|nothing was (replaced|left)"
)
"""What leaves no step open, says what would have been right, or what became of the output."""
ADVICE = {"export", "hint", "advice", "less", "why", "what", "_first_problem(error)", "verb",
          "_nearest(name, known)", "error.problem"}  # fmt: skip
"""What texts end with that was worded before, and is advice itself."""

AUTHORS = {
    "checkpoint/plan.py", "checkpoint/body_update.py", "initialisers/check.py",
    "initialisers/contract.py", "models/early_exit.py", "models/language_model.py",
    "models/row_replacement.py", "models/reload.py", "checkpoint/verify.py", "checkpoint/write.py",
    "surgery/rows.py", "calibration/training/loop.py", "trainers/edits/base.py",
    "evaluation/scoring.py", "spaces/space.py", "initialisers/numerics/clip.py",
}  # fmt: skip
"""Contracts between parts of the program, and checks of its own results: who wrote the code reads
what was expected, and a user has no step to take."""


class Message(NamedTuple):
    """One text: where it is raised, as what, its words with ``{}`` for what is filled in.

    `values` are those fillings, but for a text that passes one of ours on; `end` is the last one
    where a text ends with it.
    """

    where: str
    error: str
    text: str
    values: tuple[ast.expr, ...]
    end: str

    def __str__(self) -> str:
        return f"{self.where} {self.error}: {self.text}"


def _words(node: ast.AST) -> str:
    """Return the literal words of an expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "{}"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_words, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.IfExp):  # the shorter one, to be strict
        return min(_words(node.body), _words(node.orelse), key=len)
    return "{}"


def _end(node: ast.AST) -> str:
    """Return the code of what a text ends with, or nothing where it ends in words."""
    last = node.values[-1] if isinstance(node, ast.JoinedStr) else None
    return ast.unparse(last.value) if isinstance(last, ast.FormattedValue) else ""


def _caught(handler: ast.ExceptHandler) -> set[str]:
    """Return the names of the errors that a handler is for."""
    if handler.type is None:
        return {"BaseException"}
    return {one.id for one in ast.walk(handler.type) if isinstance(one, ast.Name)}


def _collected() -> Iterator[Message]:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        handlers = [one for one in ast.walk(tree) if isinstance(one, ast.ExceptHandler)]
        passed_on = {id(node) for one in handlers if _caught(one) <= OURS for node in ast.walk(one)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in OURS | CLICKS:
                where = f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}"
                inside = () if id(node) in passed_on else ast.walk(node)
                values = [n.value for n in inside if isinstance(n, ast.FormattedValue)]
                yield Message(where, name, _words(node.args[0]), tuple(values), _end(node.args[0]))


MESSAGES = tuple(_collected())
TEXTS = tuple(message for message in MESSAGES if message.text != "{}")


def _wrong(test: object) -> list[str]:
    return [str(message) for message in TEXTS if not test(message)]  # type: ignore[operator]


def test_the_texts_are_found() -> None:
    assert len(TEXTS) > 350
    assert {message.error for message in TEXTS} > {"UsageError", "CheckpointError", "CorpusError"}
    made_elsewhere = [str(message) for message in MESSAGES if message.text == "{}"]
    assert len(made_elsewhere) <= 8, made_elsewhere


def test_a_text_is_a_whole_line() -> None:
    """It neither ends where a longer one was cut nor is more than the terminal shows."""

    def whole(message: Message) -> bool:
        return (
            message.text == " ".join(message.text.split())
            and message.text[-1] not in ":,;( "
            and len(message.text) < errors.LONGEST
        )

    assert not _wrong(whole)


def test_a_text_is_written_as_the_others() -> None:
    def in_style(message: Message) -> bool:
        sentences = ". " in message.text
        capital = re.match(r"[A-Z][a-z]+ ", message.text)
        return not capital and message.text.endswith(".") == sentences

    assert not _wrong(in_style)


def _helps(message: Message) -> bool:
    advice = message.end in ADVICE or message.end.replace("_", "").isupper()  # a constant
    if message.where.split(":")[0] in AUTHORS or advice:
        return True
    clauses = re.split(r"[;:.,] ", message.text)
    firsts = {re.sub(r"^(or|and|then|so|run:) ", "", clause).split(" ")[0] for clause in clauses}
    return bool({first.lower() for first in firsts} & STEPS or ALLOWED.search(message.text))


def test_a_text_says_the_next_step() -> None:
    assert not _wrong(_helps)
    for text in ("{} is broken", "cannot load {}: {}", "{} has 3 rows; it was changed"):
        assert not _helps(Message("a.py:1", "CheckpointError", text, (), "reason(error)"))


def test_another_librarys_words_are_put_in_by_reason_alone() -> None:
    """Its first line ends at a colon, or says `'n'`; `reason` gives the whole in one line."""
    bare = [
        str(message)
        for message in MESSAGES
        for value in message.values
        if ast.unparse(value) in ("error", "str(error)", "e", "exc")
        or ("error" in ast.unparse(value) and "splitlines" in ast.unparse(value))
    ]
    assert not bare


@cache
def _commands() -> dict[str, click.Command]:
    """Return every command by its words, such as ``patch export``."""
    context = click.Context(main)
    commands: dict[str, click.Command] = {"": main}
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        commands[name] = command
        for part in getattr(command, "commands", {}):
            commands[f"{name} {part}"] = command.commands[part]  # type: ignore[attr-defined]
    return commands


def test_every_option_named_exists() -> None:
    known = {
        flag
        for command in _commands().values()
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    named = {
        (option, message.where)
        for message in TEXTS
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", message.text)
    }
    assert len({option for option, _ in named}) > 20
    assert not [one for one in sorted(named) if one[0] not in known]


_COMMAND = r"([a-z-]+(?: (?:train|export|apply|show|check)\b)?)"
"""A command, with the words of a command of its own."""


def test_every_command_named_exists() -> None:
    named = [
        (words, message.where)
        for message in TEXTS
        for words in re.findall(rf"tokensurgeon {_COMMAND}", message.text)
    ]
    assert len(named) > 4
    assert not [one for one in named if one[0] not in _commands() and one[0] != "command"]


def test_every_file_named_is_one_that_the_code_knows() -> None:
    literals = {
        part
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
        for part in (node.value, node.value.rpartition("/")[2])
    }
    suffixes = r"(?:json|jinja|txt|npz|safetensors|yaml|jsonl|model|tiktoken)"
    named = {
        (name, message.where)
        for message in TEXTS
        for name in re.findall(rf"(?<![\w*/.{{}}])[a-z_]+\.{suffixes}\b", message.text)
    }
    assert len(named) > 10
    assert not [one for one in sorted(named) if one[0] not in literals and one[0] != "en.txt"]


def test_every_extra_method_and_function_named_exists() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    extras = set(setup["options.extras_require"])
    methods = set(names())
    for message in TEXTS:
        for extra in re.findall(r"tokensurgeon\[(\w+)\]", message.text):
            assert extra in extras, message
        for method in re.findall(r"[Uu]se '([a-z-]+)'", message.text):
            assert method in methods, message
        for function in re.findall(r"\btokensurgeon\.(\w+)", message.text):
            assert hasattr(tokensurgeon, function), message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("error for field 'n':\n    expected int"), "for field 'n': expected int"),
        (KeyError("weights"), "there is no 'weights'"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ValueError("it ends at a colon:"), "it ends at a colon"),
        (ValueError("x" * 900), "…"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_why_another_library_failed_is_one_whole_line(error: Exception, said: str) -> None:
    line = reason(error)
    assert line.endswith(said)
    assert "\n" not in line
    assert len(line) <= 250


def test_what_breaks_while_a_file_is_read_is_blamed_on_the_file() -> None:
    blamed = r"^a\.json is damaged: .+; take another$"
    for error in (KeyError("rows"), TypeError("no list"), IndexError(), AttributeError("x")):
        with pytest.raises(CheckpointError, match=blamed), reading("a.json", "take another"):
            raise error
    with pytest.raises(CorpusError, match=r"^mine$"), reading("a.json", "take another"):
        raise CorpusError("mine")
