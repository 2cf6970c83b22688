"""A folder of components fetched from a hub on this machine as the real one answers: redirects, ranges, refusals."""

import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import save

from lyra_core.errors import WeightsError
from lyra_core.weights.convert import convert_set
from lyra_core.weights.fetch import fetch
from lyra_core.weights.verify import verify

huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
REPO = "nvidia/Cosmos3-Nano"
LARGE = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
FILES = {
    "LICENSE.md": b"OpenMDW-1.1",
    "README.md": b"not asked for",
    "model_index.json": b"{}",
    "modular_model_index.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
    "sound_tokenizer/model.safetensors": b"not asked for",
    "text_tokenizer/tokenizer.json": b"{}",
    "transformer/config.json": b"{}",
    LARGE: save({"weight": np.arange(100_000, dtype=np.float32)}),
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": save({"bias": np.ones(3, np.float32)}),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": save({"weight": np.ones((2, 3), np.float32)}),
}


class Hub(BaseHTTPRequestHandler):
    """A repository whose large files lie on another address, as on the hub.

    Attributes:
        refusal: a status and the hub's word for it, answered to everything.
        cut_at: the large file's first answer ends after so many bytes.
        changed: names of files whose bytes arrive altered.
        ranges: of requests for the large file.
    """

    protocol_version = "HTTP/1.1"
    refusal: tuple[int, str] | None
    cut_at: int | None
    changed: set[str]
    ranges: list[str | None]

    def log_message(self, *arguments) -> None:
        """Silent."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0]
        name = path.partition(f"/{COMMIT}/")[2]
        if self.refusal is not None:
            self.reply(self.refusal[0], b"{}", {"X-Error-Code": self.refusal[1]})
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest(), **lfs(n, d)}
                for n, d in FILES.items()
            ]
            self.reply(200, json.dumps(entries).encode())
        elif path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": n, "size": len(d), **lfs(n, d)} for n, d in FILES.items()]
            self.reply(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/{REPO}/resolve/") and name.endswith(".safetensors"):
            linked = {"X-Linked-Etag": f'"{digest(FILES[name])}"', "X-Linked-Size": str(len(FILES[name]))}
            self.reply(302, b"", {"X-Repo-Commit": COMMIT, "Location": f"/cdn/{COMMIT}/{name}", **linked})
        elif path.startswith((f"/{REPO}/resolve/", "/cdn/")):
            self.send(name)
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send(self, name):
        data = FILES[name]
        if name in self.changed:
            data = data[:-1] + bytes([data[-1] ^ 1])
        wanted = self.headers.get("Range")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(FILES[name])}"'}
        if name == LARGE and self.command == "GET":
            self.ranges.append(wanted)
            if self.cut_at is not None:
                part, type(self).cut_at = data[: self.cut_at], None
                self.close_connection = True
                self.reply(200, part, headers, length=len(data))
                return
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.reply(206, data[start:], headers)
        else:
            self.reply(200, data, headers)

    def reply(self, status, data, headers=None, length=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data) if length is None else length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def lfs(name, data):
    large = {"oid": digest(data), "sha256": digest(data), "size": len(data), "pointerSize": 130}
    return {"lfs": large} if name.endswith(".safetensors") else {}


@pytest.fixture
def hub(monkeypatch):
    for name, value in (("refusal", None), ("cut_at", None), ("changed", set()), ("ranges", [])):
        monkeypatch.setattr(Hub, name, value, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def get(hub, folder):
    return fetch("cosmos3-nano", folder, endpoint=hub, token=False)


def test_fetched_converted_and_verified(tmp_path, hub):
    fetched = get(hub, tmp_path / "downloads")
    wanted = {name for name, data in FILES.items() if data != b"not asked for"}
    assert all((tmp_path / "downloads" / name).read_bytes() == FILES[name] for name in wanted)
    assert not (tmp_path / "downloads" / "sound_tokenizer").exists()
    manifest = convert_set(fetched.entry, tmp_path / "cosmos3-nano", "cosmos3-nano")
    assert set(manifest.files) == wanted
    assert (manifest.source.repo_id, manifest.source.revision) == (REPO, COMMIT)
    assert verify(tmp_path / "cosmos3-nano").manifest.digest == manifest.digest


def test_what_was_cut_off_goes_on(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr(Hub, "cut_at", 150_000)
    get(hub, tmp_path)
    assert (tmp_path / LARGE).read_bytes() == FILES[LARGE]
    assert Hub.ranges[0] is None
    assert Hub.ranges[1].startswith("bytes=150000-")


def test_damage_on_the_way_is_found_and_fetched_again(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(Hub, "changed", {LARGE})
    with pytest.raises(WeightsError, match=rf"{LARGE} arrived damaged .*sha256 {digest(FILES[LARGE])[:12]}.* again"):
        get(hub, tmp_path)
    assert not (tmp_path / LARGE).exists()
    monkeypatch.setattr(Hub, "changed", set())
    get(hub, tmp_path)
    assert (tmp_path / LARGE).read_bytes() == FILES[LARGE]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((401, "RepoNotFound"), "the hub wants a login"),
        ((401, "GatedRepo"), "the terms of nvidia/Cosmos3-Nano are not accepted by this account (GatedRepoError)"),
        ((403, "GatedRepo"), "the terms of nvidia/Cosmos3-Nano are not accepted by this account (GatedRepoError)"),
        ((403, "Forbidden"), "the hub refuses"),
        ((404, "RepoNotFound"), "the hub has no nvidia/Cosmos3-Nano"),
        ((404, "RevisionNotFound"), "the hub has no nvidia/Cosmos3-Nano"),
        ((429, "RateLimit"), "the hub answers with status 429"),
        ((500, "Oops"), "the hub answers with status 500"),
    ],
)
def test_refusals(tmp_path, hub, monkeypatch, refusal, said):
    monkeypatch.setattr(Hub, "refusal", refusal)
    with pytest.raises(WeightsError) as caught:
        get(hub, tmp_path)
    first = str(caught.value).splitlines()[0]
    assert first.startswith("cosmos3-nano could not be fetched")
    assert said in first, first
    assert "hf download nvidia/Cosmos3-Nano --include 'model_index.json'" in str(caught.value)


@pytest.mark.slow
def test_the_commands(tmp_path, hub):
    def lyra(*arguments):
        environment = {**os.environ, "HF_ENDPOINT": hub, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        return subprocess.run(
            [sys.executable, "-c", "from flows.cli import app; app()", "weights", *arguments],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    fetched = lyra("fetch", "cosmos3-nano", "downloads")
    assert fetched.returncode == 0, fetched.stderr
    assert "next: lyra weights convert downloads DST --name cosmos3-nano" in fetched.stdout
    assert lyra("convert", "downloads", "weights/cosmos3-nano", "--name", "cosmos3-nano").returncode == 0
    assert lyra("verify", "weights/cosmos3-nano").returncode == 0
    again = lyra("convert", "downloads", "weights/cosmos3-nano", "--name", "cosmos3-nano")
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    (tmp_path / "weights" / "cosmos3-nano" / "vae" / "config.json").unlink()
    torn = lyra("verify", "weights/cosmos3-nano")
    assert torn.returncode == 1
    assert "vae/config.json of the manifest is missing" in torn.stderr
