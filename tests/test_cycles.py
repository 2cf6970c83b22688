"""Nothing imports what imports it: of files, of folders, and of rooms (the folders and files right in a package).

Imports inside functions and for types only count too: a reader follows them all the same.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "catalogs", "lyra_core")
Edge = tuple[str, str]

# Cycles that are there, each with its reason. The test fails where another appears, and where one of these is gone.
SELF_WRITING = "Gaussians.save_ply and load_ply are methods of the value that formats/ply.py reads and writes"
KNOWN: dict[str, dict[frozenset[str], str]] = {
    "rooms": {frozenset({"lyra_core.formats", "lyra_core.geometry", "lyra_core.values"}): SELF_WRITING},
    "folders": {frozenset({"lyra_core.formats", "lyra_core.geometry", "lyra_core.values"}): SELF_WRITING},
    "files": {frozenset({"lyra_core.formats.ply", "lyra_core.values"}): SELF_WRITING},
}


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")}


def imported(module: str) -> set[str]:
    """Modules of this repository that a file imports anywhere."""
    names: list[str] = []
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by dots; this test and readers want whole names"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    # `from package import name`: the name is a module, or something in the package
    found = {name if name in modules() else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in modules() and name != module}


@functools.cache
def edges() -> frozenset[Edge]:
    return frozenset((module, other) for module in modules() for other in imported(module))


def folder(module: str) -> str:
    """The folder of a file; files right in lyra_core, and entries (__main__), which nobody imports, stand alone."""
    if modules()[module].name == "__init__.py":
        return module if module != "lyra_core" else "lyra_core.__init__"
    parent = module.rpartition(".")[0]
    return module if parent == "lyra_core" or module.endswith(".__main__") else parent


def room(module: str) -> str:
    """The folder right in the package that a file lies in."""
    return module if module.endswith(".__main__") else ".".join(folder(module).split(".")[:2])


LEVELS: dict[str, Callable[[str], str]] = {"rooms": room, "folders": folder, "files": lambda module: module}


def cycles(graph: Iterable[Edge]) -> set[frozenset[str]]:
    """Groups whose members all reach each other: strongly connected components of more than one."""
    after: dict[str, set[str]] = {}
    for start, end in graph:
        after.setdefault(start, set()).add(end)
    reached = {start: _reachable(start, after) for start in after}
    groups = {frozenset(end for end in ends if start in reached.get(end, ())) for start, ends in reached.items()}
    return {group for group in groups if len(group) > 1}


def _reachable(start: str, after: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for end in after.get(left.pop(), ()):
            if end not in seen:
                seen.add(end)
                left.append(end)
    return seen


def test_a_cycle_is_found_wherever_it_is():
    chain = {("a", "b"), ("b", "c"), ("c", "d")}
    assert cycles(chain) == set()
    assert cycles(chain | {("c", "a")}) == {frozenset("abc")}
    assert cycles(chain | {("b", "a"), ("d", "c")}) == {frozenset("ab"), frozenset("cd")}


@pytest.mark.parametrize("level", LEVELS)
def test_cycles_of_imports_are_the_known_ones(level):
    place = LEVELS[level]
    graph = {(place(start), place(end)) for start, end in edges()}
    assert len(graph) > 20
    found = cycles((start, end) for start, end in graph if start != end)
    known = set(KNOWN[level])
    new, gone = ([sorted(cycle) for cycle in some] for some in (found - known, known - found))
    assert not new, f"{level} that import each other: {new}; cut the cycle, or say in KNOWN why it stays"
    assert not gone, f"no cycle any more: {gone}; take it out of KNOWN"


def test_nobody_imports_an_entry():
    assert not [edge for edge in edges() if edge[1].endswith(".__main__")]


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("procedural", "evaluation"),
        ("procedural", "training"),
        ("procedural", "finetuning"),
        ("evaluation", "training"),
        ("evaluation", "finetuning"),
        ("training", "finetuning"),
    ],
)
def test_rooms_of_training_lie_one_above_the_other(lower, upper):
    lower, upper = f"lyra_core.{lower}", f"lyra_core.{upper}"
    assert not [edge for edge in edges() if room(edge[0]) == lower and room(edge[1]) == upper]
