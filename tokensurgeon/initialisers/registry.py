"""Names to initialisers: built-ins, installed plug-ins, and files given on the command line.

Built-ins are a table of module names, imported when first asked for. A plug-in (entry-point group
`tokensurgeon.initialisers`, or a file given with `--plugin`) adds names; it can never take one
that exists. This module builds instances from settings; it does not run them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from tokensurgeon.errors import InitialiserError, SettingError, UnknownNameError, reason
from tokensurgeon.initialisers.code_files import code_files
from tokensurgeon.initialisers.contract import Initialiser

GROUP = "tokensurgeon.initialisers"

_HOUSE = "tokensurgeon.initialisers.methods."
_FILES = {
    "plain": "zero mean random multivariate",
    "subword": (
        "subword-mean subword-first subword-last subword-ends subword-exp subword-shrunk eeve bil"
    ),
    "external": "external",
    "omp": "omp omp-published",
    "hidden_residual": "hidden-residual",
    "hidden_state": "hidden-state",
    "anchors": "anchors wechsel focus clp tokenadapt tokenadapt-local tokenadapt-global",
    "ridge_composer": "ridge-composer",
    "hypernetwork_rows": "hypernetwork",
    "fixed_codes": "binary-code glyphs",
}
_BUILTINS = {name: file for file, names in _FILES.items() for name in names.split()}
_CLASSES: dict[str, type[Initialiser]] = {}
_SCANNED: list[bool] = []

Class = TypeVar("Class", bound=type)


def initialiser(name: str) -> Callable[[Class], Class]:
    """Register the decorated frozen dataclass under `name`, and set its `name`.

    Raises
    ------
    InitialiserError
        If the name is taken, or the class is no frozen dataclass with a `__call__`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from tokensurgeon.initialisers import InitContext, NewRows, initialiser
    >>> @initialiser("docs-only")
    ... @dataclass(frozen=True)
    ... class DocsOnly:
    ...     strength: float = 0.5
    ...
    ...     def __call__(self, context: InitContext) -> NewRows:
    ...         return NewRows()
    >>> DocsOnly().name
    'docs-only'
    """

    def register(cls: Class) -> Class:
        if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise InitialiserError(
                f"'{name}' ({cls.__qualname__}) is not a frozen dataclass; "
                "put @dataclass(frozen=True) below @initialiser"
            )
        if not any("__call__" in vars(base) for base in cls.__mro__):
            raise InitialiserError(
                f"'{name}' ({cls.__qualname__}) has no __call__(context); write one"
            )
        home = _BUILTINS.get(name)
        if home is not None and cls.__module__ != _HOUSE + home:
            raise InitialiserError(
                f"'{name}' in {cls.__module__} is the name of a built-in; choose another"
            )
        other = _CLASSES.get(name)
        identity = cls.__module__, cls.__qualname__
        if other is not None and (other.__module__, other.__qualname__) != identity:
            raise InitialiserError(
                f"'{name}' is registered twice, by {other.__module__} and {cls.__module__}; "
                "rename one"
            )
        cls.name = name  # type: ignore[attr-defined]
        _CLASSES[name] = cast("type[Initialiser]", cls)
        return cls

    return register


def preset(
    name: str,
    base: type,
    doc: str,
    *,
    fixed: Mapping[str, Any] = types.MappingProxyType({}),
    settings: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Register a method that is a choice of settings of another.

    Parameters
    ----------
    name : str
    base : class
        Annotates every setting and gives each a value; has `__call__`.
    doc : str
        The docstring.
    fixed : mapping
        Settings that are given a value for good.
    settings : mapping
        Settings that a user may set, in the order in which they are shown, with their defaults.
        One whose default is not None cannot be None.
    """
    kinds = {
        key: base.__annotations__[key].removesuffix("" if default is None else " | None")
        for key, default in settings.items()
    }
    body = {"__module__": base.__module__, "__doc__": doc, "__annotations__": kinds}
    title = "".join(part.title() for part in name.split("-"))
    cls: type[Any] = type(title, (base,), {**body, **fixed, **settings})
    initialiser(name)(dataclasses.dataclass(frozen=True)(cls))


def source_files(name: str) -> list[Path]:
    """Return the files whose code decides what the initialiser `name` does: see `code_files`.

    Raises
    ------
    UnknownNameError
        If there is no such initialiser.
    OSError, TypeError
        If it is defined in no file.
    """
    return code_files(get(name))


def names() -> list[str]:
    """Return every name that `get` knows, sorted; imports installed plug-ins, not torch."""
    _scan_entry_points()
    return sorted({*_BUILTINS, *_CLASSES})


def is_builtin(name: str) -> bool:
    """Say whether `name` is one of ours."""
    return name in _BUILTINS


def get(name: str) -> type[Initialiser]:
    """Return the class registered under `name`.

    Raises
    ------
    UnknownNameError
        With the nearest right name and the list.
    """
    if name in _BUILTINS and name not in _CLASSES:
        importlib.import_module(_HOUSE + _BUILTINS[name])
    if name not in _CLASSES:
        _scan_entry_points()
    if name not in _CLASSES:
        known = names()
        raise UnknownNameError(f"no initialiser '{name}'; {_nearest(name, known)}")
    return _CLASSES[name]


def build(name: str, settings: Mapping[str, Any] | None = None) -> Initialiser:
    """Return an instance of `name` with `settings`; strings are read as the field's type.

    Parameters
    ----------
    name : str
    settings : mapping of str to value, optional
        From YAML (typed) or the command line (strings): ``{"k": "32"}`` and ``{"k": 32}`` agree.

    Raises
    ------
    UnknownNameError
        If there is no such initialiser.
    SettingError
        If a key is unknown, a value has the wrong type, or is out of its range.
    """
    cls = get(name)
    known = settings_of(name)
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        field_name = key.replace("-", "_")
        if field_name not in known:
            hint = _nearest(field_name, list(known)) if known else "it has no settings"
            raise SettingError(f"'{name}' has no setting '{key}'; {hint}")
        values[field_name] = _parse(value, hints[field_name], f"{name}.{field_name}")
    for key, default in known.items():
        if default is dataclasses.MISSING and key not in values:
            raise SettingError(f"'{name}' needs '{key}'; give --set {name}.{key}=…")
    return cls(**values)


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of `name` with their defaults; `dataclasses.MISSING` where it has none.

    Raises
    ------
    UnknownNameError
        If there is no such initialiser.
    """
    return {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(get(name))  # type: ignore[arg-type]
        if field.init
    }


def _nearest(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(known)}"


_YES = {"true", "yes", "on", "1"}
_NO = {"false", "no", "off", "0"}


def _parse(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as the annotated type `kind`: bool, int, float, str, Literal, or | None."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        says_none = value is None or str(value).lower() in ("none", "null", "")
        if type(None) in options and says_none:
            return None
        rest = [option for option in options if option is not type(None)]
        if len(rest) == 1:
            return _parse(value, rest[0], where)
        kind = rest
    elif origin is typing.Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if value == choice or str(value) == str(choice):
                return choice
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise SettingError(f"{where} is one of {', '.join(map(str, choices))}; got {value!r}{hint}")
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _YES | _NO:
            return value.lower() in _YES
    elif kind in (int, float) and not isinstance(value, bool):
        if kind is float or not isinstance(value, float) or value.is_integer():
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                number = kind(value)
                if math.isfinite(number):
                    return number
    elif kind is str and isinstance(value, str | Path | int | float):
        return str(value)
    elif isinstance(kind, type) and kind not in (bool, int, float) and isinstance(value, kind):
        return value
    wanted = getattr(kind, "__name__", str(kind))
    raise SettingError(f"{where} must be {wanted}; got {value!r}")


def load_plugin(path: str | Path) -> list[str]:
    """Import a Python file and return the names that it registers.

    The file is code and runs with the user's rights: only a command line names one, never a
    recipe. Loading the same file twice is harmless.

    Raises
    ------
    InitialiserError
        If the file is absent, fails on import, or registers nothing.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InitialiserError(f"no plug-in file {path}; check the path given with --plugin")
    module_name = "tokensurgeon_plugin_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if module_name not in sys.modules:
        before = set(_CLASSES)
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise InitialiserError(f"{path} is not a Python file; a plug-in ends in .py; rename it")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            for name in set(_CLASSES) - before:
                del _CLASSES[name]
            if isinstance(error, InitialiserError):
                raise
            raise InitialiserError(
                f"the plug-in {path} fails on import: {type(error).__name__}: {reason(error)}; "
                "mend it"
            ) from error
    registered = [name for name, cls in _CLASSES.items() if cls.__module__ == module_name]
    if not registered:
        raise InitialiserError(
            f"the plug-in {path} registers nothing; decorate a class with @initialiser(NAME)"
        )
    return sorted(registered)


def _scan_entry_points() -> None:
    """Import installed plug-ins once; a name that is taken is an error, not an override."""
    if _SCANNED:
        return
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        if entry.value.startswith(_HOUSE):
            continue
        if entry.name in _BUILTINS:
            raise InitialiserError(
                f"the installed plug-in {entry.value} takes the name of the built-in "
                f"'{entry.name}'; uninstall it, or have its author rename it"
            )
        try:
            loaded = entry.load()
        except InitialiserError:
            raise
        except Exception as error:
            raise InitialiserError(
                f"the installed plug-in '{entry.name}' ({entry.value}) fails on import: "
                f"{type(error).__name__}: {reason(error)}; uninstall it, or have its author mend it"
            ) from error
        if getattr(loaded, "name", None) is None or loaded.name not in _CLASSES:
            initialiser(entry.name)(loaded)
    _SCANNED.append(True)
