"""The shape of the repository: rules that a reader relies on and that a linter of one file cannot see."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "catalogs", "lyra_core")
SOURCES = sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base"}
MAX_LINES = 500


def relative(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def imported(file: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_there_are_sources():
    assert len(SOURCES) > 100


@pytest.mark.parametrize(("library", "allowed"), [("ray", "tasks/pool.py"), ("prefect", "tasks/shard.py")])
def test_one_file_of_tasks_knows_each_engine(library, allowed):
    knowing = {relative(file) for file in SOURCES if file.parts[len(REPOSITORY.parts)] == "tasks"} & {
        relative(file) for file in SOURCES if library in imported(file)
    }
    assert knowing == {allowed}


def test_test_folders_are_no_packages():
    # tests/tasks/__init__.py would take the name of the real package.
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))


def test_names_say_something():
    assert not [relative(file) for file in SOURCES if file.stem in EMPTY_NAMES or file.stem.startswith("base_")]


def test_files_stay_readable():
    lengths = {relative(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").rglob("*.md")) + [REPOSITORY / "README.md"], ids=relative)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not broken


def test_pages_name_files_that_exist():
    """A path in backquotes, in a page that describes the present, is a path of the repository."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    pattern = re.compile(r"`((?:flows|tasks|catalogs|lyra_core|infra|tests|benchmarks|examples|docs)/[\w./-]+)`")
    broken = {
        f"{relative(page)}: {path}"
        for page in pages
        if page.name != "log.md"
        for path in pattern.findall(page.read_text(encoding="utf-8"))
        if not (REPOSITORY / path).exists()
    }
    assert not broken
