"""The local Prefect server: started on a free loopback port when none is configured, stopped by `lyra down`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.home import open_home, private_file
from lyra_core.errors import ConfigError

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20

# A server records 15-30 task runs/s with its default batch size of 1, and drops some when flooded.
SERVER_ENVIRONMENT = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # Relative, so that the page finds the API on any port and through a tunnel; its default is port 4200.
    "PREFECT_SERVER_UI_API_URL": "/api",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server of ours."""

    pid: int
    port: int

    @property
    def api_url(self) -> str:
        """For clients."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """For browsers."""
        return f"http://127.0.0.1:{self.port}"


def running_server(home: Path) -> Server | None:
    """The server recorded in this home, if it is alive and answers."""
    server = _recorded(home)
    return server if server is not None and _is_alive(server.pid) and answers(server.api_url) else None


def launch_server(home: Path) -> Server:
    """Start a server process without waiting for it; a recorded one that lives is returned instead.

    It survives this process, so that the finished run can be seen in its UI.
    """
    existing = _recorded(home)
    if existing is not None and _is_alive(existing.pid):
        return existing
    open_home(home)
    folder = home / "prefect"
    port = _free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        **SERVER_ENVIRONMENT,
        "PREFECT_HOME": str(folder),
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with private_file(folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
            umask=0o077,  # its database holds every run's parameters
        )
    server = Server(pid=process.pid, port=port)
    private_file(_record_path(home)).write_text(json.dumps(asdict(server)), encoding="utf-8")
    return server


def wait_for_server(server: Server, home: Path) -> Server:
    """Block until the server answers.

    Raises:
        ConfigError: it died or did not answer in time; the message holds the end of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if answers(server.api_url):
            return server
        if not _is_alive(server.pid):
            break
        time.sleep(0.2)
    log = home / "prefect" / "server.log"
    tail = log.read_text(errors="replace")[-800:] if log.is_file() else "no log"
    raise ConfigError(
        f"Prefect server: wanted an answer on {server.api_url} within {START_TIMEOUT_S} s, found none; "
        f"end of {log}:\n{tail}"
    )


def stop_server(home: Path) -> bool:
    """Stop the server of this home; False if none was running."""
    server = _recorded(home)
    with contextlib.suppress(OSError):  # a home that cannot be written never held a server
        _record_path(home).unlink(missing_ok=True)
    if server is None or not _is_alive(server.pid):
        return False
    for sent, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, sent)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _is_alive(server.pid):
                return True
            time.sleep(0.1)
    return True


def _record_path(home: Path) -> Path:
    return home / "prefect" / "server.json"


def _recorded(home: Path) -> Server | None:
    try:
        return Server(**json.loads(_record_path(home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    """Whether the process is our server: a recycled pid of another program does not count."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "prefect" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def answers(api_url: str) -> bool:
    """Whether a Prefect API is healthy."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
