"""The registry: names, settings and plug-ins."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tokensurgeon.errors import InitialiserError, SettingError, UnknownNameError
from tokensurgeon.initialisers import (
    InitContext,
    NewRows,
    build,
    get,
    initialiser,
    load_plugin,
    names,
    registry,
    settings_of,
)
from tokensurgeon.initialisers.code_files import code_files
from tokensurgeon.initialisers.registry import source_files

PLUGIN = '''
from dataclasses import dataclass

from tokensurgeon.initialisers import InitContext, NewRows, build, initialiser


@initialiser("{name}")
@dataclass(frozen=True)
class Twin:
    """A plain copy."""

    strength: float = 1.0

    def __call__(self, context: InitContext) -> NewRows:
        return build("subword-mean", {{}})(context)
'''


@pytest.fixture(autouse=True)
def _registry_restored() -> Iterator[None]:
    scanned = list(registry._SCANNED)
    yield
    registry._SCANNED[:] = scanned
    for name in [name for name in registry._CLASSES if not registry.is_builtin(name)]:
        del registry._CLASSES[name]


@dataclass(frozen=True)
class Everything:
    count: int = 1
    share: float = 0.5
    active: bool = False
    layer: int | None = None
    path: str | None = None
    mode: Literal["soft", "hard"] = "soft"

    def __call__(self, context: InitContext) -> NewRows:
        return NewRows()


@pytest.fixture
def everything() -> str:
    initialiser("everything")(Everything)
    return "everything"


def test_every_builtin_is_found_under_its_name():
    for name in names():
        assert get(name).name == name
        assert get(name).__doc__


def test_the_list_of_names_imports_no_torch():
    code = (
        "import sys; from tokensurgeon.initialisers import names, get; [get(n) for n in names()];"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'subword-mean'"):
        get("subword_mean")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "32", 32),
        ("count", 32.0, 32),
        ("share", "1e-3", 1e-3),
        ("share", 1, 1.0),
        ("active", "yes", True),
        ("active", "off", False),
        ("layer", "none", None),
        ("layer", "3", 3),
        ("path", "a.csv", "a.csv"),
        ("path", None, None),
        ("mode", "hard", "hard"),
    ],
)
def test_text_is_read_as_the_type_of_the_field(everything: str, key: str, text: object, value):
    found = getattr(build(everything, {key: text}), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("count", "1.5"),
        ("count", True),
        ("count", "many"),
        ("share", "half"),
        ("share", False),
        ("active", "maybe"),
        ("active", 1),
        ("layer", "x"),
        ("mode", "sof"),
    ],
)
def test_text_of_another_type_is_refused_and_quoted(everything: str, key: str, text: object):
    with pytest.raises(SettingError, match=f"everything.{key}.*{text!r}"):
        build(everything, {key: text})


def test_an_unknown_setting_is_answered_with_the_nearest_and_the_list(everything: str):
    with pytest.raises(SettingError, match=r"did you mean 'count'\? Known: count, share"):
        build(everything, {"counts": 1})
    with pytest.raises(SettingError, match="it has no settings"):
        build("mean", {"k": 1})


def test_a_setting_that_has_no_default_is_asked_for():
    with pytest.raises(SettingError, match="'external' needs 'file'"):
        build("external", {})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("omp", {"k": 0}),
        ("omp", {"ridge": -1}),
        ("omp", {"prior": float("nan")}),
        ("omp", {"tolerance": 1}),
        ("random", {"scale": -1}),
        ("multivariate", {"scale": float("inf")}),
        ("subword-exp", {"rate": 51}),
        ("subword-shrunk", {"shrink": 1.5}),
        ("hidden-residual", {"layer": 0}),
        ("hidden-residual", {"alpha": 11}),
        ("external", {"file": "weights.pkl"}),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_numbers(name: str, settings: dict[str, object]):
    ((key, value),) = settings.items()
    with pytest.raises(SettingError, match=f"{name}.{key} must .*got '?{value}"):
        build(name, settings)


def test_settings_are_named_with_their_defaults(everything: str):
    assert settings_of(everything)["share"] == 0.5
    assert "k" in settings_of("omp")
    assert settings_of("omp-published").keys() == settings_of("omp").keys()


def test_a_name_is_given_once(everything: str):
    @dataclass(frozen=True)
    class Other:
        def __call__(self, context: InitContext) -> NewRows:
            return NewRows()

    with pytest.raises(InitialiserError, match="registered twice"):
        initialiser(everything)(Other)
    with pytest.raises(InitialiserError, match="is the name of a built-in"):
        initialiser("omp")(Other)


def test_only_a_frozen_dataclass_that_can_be_called_is_registered():
    class Plain:
        def __call__(self, context: InitContext) -> NewRows:
            return NewRows()

    @dataclass(frozen=True)
    class Silent:
        k: int = 1

    with pytest.raises(InitialiserError, match="not a frozen dataclass"):
        initialiser("plain")(Plain)
    with pytest.raises(InitialiserError, match="no __call__"):
        initialiser("silent")(Silent)


def test_a_plugin_file_adds_its_names_once(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name="mine"), encoding="utf-8")
    assert load_plugin(path) == ["mine"]
    assert load_plugin(path) == ["mine"]
    mine: Any = build("mine", {"strength": "2"})
    assert mine.strength == 2.0
    assert "mine" in names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers nothing"),
        ("import no_such_module", "fails on import: ModuleNotFoundError"),
        ("def", "fails on import: SyntaxError"),
        ("{}['x']", "fails on import: KeyError: there is no 'x'; mend it"),
        ("import sys; sys.exit(0)", "fails on import: SystemExit"),
        (PLUGIN.format(name="omp"), "name of a built-in"),
    ],
)
def test_a_plugin_file_that_is_wrong_is_refused_in_one_line(tmp_path, text: str, message: str):
    path = tmp_path / "wrong.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InitialiserError, match=message) as caught:
        load_plugin(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InitialiserError, match="no plug-in file"):
        load_plugin(tmp_path / "absent.py")


@pytest.mark.parametrize("value", ["nan", "inf", float("nan"), 10**400, "9" * 400])
def test_a_number_that_is_none_is_refused(value: object):
    for name, key in (("omp", "k"), ("random", "scale")):
        with pytest.raises(SettingError, match=f"{name}.{key} must be .*; got"):
            build(name, {key: value})


class _Entry:
    def __init__(self, name: str, value: str, found: object) -> None:
        self.name, self.value, self._found = name, value, found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def _install(monkeypatch: pytest.MonkeyPatch, entry: _Entry) -> None:
    registry._SCANNED.clear()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])


def test_an_installed_plugin_is_found_under_its_entry_point_name(monkeypatch):
    _install(monkeypatch, _Entry("installed", "package:Everything", Everything))
    found: object = get("installed")
    assert found is Everything


def test_an_installed_plugin_can_not_take_the_name_of_a_builtin(monkeypatch):
    _install(monkeypatch, _Entry("omp", "package:Everything", Everything))
    with pytest.raises(InitialiserError, match="takes the name of the built-in 'omp'"):
        names()


def test_an_installed_plugin_that_fails_is_named(monkeypatch):
    _install(monkeypatch, _Entry("broken", "package:Broken", ImportError("no x")))
    with pytest.raises(InitialiserError, match=r"'broken'.*fails on import: ImportError: no x"):
        names()


def shown(name: str) -> set[str]:
    """Return the package's files behind a method, without the folder they are in."""
    package = Path(registry.__file__).parent.parent
    return {file.relative_to(package).as_posix() for file in source_files(name)}


def test_the_files_of_a_method_are_all_that_it_imports():
    omp = shown("omp")
    assert "initialisers/methods/omp.py" in omp
    numerics = {"pursuit", "shortlist", "dictionary", "piece_weights"}
    assert {f"initialisers/numerics/{name}.py" for name in numerics} <= omp
    assert "spaces/ngrams.py" in shown("wechsel")
    assert not any("hypernetwork" in file for file in omp)


def test_the_files_of_the_hypernetwork_are_its_whole_package():
    folder = Path(registry.__file__).parent / "hypernetwork"
    modules = {f"initialisers/hypernetwork/{file.name}" for file in folder.glob("[!_]*.py")}
    assert len(modules) > 5
    assert modules <= shown("hypernetwork")


def test_the_file_of_a_plugin_counts_with_what_it_imports(tmp_path: Path):
    path = tmp_path / "counted.py"
    path.write_text(PLUGIN.format(name="counted"), encoding="utf-8")
    load_plugin(path)
    files = source_files("counted")
    assert path.resolve() in files
    assert Path(registry.__file__) in files


def test_relative_imports_and_imports_in_functions_are_followed(tmp_path: Path, monkeypatch):
    package = tmp_path / "plugged"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from .inner import x\n")
    (package / "deep" / "inner.py").write_text("x = 1\n")
    (package / "unused.py").write_text("")
    (package / "method.py").write_text("class A:\n    def f(self):\n        from .deep import x\n")
    monkeypatch.syspath_prepend(tmp_path)
    files = code_files(importlib.import_module("plugged.method").A)
    assert {file.relative_to(package).as_posix() for file in files} == {
        "method.py",
        "deep/__init__.py",
        "deep/inner.py",
    }


def test_editing_a_file_that_a_method_imports_changes_the_hash_of_its_code(tmp_path, monkeypatch):
    from tokensurgeon.studies.comparison_state import code_hash

    package = tmp_path / "hashed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "arithmetic.py").write_text("FACTOR = 1.0\n")
    text = PLUGIN.format(name="hashed") + "\nfrom hashed import arithmetic\n"
    (package / "method.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("hashed.method")
    before = code_hash("hashed")
    assert before == code_hash("hashed")
    (package / "arithmetic.py").write_text("FACTOR = 2.0\n")
    assert code_hash("hashed") not in (before, None)
    assert code_hash("no-such-method") is None


def test_a_preset_is_a_class_of_its_own_with_the_settings_it_leaves_open():
    assert settings_of("focus") == {
        "space": None,
        "encoder": None,
        "temperature": 1.0,
        "dim": 128,
    }
    assert get("focus") is not get("clp")
    with pytest.raises(SettingError, match=r"'focus' has no setting 'combiner'"):
        build("focus", {"combiner": "omp"})
    with pytest.raises(SettingError, match=r"wechsel\.k must be int; got None"):
        build("wechsel", {"k": None})
    clp: Any = build("clp", {"k": None})
    assert clp.k is None
