"""The group: every error is one line and one exit code; help is quick and complete."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

import tokensurgeon
from tokensurgeon import errors
from tokensurgeon.cli.main import COMMANDS, main


@pytest.fixture
def run_raising(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command which raises."""

    def run(error: BaseException, *flags: str) -> Result:
        @click.command()
        def command() -> None:
            raise error

        module = types.SimpleNamespace(command=command)
        monkeypatch.setitem(sys.modules, "tokensurgeon.cli.boom", module)
        monkeypatch.setitem(COMMANDS, "boom", "Raises.")
        return CliRunner().invoke(main, [*flags, "boom"])

    return run


def all_errors() -> list[type[errors.TokensurgeonError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [value for value in found if issubclass(value, errors.TokensurgeonError)]


@pytest.mark.parametrize("error", all_errors(), ids=lambda e: e.__name__)
def test_every_error_is_one_line_and_its_exit_code(
    run_raising: Callable[..., Result], error: type[errors.TokensurgeonError]
) -> None:
    result = run_raising(error("they share 12 tokens:\n  lower k"))
    assert result.exit_code == error.exit_code
    assert result.stderr == "tokensurgeon: error: they share 12 tokens: lower k\n"
    assert result.stdout == ""


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    assert errors.TokensurgeonError.exit_code == 1
    assert errors.UsageError.exit_code == errors.RecipeError.exit_code == 2
    assert errors.BoundExceededError.exit_code == 3


class PanicException(BaseException):
    """As a Rust panic in tokenizers: no Exception."""


@pytest.mark.parametrize("error", [KeyError("x"), PanicException("index out of bounds")])
def test_the_unexpected_is_one_line_and_points_to_the_traceback(
    run_raising: Callable[..., Result], error: BaseException
) -> None:
    quiet = run_raising(error)
    assert quiet.exit_code == 1
    assert quiet.stderr.count("\n") == 1
    assert f"unexpected {type(error).__name__}" in quiet.stderr
    assert "run 'tokensurgeon -v" in quiet.stderr
    loud = run_raising(error, "-v")
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr


def test_an_interruption_is_130(run_raising: Callable[..., Result]) -> None:
    result = run_raising(KeyboardInterrupt())
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_named(run_raising: Callable[..., Result]) -> None:
    result = run_raising(OSError(28, "No space left on device", "out/model.safetensors"))
    assert result.exit_code == 1
    assert result.stderr == (
        "tokensurgeon: error: No space left on device: out/model.safetensors\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transplent"], "no command 'transplent'; did you mean 'transplant'?"),
        (["zzz"], "no command 'zzz'; there are demo, transplant"),
        (["--nonsense"], "--nonsense"),
        (["explain", "folder"], "Missing argument 'TOKEN'"),
        (["transplant", "a", "--seed", "-1"], "-1 is not in the range"),
        (["transplant", "a", "--dtype", "int3"], "'int3' is not one of"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "--help'" in result.stderr
    assert result.stdout == ""


def test_no_command_shows_the_help_and_is_a_wrong_call() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_help_page(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: tokensurgeon {name}") or "Usage:" in result.stdout
    found = main.get_command(click.Context(main), name)
    assert found is not None
    assert found.help
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_help_page_imports_torch(name: str) -> None:
    code = (
        "import sys; from tokensurgeon.cli.main import main\n"
        f"try: main(['{name}', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_help_page_lists_the_commands_in_their_order() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.stdout == f"tokensurgeon, version {tokensurgeon.__version__}\n"


def test_help_answers_at_once() -> None:
    """Half a second on an idle machine; the best of three, and room for a busy one."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        command = [sys.executable, "-m", "tokensurgeon", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.5


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m tokensurgeon --help | head -n 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert run.stderr == ""
