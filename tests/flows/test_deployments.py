"""prefect.yaml: every deployment's flow loads, takes its parameters, and is accepted by a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.server import launch_server, wait_for_server

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def test_the_promised_deployments_are_there():
    assert {d["name"] for d in DEPLOYMENTS} == {"nightly", "backfill", "compact", "smoke"}
    assert all("/" not in d["entrypoint"] and ".py" not in d["entrypoint"] for d in DEPLOYMENTS)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployment_loads_and_takes_its_parameters(deployment):
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    checked = flow.validate_parameters(deployment["parameters"])
    assert set(checked) >= set(deployment["parameters"])
    with pytest.raises(Exception, match="colour"):
        flow.validate_parameters({**deployment["parameters"], "colour": "red"})


@pytest.mark.slow
def test_a_server_accepts_all_of_them(lyra_home, tmp_path):
    server = wait_for_server(launch_server(lyra_home), lyra_home)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PREFECT_API_URL": server.api_url,
        "PREFECT_HOME": str(tmp_path / "home"),
        "LYRA_FACTORY": str(REPOSITORY),
        "PYTHONPATH": str(REPOSITORY),
        "NO_COLOR": "1",
    }

    def prefect(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "--type", "process", "worlds")
    prefect("--no-prompt", "deploy", "--all")
    listed = prefect("deployment", "ls")
    assert all(d["name"] in listed for d in DEPLOYMENTS)
