"""The wheel in a clean environment, used from a folder that holds files with the factory's own names."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """Runs the installed `lyra`; dependencies come from this environment, the project only from the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    packages = next((folder / "venv").rglob("site-packages"))
    # Folders named in a .pth file join the import path, but the .pth files in them (the editable install) do not count.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    foreign = tmp_path_factory.mktemp("project-of-somebody")
    for name in ("tasks", "flows", "catalogs"):
        (foreign / f"{name}.py").write_text(f'raise SystemExit("the {name}.py of somebody was imported")\n')
    shutil.copy(REPOSITORY / "examples" / "seeds" / "coffee_table.jpg", foreign)
    script = folder / "venv" / "bin" / "lyra"  # as an installer writes it
    entry = "import sys\nfrom lyra_core._launch import main\nsys.exit(main())\n"
    script.write_text(f"#!{folder / 'venv' / 'bin' / 'python'}\n{entry}")
    script.chmod(0o755)

    def run(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LYRA_", "PREFECT_", "RAY_", "PYTHON"))}
        return subprocess.run(
            [str(script), *arguments],
            cwd=foreign, capture_output=True, text=True, timeout=timeout, env={**kept, **environment},
        )  # fmt: skip

    return run


def test_the_wheel_has_one_name_of_its_own(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "lyra_core",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert "lyra_core/_app/flows/generate.py" in names
    assert "lyra_core/_app/prefect.yaml" in names
    assert "lyra_core/_app/examples/seeds/manifest.csv" in names


def test_help_and_recipes_work_beside_foreign_files(command):
    helped = command("--help")
    assert helped.returncode == 0, helped.stderr
    assert "run" in helped.stdout
    listed = command("recipes", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "parallax" in {recipe["name"] for recipe in json.loads(listed.stdout)}


@pytest.mark.slow
@pytest.mark.parametrize("ray", ["off", "local"])
def test_a_world_is_made_beside_foreign_files(command, lyra_home_of_wheel, tmp_path, ray):
    made = command(
        *("run", "coffee_table.jpg", "--out", str(tmp_path / "worlds"), "--ray", ray, "--workers", "1", "--json"),
        *("--recipe", "parallax", "--set", "width=160", "--set", "height=96", "--set", "artifacts=ply,preview"),
        timeout=300,
        LYRA_HOME=str(lyra_home_of_wheel),
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["created"] == 1


@pytest.fixture(scope="module")
def lyra_home_of_wheel(tmp_path_factory):
    from flows.server import stop_server

    home = tmp_path_factory.mktemp("home")
    yield home
    stop_server(home)
