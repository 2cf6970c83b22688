"""lyra.toml < environment < flags, and a clear word about what does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.settings import PREFIX, Settings, from_env, load_settings, set_prefect_environment
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


def test_prefect_is_pointed_at_a_server_and_nothing_else_enters_the_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    set_prefect_environment(Settings(out="s3://b/w", workers=3, home=Path("/h")), "http://a/api")
    assert os.environ["PREFECT_API_URL"] == "http://a/api"
    assert os.environ["PREFECT_HOME"] == "/h/prefect"
    assert not any(name.startswith(PREFIX) for name in os.environ)


def test_a_file_with_a_byte_order_mark_and_tildes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "out = '~/worlds'\nmodel_path = '~/a:/b:~/c'\n"
    (tmp_path / "lyra.toml").write_text(text, encoding="utf-8-sig")
    settings = load_settings(folder=tmp_path)
    assert settings.out == str(tmp_path / "worlds")
    assert settings.model_path == f"{tmp_path}/a:/b:{tmp_path}/c"
    assert load_settings({"out": "s3://bucket/~x"}, tmp_path).out == "s3://bucket/~x"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, None),
        ({"no_proxy": "example.org"}, "example.org"),
        ({"https_proxy": "http://p:3128"}, "127.0.0.1,localhost,::1"),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "example.org,localhost"}, "example.org,localhost,127.0.0.1,::1"),
        ({"all_proxy": "http://p:3128", "no_proxy": "*"}, "*"),
    ],
)
def test_this_machine_is_reached_without_a_proxy(before, after, tmp_path):
    from flows.settings import reach_loopback_directly

    environment = dict(before)
    reach_loopback_directly(environment)
    assert environment.get("no_proxy", environment.get("NO_PROXY")) == after


def test_a_server_answers_although_a_proxy_is_set(tmp_path, monkeypatch):
    """A real server of this machine behind a proxy that nobody listens on."""
    import http.server
    import threading

    from flows.server import answers

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("urllib.request._opener", None)  # made with the proxies of the first request of the process
    url = f"http://127.0.0.1:{server.server_address[1]}"
    assert not answers(url)
    load_settings(folder=tmp_path)
    assert answers(url)
    server.shutdown()
    server.server_close()
