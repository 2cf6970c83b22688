"""The wheel in clean environments: with all extras, beside files with the factory's own names, and with none."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def write_script(environment: Path) -> Path:
    """The console script, as an installer writes it."""
    script = environment / "bin" / "lyra"
    entry = "import sys\nfrom lyra_core._launch import main\nsys.exit(main())\n"
    script.write_text(f"#!{environment / 'bin' / 'python'}\n{entry}")
    script.chmod(0o755)
    return script


def brought_without_extras(wheel: Path) -> dict[str, Distribution]:
    """What an installer brings for the wheel alone: its requirements and theirs, as they are installed here."""
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    found: dict[str, Distribution] = {}
    waiting = list(PathDistribution(zipfile.Path(wheel, f"{info}/")).requires or [])
    while waiting:
        requirement = Requirement(waiting.pop())
        is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_wanted and requirement.name not in found:
            found[requirement.name] = distribution(requirement.name)
            waiting += found[requirement.name].requires or []
    return found


@pytest.fixture(scope="module")
def library(wheel, tmp_path_factory) -> Path:
    """An environment that holds the wheel, what its metadata requires without any extra, and nothing else."""
    environment = tmp_path_factory.mktemp("library") / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = next(environment.rglob("site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for installed in brought_without_extras(wheel).values():
        for name in {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / name).exists():
                (packages / name).symlink_to(installed.locate_file(name))
    write_script(environment)
    return environment


def ran(environment: Path, program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LYRA_", "PYTHON"))}
    return subprocess.run(
        [str(environment / "bin" / program), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, env=kept,
    )  # fmt: skip


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
    script = write_script(folder / "venv")

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


WITHOUT_EXTRAS = """
import importlib.util, sys
import lyra_core
from lyra_core.extras import EXTRAS
assert "torch" not in sys.modules
found = [name for name in EXTRAS if importlib.util.find_spec(name)]
assert not found, found
model = lyra_core.load_model(sys.argv[1])
clip = model.generate("coffee_table.jpg", "dolly-in", num_frames=int(sys.argv[2]), width=64, height=64)
gaussians = model.reconstruct(clip)
gaussians.save_ply("world.ply")
picture = lyra_core.render(gaussians, clip.cameras[:1]).color[0]
print(*picture.shape, float(picture.std()) > 0.01)
"""


@pytest.mark.parametrize(
    ("model", "num_frames"),
    [("parallax", 5), pytest.param("mini", 81, marks=pytest.mark.slow)],
    ids=["parallax", "mini"],
)
def test_a_world_is_made_and_rendered_without_any_extra(library, tmp_path, model, num_frames):
    shutil.copy(REPOSITORY / "examples" / "seeds" / "coffee_table.jpg", tmp_path)
    made = ran(library, "python", "-c", WITHOUT_EXTRAS, model, str(num_frames), folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["64", "64", "3", "True"]
    assert (tmp_path / "world.ply").stat().st_size > 10_000


def test_the_command_without_the_factory_names_the_extra(library, tmp_path):
    for arguments in (("--help",), ("run", "photo.jpg"), ("recipes", "--json")):
        refused = ran(library, "lyra", *arguments, folder=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == (
            "error: the command `lyra` needs the package 'typer', which is not installed; "
            "install it with: pip install 'lyra-worlds[factory]'\n"
        )


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
