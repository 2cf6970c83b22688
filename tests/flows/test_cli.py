"""The command line: what it says, its exit codes, its JSON, and the options that are frozen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lyra_core.records import SCHEMA_VERSION

OPTIONS = {
    "run": [
        *("--accept-license", "--camera-path", "--dry-run", "--frames", "--help", "--json", "--limit", "--out"),
        *("--ray", "--recipe", "--retry-rejects", "--set", "--workers"),
    ],
    "status": ["--help", "--json"],
    "query": ["--help", "--json"],
    "peek": ["--help", "--json"],
    "recipes": ["--help", "--json"],
    "doctor": ["--help", "--json", "--out"],
    "up": ["--help", "--json"],
    "down": ["--help", "--json"],
}
FAULT = (
    *("--recipe", "parallax"),
    *("--set", "model=fault_model:load", "--set", "artifacts=ply,preview", "--set", "quality_views=0"),
    *("--set", "width=64", "--set", "height=48", "--ray", "off"),
)


@pytest.fixture
def worlds(lyra, make_seeds, tmp_path):
    """Two small worlds and one reject, made once."""
    out = tmp_path / "worlds"
    assert lyra("run", make_seeds("a.png", "b.png", "bad.png"), "--out", out, *FAULT).code == 3
    return out


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_frozen(command):
    import typer

    from flows.cli import commands

    found = typer.main.get_command(commands).commands[command]
    options = sorted({o for p in found.params for o in getattr(p, "opts", []) if o.startswith("--")} | {"--help"})
    assert options == OPTIONS[command]


def test_help_has_an_example_for_every_command(lyra):
    for command in OPTIONS:
        assert "Example" in lyra(command, "--help").out, command


def test_help_is_quick(lyra):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert lyra("--help").code == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2.0, "0.6 s on an idle machine; see benchmarks/startup.py"


def test_the_light_side_stays_light():
    code = (
        "import lyra_core, flows.cli, sys; print([m for m in ('torch', 'ray', 'prefect', 'numba') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_status_query_and_peek_tell_the_same_story(lyra, worlds):
    status = lyra("status", worlds, "--json").json
    assert (status["worlds"], status["rejects_open"], status["snapshot_version"]) == (2, 1, 1)
    rows = lyra("query", worlds, "SELECT world_id, name FROM worlds ORDER BY name", "--json").json
    assert [row["name"] for row in rows] == ["a", "b"]
    peeked = lyra("peek", worlds, rows[0]["world_id"][:8], "--json").json
    assert peeked["world_id"] == rows[0]["world_id"]
    shown = lyra("peek", worlds, rows[0]["world_id"][:8]).out
    assert "gaussians.ply" in shown
    assert "▀" in shown
    assert "worlds" in lyra("status", worlds).out
    assert "name" in lyra("query", worlds, "SELECT name FROM worlds").out


def test_a_catalog_of_the_schema_before_is_extended(lyra, make_seeds, tmp_path):
    """As upgrading is: the same folder, the new software (tests/catalogs/test_schema1.py says what the folder is)."""
    out = tmp_path / "worlds"
    shutil.copytree(Path(__file__).resolve().parents[1] / "catalogs" / "schema1", out)
    assert lyra("status", out, "--json").json["worlds"] == 2
    assert "coffee_table" in lyra("peek", out, "e4630865").out
    assert lyra("run", make_seeds("a.png"), "--out", out, *FAULT).code == 0
    status = lyra("status", out, "--json").json
    assert (status["worlds"], status["snapshot_version"], status["uncompacted"]) == (3, 2, 0)
    sql = "SELECT name, schema_version AS v, len(stage_s) > 3 AS s FROM worlds ORDER BY name"
    rows = lyra("query", out, sql, "--json").json
    assert [(row["name"], row["v"], row["s"]) for row in rows] == [
        *(("a", SCHEMA_VERSION, True), ("coffee_table", 1, True), ("launch_pad", 1, True)),
    ]


def test_a_query_that_is_wrong_is_one_sentence(lyra, worlds):
    finished = lyra("query", worlds, "SELECT nothing FROM nowhere")
    assert finished.code == 1
    assert "worlds" in finished.err
    assert "Traceback" not in finished.err


def test_a_world_that_is_not_there(lyra, worlds):
    assert "no world" in lyra("peek", worlds, "ffffffff").err
    assert lyra("peek", worlds, "zz").code == 1


def test_dry_run_counts_and_writes_nothing(lyra, make_seeds, tmp_path):
    out = tmp_path / "never"
    folder = make_seeds("a.png", "b.png")
    planned = lyra("run", folder, "--out", out, "--dry-run", "--json").json
    assert (planned["to_make"], planned["existing"]) == (2, 0)
    assert planned["estimated_seconds"] > 0
    assert planned["estimated_bytes"] > 0
    assert not out.exists()
    assert "would be made   2" in lyra("run", folder, "--out", out, "--dry-run").out


def test_an_estimate_grows_with_the_frames_and_the_variants(lyra, make_seeds, tmp_path):
    folder = make_seeds("a.png", "b.png")
    rows = [{"seed": str(folder / "a.png"), "frames": 161}, {"seed": str(folder / "b.png"), "variants": 1000}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def estimate(*arguments) -> tuple[float, float]:
        start = time.perf_counter()
        found = lyra("run", *arguments, "--workers", "1", "--dry-run", "--json").json
        assert time.perf_counter() - start < 20, "1 s on an idle machine"
        return found["estimated_seconds"], found["estimated_bytes"]

    seconds, size = estimate(folder / "a.png")
    longer = estimate(folder / "a.png", "--frames", "161")
    assert longer == (pytest.approx(seconds * 161 / 81, abs=0.1), pytest.approx(size * 161 / 81, abs=1))
    both = estimate(tmp_path / "m.jsonl")
    assert both[0] == pytest.approx(seconds * (161 / 81 + 1000), rel=1e-3)
    assert both[1] == pytest.approx(size * (161 / 81 + 1000), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nowhere/", "--out", "x"], 2, ["does not exist"]),
        (["run", "empty", "--out", "x"], 2, ["holds no image"]),
        (["run", "a.png", "--recipe", "nope"], 2, ["wanted one of", "parallax", "nope"]),
        (["run", "a.png", "--set", "colour=red"], 2, ["field=value", "colour"]),
        (["run", "a.png", "--set", "width=huge"], 2, ["width", "huge"]),
        (["run", "a.png", "--frames", "80"], 2, ["81", "161", "80"]),
        (["run", "a.png", "--camera-path", "moonwalk"], 1, ["moonwalk", "dolly-in"]),
        (["run", "a.png", "--ray", "10.0.0.1:6379"], 2, ["--workers"]),
        (["run"], 2, ["SEEDS"]),
        (["run", "a.png", "--workers", "0"], 2, ["workers"]),
        (["status", "s3://"], 1, ["s3://bucket/prefix"]),
        (["recipes", "nope"], 2, ["wanted one of"]),
        (["fly"], 2, ["fly"]),
    ],
)
def test_wrong_usage_is_told_in_one_sentence(lyra, make_seeds, tmp_path, arguments, code, words):
    (make_seeds("a.png") / "a.png").rename(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    finished = lyra(*arguments)
    assert finished.code == code, (finished.out, finished.err)
    assert "Traceback" not in finished.err
    for word in words:
        assert word.lower() in finished.err.lower(), finished.err


def test_errors_are_json_too_where_json_is_asked_for(lyra):
    finished = lyra("recipes", "nope", "--json")
    assert json.loads(finished.out)["error"]["type"] == "RecipeError"


def test_lyra_toml_environment_and_flags_in_that_order(lyra, make_seeds, tmp_path):
    folder = make_seeds("a.png")
    (tmp_path / "lyra.toml").write_text('out = "from-file"\nrecipe = "parallax-480p"\n')
    assert lyra("run", folder, "--dry-run", "--json").json["out"] == "from-file"
    from_environment = lyra("run", folder, "--dry-run", "--json", LYRA_OUT="from-env").json
    assert (from_environment["out"], from_environment["recipe"]) == ("from-env", "parallax-480p")
    assert lyra("run", folder, "--dry-run", "--json", "--out", "flag", LYRA_OUT="from-env").json["out"] == "flag"
    (tmp_path / "lyra.toml").write_text("colour = 3\n")
    assert "colour" in lyra("run", folder, "--dry-run").err


def test_recipes_and_doctor(lyra, tmp_path):
    assert {r["name"] for r in lyra("recipes", "--json").json} >= {"parallax", "parallax-480p"}
    assert "dolly-in" in lyra("recipes", "parallax").out
    shown = {line.split()[0]: line for line in lyra("recipes", COLUMNS="80").out.splitlines() if line.startswith(" c")}
    assert set(shown) >= {"cosmos3-nano", "cosmos3-super-i2v", "cosmos3-super-i2v-4step"}, "names are whole"
    assert "weights" in shown["cosmos3-nano"]
    found = lyra("doctor", "--out", tmp_path / "here", "--json")
    assert found.json["ready"] is True, found.json
    assert lyra("doctor", "--out", "/proc/none").code == 1


def test_a_recipe_of_ones_own_is_found_on_the_model_path(lyra, make_seeds, tmp_path):
    """LYRA_MODEL_PATH of the command is tests/models, which its own import path lacks."""
    done = lyra("run", make_seeds("a.png"), "--out", tmp_path / "out", "--recipe", "extension:recipe", "--dry-run")
    assert done.code == 0, done.err
    assert "recipe extended" in done.out
    shown = lyra("recipes", "extension:recipe", "--json").json
    assert (shown["model"], shown["stages"]) == ("extension:load", ["extension:keep_right"])
