"""lyra.toml < environment < flags, and a clear word about what does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.settings import PREFIX, Settings, from_env, load_settings, set_flow_environment
from lyra_core.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith((PREFIX, "PREFECT_", "RAY_"))]:
        monkeypatch.delenv(name)


def test_defaults_when_nothing_is_configured(tmp_path):
    assert load_settings(folder=tmp_path) == Settings()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "lyra.toml").write_text('out = "from-file"\nworkers = 2\nrecipe = "file-recipe"\n')
    monkeypatch.setenv("LYRA_OUT", "from-environment")
    monkeypatch.setenv("LYRA_WORKERS", "3")
    settings = load_settings({"out": "from-flag", "workers": None}, tmp_path)
    assert (settings.out, settings.workers, settings.recipe) == ("from-flag", 3, "file-recipe")


def test_foreign_variables_are_left_alone():
    assert from_env({"LYRA_GOLDEN_DIR": "/x", "LYRA_OUT": "", "HOME": "/y"}) == {}


def test_the_usual_variables_of_prefect_and_ray_count():
    found = from_env({"PREFECT_API_URL": "http://a/api", "RAY_ADDRESS": "ray://b", "LYRA_RAY_ADDRESS": "c:6379"})
    assert found == {"prefect_api_url": "http://a/api", "ray_address": "c:6379"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = 0", "workers.*greater than or equal to 1.*found 0"),
        ("colour = 'red'", "colour.*found 'red'"),
        ("executor = 'slurm'", "executor.*'ray' or 'inline'"),
        ("workers = ", "lyra.toml: wanted TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "lyra.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(folder=tmp_path)


def test_a_flow_reads_back_what_the_command_line_chose(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    chosen = Settings(out="s3://b/w", workers=3, home=Path("/h"), prefect_api_url="http://a/api", device="cpu")
    set_flow_environment(chosen, "http://a/api")
    assert load_settings(folder=tmp_path) == chosen
    assert os.environ["PREFECT_API_URL"] == "http://a/api"
