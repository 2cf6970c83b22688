"""The local Prefect server: one per home, found again, stopped, and never mistaken for another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from flows.server import launch_server, running_server, stop_server, wait_for_server
from lyra_core.errors import ConfigError


def test_a_server_is_started_once_found_again_and_stopped(tmp_path):
    server = wait_for_server(launch_server(tmp_path), tmp_path)
    try:
        assert running_server(tmp_path) == launch_server(tmp_path) == server
        # The page asks the port it came from; Prefect's default would be 4200.
        with urllib.request.urlopen(f"{server.ui_url}/ui-settings", timeout=30) as answer:
            assert json.load(answer)["api_url"] == "/api"
    finally:
        assert stop_server(tmp_path)
    assert running_server(tmp_path) is None
    assert not stop_server(tmp_path)


def test_a_process_that_took_over_the_number_is_left_alone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "prefect").mkdir()
        (tmp_path / "prefect" / "server.json").write_text(json.dumps({"pid": other.pid, "port": 1}))
        assert running_server(tmp_path) is None
        assert not stop_server(tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"pid": 1, "door": 2}'])
def test_a_damaged_record_is_no_server(tmp_path, text):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text(text)
    assert running_server(tmp_path) is None


def test_a_server_that_dies_is_told_with_the_end_of_its_log(tmp_path, monkeypatch):
    # A file where its database should be: the real server ends at once.
    home = tmp_path / "home"
    (home / "prefect" / "prefect.db").mkdir(parents=True)
    monkeypatch.setattr("flows.server.START_TIMEOUT_S", 60)
    server = launch_server(home)
    with pytest.raises(ConfigError, match=r"Prefect server: wanted an answer.*end of .*server.log"):
        wait_for_server(server, home)
    stop_server(home)
    assert os.path.isdir(home / "prefect" / "prefect.db")  # noqa: PTH112
