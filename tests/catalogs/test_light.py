"""The catalog starts fast and works where torch, ray and prefect are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIGHT = [
    *(f"catalogs.{path.stem}" for path in sorted((ROOT / "catalogs").glob("*.py")) if path.stem != "__init__"),
    "lyra_core.formats.store",
    "lyra_core.formats.local_store",
    "lyra_core.formats.object_store",
    "lyra_core.identity",
    "lyra_core.layout",
    "lyra_core.records",
    "lyra_core.seed_digests",
    "lyra_core.snapshot",
]
USE = """
import sys, tempfile
from catalogs import card, commit, compaction, query
from lyra_core.formats.store import open_store
from lyra_core.records import WorldRecord
store = open_store(tempfile.mkdtemp())
commit.commit(store, WorldRecord(world_id="a" * 32))
compaction.compact(store)
assert query.status(store).worlds == 1
card.write_card(store, name="x")
"""
REPORT = "import sys; print(*sorted(sys.modules))"


def modules_after(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_loads_nothing_heavy():
    loaded = modules_after("\n".join(f"import {name}" for name in LIGHT))
    heavy = {"torch", "ray", "prefect", "jaxtyping", "numpy", "pyarrow", "fsspec", "duckdb", "pandas", "botocore"}
    assert loaded & heavy == set()


def test_working_loads_neither_torch_nor_ray_nor_prefect():
    loaded = modules_after(USE)
    assert loaded & {"torch", "ray", "prefect", "polars"} == set()
    assert "pyarrow" in loaded


@pytest.mark.parametrize("name", LIGHT)
def test_each_module_can_be_imported_first(name):
    modules_after(f"import {name}")
