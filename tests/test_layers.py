"""The house rules that a machine can keep: imports go one way, one foreign library has one door, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "batchinfer"
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

LAYERS = (
    ("errors", "record", "user", "halt", "ahead"),
    ("storage", "job"),
    ("sources", "sinks", "models.checkpoints.locate", "planner", "commit", "ledger", "verify"),
    ("models",),
    ("engine",),
    ("tasks",),
    ("unit", "report.metrics", "report.meter"),
    ("runners", "report"),
    ("api", "beam"),
    ("cli", "__init__", "__main__"),
)
"""Lowest first. A module is found by its longest name here; it imports its own layer and those below."""

DOORS = {
    "apache_beam": ("runners/beam.py", "beam.py"),
    "orbax": ("models/checkpoints/",),
    "safetensors": ("models/checkpoints/",),
    "tokenizers": ("models/tokenizer.py",),
    "ruamel": ("job/",),
    "pydantic": ("job/",),
    "ml_collections": ("job/",),
    "rich": ("report/",),
    "fastavro": ("sources/avro.py",),
    "absl": ("cli.py",),
}

LIGHT = ("batchinfer", "batchinfer.planner", "batchinfer.job", "batchinfer.ledger", "batchinfer.user", "batchinfer.cli")
HEAVY = ("jax", "jaxlib", "flax", "orbax", "apache_beam")


@dataclass(frozen=True)
class Source:
    """A module of ours: its path below batchinfer/, its name without "batchinfer.", its text and syntax tree."""

    path: str
    name: str
    text: str
    tree: ast.Module


@cache
def modules() -> tuple[Source, ...]:
    return tuple(read(path) for path in sorted(PACKAGE.rglob("*.py")))


def read(path: Path) -> Source:
    below = path.relative_to(PACKAGE)
    parts = below.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    text = path.read_text("utf-8")
    return Source(below.as_posix(), name, text, ast.parse(text))


def imported(module: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything it imports, at the top or later; from a package, the module or the name."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(source), names=names, level=0):
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in names)
            case ast.ImportFrom():
                yield node.lineno, "a relative import"


def ours(dotted: str) -> str | None:
    """The module of ours that an imported name means, None for a foreign one."""
    if dotted.split(".")[0] != "batchinfer":
        return None
    names = {module.name for module in modules()}
    name = dotted.removeprefix("batchinfer").removeprefix(".")
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name or "__init__"


def layer(name: str) -> int:
    """Which layer a module belongs to; -1 if none does."""
    ranks = {known: i for i, group in enumerate(LAYERS) for known in group}
    while name and name not in ranks:
        name = name.rpartition(".")[0]
    return ranks.get(name, -1)


def test_every_module_has_a_layer() -> None:
    assert [module.path for module in modules() if layer(module.name) < 0] == []


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module.path}:{line} imports {dotted}, which is above it"
        for module in modules()
        for line, dotted in imported(module)
        if (target := ours(dotted)) is not None and layer(target) > layer(module.name)
    ]
    assert wrong == []


def test_imports_make_no_circle() -> None:
    graph = {
        module.name: {target for _, dotted in imported(module) if (target := ours(dotted)) not in (None, module.name)}
        for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_imports_are_absolute() -> None:
    wrong = [f"{m.path}:{line}" for m in modules() for line, dotted in imported(m) if dotted == "a relative import"]
    assert wrong == []


def test_one_foreign_library_one_door() -> None:
    wrong = [
        f"{module.path}:{line} imports {dotted}, whose door is {' or '.join(DOORS[library])}"
        for module in modules()
        for line, dotted in imported(module)
        if (library := dotted.split(".")[0]) in DOORS and not module.path.startswith(DOORS[library])
    ]
    assert wrong == []


def test_planning_starts_neither_jax_nor_beam() -> None:
    check = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        f"    print(name, *sorted(set({HEAVY!r}) & set(sys.modules)), sep=' ')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(LIGHT)


def test_types_are_matched_not_probed() -> None:
    wrong = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id == "hasattr"
    ]
    assert wrong == []


def test_no_error_is_swallowed() -> None:
    wrong = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.ExceptHandler) and swallows(node)) or (isinstance(node, ast.Call) and suppresses(node))
    ]
    assert wrong == []


def swallows(handler: ast.ExceptHandler) -> bool:
    """`except:` in any case; `except Exception:` whose body does nothing."""
    if handler.type is None:
        return True
    does_nothing = all(
        isinstance(node, ast.Pass | ast.Continue)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in handler.body
    )
    return does_nothing and is_broad(handler.type)


def suppresses(call: ast.Call) -> bool:
    """`contextlib.suppress(Exception)`."""
    return ast.unparse(call.func).rpartition(".")[2] == "suppress" and any(is_broad(arg) for arg in call.args)


def is_broad(kind: ast.expr) -> bool:
    return bool({node.id for node in ast.walk(kind) if isinstance(node, ast.Name)} & {"Exception", "BaseException"})


def test_nothing_is_left_to_do() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in ("batchinfer", "jobs", "configs", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if any(mark in line for mark in marks)
    ]
    assert wrong == []


def test_files_are_small() -> None:
    lengths = {module.path: len(module.text.splitlines()) for module in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_are_small() -> None:
    lengths = {
        f"{module.path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


def test_every_module_says_what_it_is() -> None:
    silent = [module.path for module in modules() if module.text.strip() and not ast.get_docstring(module.tree)]
    assert silent == []
