"""The house's own rules: which room may import which, sizes, and promises of the front page."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tokensurgeon"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (
    "version",
    "errors",
    "arrays",
    "progress",
    "outputs",
    "recipe_yaml",
    "recipe_parts",
    "recipe",
    "vocabulary",
    "text",
    "alignment",
    "trainers",
    "checkpoint",
    "models",
    "evaluation",
    "inspection",
    "spaces",
    "initialisers",
    "calibration",
    "report",
    "handover",
    "surgery",
    "studies",
    "patches",
    "jobs",
    "runtime",
    "cli",
)
"""A module imports from its own room and from rooms above it in this list."""

FORBIDDEN = {("initialisers", "checkpoint"), ("spaces", "checkpoint")}
"""Besides: an initialiser cannot see a checkpoint file."""

FRONT = {"__init__", "__main__"}
"""The package's own face; may import from every room."""

HEAVY = ("torch", "transformers", "sklearn", "pandas", "tokenizers", "lm_eval")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(path: Path) -> Iterator[str]:
    """Yield every module of the package that a file imports, wherever in the file."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = package[: len(package) - node.level + 1]
                base = ".".join([*outer, base] if base else outer)
            found = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] == "tokensurgeon")


def may_import(room: str, other: str) -> bool:
    if (room, other) in FORBIDDEN:
        return False
    return ROOMS.index(other) <= ROOMS.index(room)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(name_of(path))
    if room is None or room in FRONT:
        return
    assert room in ROOMS, f"{room} is a new room: say where it stands in ROOMS"
    for imported in imports(path):
        other = room_of(imported)
        if other is None or other not in ROOMS:
            assert hasattr(importlib.import_module("tokensurgeon"), other or "__version__")
            continue
        assert may_import(room, other), f"{name_of(path)} imports {imported}"


def test_the_room_table_forbids_what_it_should() -> None:
    assert may_import("surgery", "errors")
    assert may_import("checkpoint", "checkpoint")
    assert not may_import("vocabulary", "alignment")
    assert not may_import("initialisers", "checkpoint")
    assert not may_import("report", "cli")


def import_graph() -> dict[str, set[str]]:
    """Return what each module imports, inside functions and for types alone too.

    A name that a package's ``__init__`` hands on counts as that ``__init__``; that Python also runs
    the ``__init__`` above a module which is imported by its full name does not.
    """
    names = {name_of(path) for path in MODULES}

    def module(imported: str) -> str:
        while imported not in names:
            imported = imported.rpartition(".")[0]
        return imported

    return {name_of(p): {module(i) for i in imports(p)} - {name_of(p)} for p in MODULES}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes that lie on a circle, or between two: those that peeling ends leaves."""
    left = {node: set(others) for node, others in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = {node for node, others in left.items() if not others or node not in imported}
        if not ends:
            return sorted(left)
        left = {node: others - ends for node, others in left.items() if node not in ends}


def test_no_import_goes_in_a_circle() -> None:
    assert circles(import_graph()) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


def writes_to_dict(source: str) -> list[int]:
    """Return the lines that change an object's attributes past its class.

    That is an assignment to ``vars(x)`` or ``x.__dict__``, a call of one of their methods that
    change them, and ``object.__setattr__`` on another object than ``self``.
    """
    changing = {"update", "pop", "popitem", "clear", "setdefault", "__setitem__", "__delitem__"}

    def is_dict(node: ast.expr) -> bool:
        if isinstance(node, ast.Subscript):
            return is_dict(node.value)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id == "vars"
        return isinstance(node, ast.Attribute) and node.attr == "__dict__"

    def is_write(node: ast.expr) -> bool:
        if isinstance(node, ast.Subscript | ast.Attribute):
            return isinstance(node.ctx, ast.Store | ast.Del) and is_dict(node)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        if node.func.attr in changing:
            return is_dict(node.func.value)
        on_self = bool(node.args) and ast.unparse(node.args[0]) == "self"
        return ast.unparse(node.func) == "object.__setattr__" and not on_self

    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.expr))
    return [node.lineno for node in nodes if is_write(node)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_writes_into_another_objects_dict(path: Path) -> None:
    assert writes_to_dict(path.read_text("utf-8")) == []


def test_writes_into_a_dict_are_found() -> None:
    writes = (
        'vars(x)["a"] = 1',
        'x.__dict__["a"] += 1',
        "x.__dict__ = {}",
        "vars(x).update(a=1)",
        'del x.__dict__["a"]',
        'object.__setattr__(x, "a", 1)',
        'for vars(x)["a"] in (1, 2): pass',
    )
    assert [writes_to_dict(line) for line in writes] == [[1]] * len(writes)
    reads = ('a = vars(x)["a"]', "{**vars(x)}", 'object.__setattr__(self, "a", 1)', "x.update(a=1)")
    assert [writes_to_dict(line) for line in reads] == [[]] * len(reads)


def array_aliases(source: str) -> list[str]:
    """Return the names that a module gives to array types."""
    types = (ast.Assign, ast.AnnAssign)
    return [
        ast.unparse(node)
        for node in ast.parse(source).body
        if isinstance(node, types)
        and isinstance(node.value, ast.Subscript)
        and ast.unparse(node.value.value).split(".")[-1] in ("NDArray", "ndarray")
    ]


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "arrays.py"], ids=name_of)
def test_array_types_have_one_name_each(path: Path) -> None:
    assert array_aliases(path.read_text("utf-8")) == []


RECURRING = 19
"""Before the rooms were made there were 23. Some stay: a command has the name of what it calls, as
`trim` and `extend` have, which call the jobs of these names."""


def test_few_files_have_the_name_of_another() -> None:
    counts = Counter(path.name for path in MODULES if path.stem != "__init__")
    recurring = sorted(name for name, count in counts.items() if count > 1)
    assert len(recurring) <= RECURRING, recurring


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short_enough_to_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def is_number(node: ast.expr | None) -> bool:
    """Whether an expression is made of numbers alone: one, a tuple of them, or their arithmetic."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    return isinstance(node, ast.Tuple) and bool(node.elts) and all(map(is_number, node.elts))


def unexplained_constants(source: str) -> list[str]:
    """Return the numeric constants of a module that have neither a docstring nor a comment.

    A docstring stands below a constant, or below several in consecutive lines; a comment stands
    beside a constant or directly above it.
    """
    lines = source.splitlines()
    body = ast.parse(source).body
    unexplained: list[str] = []
    group: list[ast.Assign | ast.AnnAssign] = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not is_number(node.value):
            continue
        group.append(node)
        number = isinstance(following, ast.Assign | ast.AnnAssign) and is_number(following.value)
        if number and following.lineno == (node.end_lineno or 0) + 1:
            continue
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        for one in [] if documented else group:
            beside = lines[one.lineno - 1 : one.end_lineno]
            above = lines[one.lineno - 2].startswith("#") if one.lineno > 1 else False
            if not above and not any("#" in line for line in beside):
                target = one.targets[0] if isinstance(one, ast.Assign) else one.target
                unexplained.append(ast.unparse(target))
        group = []
    return unexplained


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_numeric_constant_says_why_it_has_its_value(path: Path) -> None:
    assert unexplained_constants(path.read_text("utf-8")) == []


def test_a_constant_is_explained_below_beside_or_above_it() -> None:
    explained = 'A = 1\nB: float = -2.0\n"""Both."""\nC = 3 << 4  # beside\n# above\nD = (5, 6)\n'
    assert unexplained_constants(explained) == []
    assert unexplained_constants('A = 1\n\nB, C = 2, 3\nD = "text"\nE = True\n') == ["A", "(B, C)"]
    assert unexplained_constants('A = 1\n\nB = 2\n"""Of B alone."""\n') == ["A"]


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name_of)
def test_all_is_what_can_be_imported(path: Path) -> None:
    module = importlib.import_module(name_of(path))
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(module, name) is not None


def test_the_front_page_offers_what_dir_says() -> None:
    import tokensurgeon

    assert dir(tokensurgeon) == sorted(tokensurgeon.__all__)
    with pytest.raises(AttributeError, match="no attribute 'transplent'"):
        tokensurgeon.transplent  # noqa: B018


def loaded_after(code: str) -> set[str]:
    """Return which heavy libraries a fresh interpreter has loaded after running `code`."""
    report = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(run.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    code = "from tokensurgeon.cli.main import main; main(['--help'], standalone_mode=False)"
    assert loaded_after(code) == set()


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import tokensurgeon") == set()


@pytest.mark.parametrize(
    "room",
    ["vocabulary", "alignment", "evaluation", "inspection", "initialisers", "report", "trainers"],
)
def test_rooms_do_not_import_torch_before_they_need_it(room: str) -> None:
    assert "torch" not in loaded_after(f"import tokensurgeon.{room}")


def test_ci_runs_the_readme_commands() -> None:
    """`.ci/run` takes its test command from the README, where it stands after a comment."""
    readme = (ROOT / "README.md").read_text("utf-8")
    runner = (ROOT / ".ci" / "run").read_text("utf-8")
    after = readme.split("<!-- command: test -->")[1].splitlines()
    found = next(line for line in after if line and not line.startswith("```"))
    assert "<!-- command: test -->" in runner
    assert "README.md" in runner
    assert found.endswith("scripts/test")
    assert "pip install" in found


def test_no_path_of_somebodys_machine_is_shipped() -> None:
    """Shipped files name no absolute folder of a machine."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: nothing to list")
    words = ["/" + name + "/" for name in ("work", "home", "root", "Users")]
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix not in {".py", ".md", ".yaml", ".cfg", ".toml", ""} or not path.is_file():
            continue
        text = path.read_text("utf-8", errors="replace")
        assert not any(word in text for word in words), name
