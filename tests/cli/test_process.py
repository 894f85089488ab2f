"""Signals and streams: one line and the code that a shell expects, whatever ends a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.cli.test_options import commands
from tokensurgeon.cli import process
from tokensurgeon.cli.main import COMMANDS, main

Command = Callable[[], object]


@pytest.fixture
def run_doing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command which does something."""

    def run(do: Command, charset: str = "utf-8") -> Result:
        @click.command()
        def command() -> None:
            do()

        module = types.SimpleNamespace(command=command)
        monkeypatch.setitem(sys.modules, "tokensurgeon.cli.boom", module)
        monkeypatch.setitem(COMMANDS, "boom", "Does something.")
        return CliRunner(charset=charset).invoke(main, ["boom"])

    return run


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "ended by Terminated"),
        (signal.SIGHUP, "ended by Hangup"),
    ],
)
def test_a_signal_is_one_line_and_its_code(
    run_doing: Callable[..., Result], number: int, message: str
) -> None:
    before = list(map(signal.getsignal, process.ENDING))
    result = run_doing(lambda: send(number))
    assert result.exit_code == 128 + number
    assert result.stderr == f"tokensurgeon: error: {message}\n"
    assert list(map(signal.getsignal, process.ENDING)) == before


def test_what_cleans_up_is_not_disturbed_by_further_signals(
    run_doing: Callable[..., Result],
) -> None:
    cleaned = []

    def work() -> None:
        try:
            send(signal.SIGHUP)
        finally:
            send(signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
            cleaned.append(True)

    assert run_doing(work).exit_code == 128 + signal.SIGHUP
    assert cleaned == [True]


def test_a_signal_that_is_ignored_stays_ignored(run_doing: Callable[..., Result]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        result = run_doing(lambda: send(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.exit_code == 0, result.stderr


def test_the_end_of_a_file_is_no_interruption(run_doing: Callable[..., Result]) -> None:
    def end() -> None:
        raise EOFError("the archive ends")

    result = run_doing(end)
    assert result.exit_code == 1
    assert "the archive ends" in result.stderr


@pytest.mark.parametrize(
    ("charset", "shown"), [("ascii", "R?nyi ? ??? ?\n"), ("latin-1", "Rényi ? «ß» ?\n")]
)
def test_characters_that_a_terminal_lacks_are_replaced(
    run_doing: Callable[..., Result], charset: str, shown: str
) -> None:
    from tokensurgeon.cli import console

    def show() -> None:
        console.stdout().print("Rényi → «ß» \udc80")
        click.echo("→ \udc80", err=True)

    result = run_doing(show, charset=charset)
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == shown.encode(charset)


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_json_loses_no_character(run_doing: Callable[..., Result], charset: str) -> None:
    from tokensurgeon.cli import console

    value = {"token": "→ größer 日本 \udc80"}
    result = run_doing(lambda: console.write_json(value), charset=charset)
    assert json.loads(result.stdout_bytes.decode(charset)) == value


SHELL = {
    "help into a closed pipe": ("--help | READER", process.BROKEN_PIPE, ""),
    "a table into a closed pipe": ("initialisers list | READER", process.BROKEN_PIPE, ""),
    "an error into a closed pipe": ("nonsense 2>&1 | READER", 2, ""),
    "help on a full disk": ("--help > /dev/full", 1, "stdout takes no more: No space left on"),
    "a table on a full disk": ("initialisers list > /dev/full", 1, "stdout takes no more"),
    "an error on a full disk": ("nonsense 2> /dev/full", 2, ""),
    "a closed stream": ("--help >&-", 0, ""),
}


@pytest.mark.parametrize(
    ("case", "buffered"),
    [
        *((case, True) for case in SHELL),
        ("help into a closed pipe", False),
        ("help on a full disk", False),
    ],
)
def test_a_stream_that_takes_no_more(case: str, buffered: bool) -> None:
    words, code, message = SHELL[case]
    # The reader has gone before the first word is written.
    words = f"-m tokensurgeon {words}".replace("READER", "sh -c 'exec <&-'")
    script = f"set -o pipefail; {sys.executable} {'' if buffered else '-u'} {words}"
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    run = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert run.stderr.count("\n") == (1 if message else 0), run.stderr


def test_an_empty_argument_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        ["transplant", "", "--tokenizer", "a", "-o", "b"],
        ["verify", ""],
        ["evaluate", "a", "b", "--against="],
        ["train", "bpe", "a", "-o", ""],
        ["explain", "a", ""],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert "is empty; check the variables of the shell, or leave it out" in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "1" + "0" * 20])
def test_a_date_that_numpy_cannot_read_is_refused(
    run_doing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    result = run_doing(lambda: None)
    assert result.exit_code == 2
    assert f"SOURCE_DATE_EPOCH is {value!r}" in result.stderr
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert run_doing(lambda: None).exit_code == 0


def fractions() -> list[tuple[click.Command, click.Option]]:
    kinds = (click.FloatRange, click.types.FloatParamType)
    return [
        (command, option)
        for command in commands(main)
        for option in command.params
        if isinstance(option, click.Option) and isinstance(option.type, kinds)
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_option_with_a_fraction_refuses_what_is_no_number(value: str) -> None:
    options = fractions()
    assert len(options) > 8
    for command, option in options:
        with pytest.raises(click.BadParameter):
            option.process_value(click.Context(command), value)


def test_output_options_expand_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_source: Path, tiny_donor: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    words = ["align", str(tiny_source), str(tiny_donor), "--export-map", "~/map.jsonl"]
    assert CliRunner().invoke(main, words).exit_code == 0
    words = ["transplant", str(tiny_source), "--tokenizer", str(tiny_donor), "--init", "mean"]
    done = CliRunner().invoke(main, [*words, "-o", "~/out"])
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["map.jsonl", "out"]
    assert list((tmp_path / "here").iterdir()) == []
