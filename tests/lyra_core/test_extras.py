"""Optional packages: declared once, imported where they are used, and named with their extra where they are missing."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

from lyra_core.errors import MissingExtraError
from lyra_core.extras import EXTRAS, is_installed, require, require_client
from lyra_core.formats.store import open_store
from lyra_core.identity import digest_file
from lyra_core.seed_source import digest_seed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"lyra_core", "tasks", "catalogs", "flows"}
# Folders that import an extra with each of their files; `__init__.py` asks for it before any of them is imported.
COMMANDS = {"lyra_core/train_commands": "typer"}
# What comes with a package that is declared: clients of s3fs, and kernels of a CUDA build of torch.
BROUGHT_ALONG = {"botocore", "triton"}
IMPORT_NAMES = {
    "pillow": "PIL",
    "nvidia-cudnn-frontend": "cudnn",
    "scikit-image": "skimage",
    "fast-simplification": "fast_simplification",
    "rerun-sdk": "rerun",
    "usd-core": "pxr",
}  # where it is not the name of the distribution


def declared(requirements: list[str]) -> set[str]:
    names = (re.split(r"[\s<>=\[;]", requirement)[0] for requirement in requirements)
    return {IMPORT_NAMES.get(name, name) for name in names}


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path, *, at_import: bool) -> Iterator[tuple[int, str]]:
    """Line and top-level package of each import; only those that run when the module is imported, or all."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, str(node.module).partition(".")[0]
        elif at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def test_the_table_is_what_pyproject_declares():
    found: dict[str, set[str]] = {}
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra != "dev":
            for package in declared(requirements):
                found.setdefault(package, set()).add(extra)
    assert {package: set(extras) for package, extras in EXTRAS.items()} == found
    assert declared(PROJECT["dependencies"]) & EXTRAS.keys() == set()


def test_every_import_is_declared():
    known = declared(PROJECT["dependencies"]) | EXTRAS.keys() | OWN | BROUGHT_ALONG | set(sys.stdlib_module_names)
    strange = [
        f"{path.relative_to(ROOT)}:{line} {package}"
        for path in files("lyra_core", "catalogs", "tasks", "flows")
        for line, package in imported(path, at_import=False)
        if package not in known
    ]
    assert strange == []


def test_every_core_dependency_is_imported_by_the_library():
    used = {package for path in files("lyra_core") for _, package in imported(path, at_import=False)}
    assert declared(PROJECT["dependencies"]) - used == set()


def test_no_module_of_the_library_or_the_catalog_imports_an_extra():
    found = [
        f"{path.relative_to(ROOT)}:{line} {package}"
        for path in files("lyra_core", "catalogs")
        for line, package in imported(path, at_import=True)
        if package in EXTRAS and COMMANDS.get(str(path.parent.relative_to(ROOT))) != package
    ]
    assert found == [], "import it inside the function that uses it, after lyra_core.extras.require"


def test_whatever_imports_an_extra_asks_for_it():
    silent = []
    for path in files("lyra_core", "catalogs"):
        room = COMMANDS.get(str(path.parent.relative_to(ROOT)))
        text = path.read_text() + ((path.parent / "__init__.py").read_text() if room else "")
        for line, package in imported(path, at_import=False):
            is_client = package in ("s3fs", "aiohttp")
            asks = "require_client" if is_client else rf'(require|is_installed)\(\s*"{package}"'
            if package in EXTRAS and not re.search(asks, text):
                silent.append(f"{path.relative_to(ROOT)}:{line} {package}")
    assert silent == []


@pytest.mark.parametrize("package", sorted(EXTRAS))
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert not is_installed(package)
    with pytest.raises(MissingExtraError) as caught:
        require(package, "this test")
    assert str(caught.value) == (
        f"this test needs the package '{package}', which is not installed; "
        f"install it with: pip install 'lyra-worlds[{EXTRAS[package][0]}]'"
    )


def test_whoever_needs_another_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtraError, match=r"lyra-worlds\[factory\]"):
        require("psutil", "this test", extra="factory")


def test_a_package_that_is_there_is_not_imported():
    code = "import sys; from lyra_core.extras import require; require('pandas', 'x'); sys.exit('pandas' in sys.modules)"
    assert is_installed("pandas")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/worlds", "s3fs"),
        ("s3a://bucket/worlds", "s3fs"),
        ("https://host/photo.jpg", "aiohttp"),
        ("HTTP://host/photo.jpg", "aiohttp"),
        ("zip://a.jpg::https://host/photos.zip", "aiohttp"),
        ("hf://datasets/a/b/c.jpg", "huggingface_hub"),
    ],
)
def test_the_client_of_a_url_is_asked_for(monkeypatch, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*lyra-worlds\[cloud\]"):
        require_client(url, "reading it")


@pytest.mark.parametrize("url", ["/data/https/a.jpg", "file:///a.jpg", "memory://x", "gs://bucket/x"])
def test_other_addresses_ask_for_nothing(monkeypatch, url):
    for package in ("s3fs", "aiohttp", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    require_client(url, "reading it")


def test_stores_seeds_and_digests_behind_a_missing_client_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingExtraError, match=r"opening s3://bucket/worlds needs .*lyra-worlds\[cloud\]"):
        open_store("s3://bucket/worlds")
    for use in (digest_seed, digest_file):
        with pytest.raises(MissingExtraError, match=r"reading s3://bucket/a.jpg needs .*lyra-worlds\[cloud\]"):
            use("s3://bucket/a.jpg")
        signed = "https://host/a.jpg?X-Amz-Signature=secret"
        with pytest.raises(MissingExtraError, match=r"reading https://host/a.jpg needs") as caught:
            use(signed)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "module", "use"),
    [
        ("transformers", "lyra_core.world_models.lyra2", lambda m: m.load_lyra2()),
        ("transformers", "lyra_core.video.text", lambda m: m.load_tokenizer("nowhere")),
        ("transformers", "lyra_core.video.captions", lambda m: m.VisionLanguageCaptioner(".")._load()),
        ("gsplat", "lyra_core.gaussians.refine", lambda m: m.choose_engine("gsplat", torch.device("cpu"))),
        ("ray", "tasks.pool", lambda m: m.start_ray(None)),
        ("duckdb", "catalogs.query", lambda m: m.connect(open_store("memory://nothing"))),
        ("duckdb", "catalogs.query", lambda m: m.query(open_store("memory://nothing"), "SELECT 1")),
    ],
)
def test_using_what_an_extra_brings_names_the_extra(monkeypatch, package, module, use):
    found = importlib.import_module(module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*lyra-worlds\[{EXTRAS[package][0]}\]"):
        use(found)


def test_importing_the_library_is_quick_and_loads_no_dependency():
    code = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter(); import lyra_core; "
        "print(time.perf_counter() - start, *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        for _ in range(3)
    ]
    outside = set(packages_distributions()) - {"lyra_core", "flows", "tasks", "catalogs"}
    assert set(runs[0][1:]) & outside == set()
    assert min(float(run[0]) for run in runs) < 0.150, "0.02 s on an idle machine"


def test_the_front_door_still_opens():
    code = "import lyra_core; [getattr(lyra_core, name) for name in lyra_core.__all__]; lyra_core.render; print('open')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "open"
