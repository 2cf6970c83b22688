"""Downloads against a hub on this machine, and what is said when there is none."""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lyra_core.errors import LicenseError, MissingExtraError, WeightsError
from lyra_core.weights.fetch import by_hand, fetch, fetched_revision
from lyra_core.weights.registry import weight_set

huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "other.bin": b"not asked for"}


class Hub(BaseHTTPRequestHandler):
    """The three answers of a hub that a download needs: the repository, its files, and a file."""

    gated = False
    asked: list[str]

    def log_message(self, *arguments) -> None:
        """Silent."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if self.gated:
            self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif path.startswith("/api/models/depth-anything/DA3-SMALL/tree/"):
            tree = [
                {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for n, b in FILES.items()
            ]
            self.reply(200, json.dumps(tree).encode(), {}, body)
        elif path.startswith("/api/models/depth-anything/DA3-SMALL"):
            siblings = [{"rfilename": name} for name in FILES]
            content = {"id": "depth-anything/DA3-SMALL", "sha": COMMIT, "siblings": siblings}
            self.reply(200, json.dumps(content).encode(), {}, body)
        elif path.startswith(f"/depth-anything/DA3-SMALL/resolve/{COMMIT}/"):
            data = FILES[path.rpartition("/")[2]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            self.reply(200, data, headers, body)
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def reply(self, status, data, headers, body):
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "asked", [], raising=False)
    monkeypatch.setattr(Hub, "gated", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_of_one_commit_are_fetched(tmp_path, hub):
    fetched = fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    assert fetched.revision == COMMIT
    assert fetched.entry.read_bytes() == FILES["model.safetensors"]
    assert (tmp_path / "da3" / "config.json").exists()
    assert not (tmp_path / "da3" / "other.bin").exists()
    assert fetched_revision(fetched.entry, "da3-small") == COMMIT
    assert fetched_revision(fetched.entry, "da3-base") == ""


def test_a_second_fetch_downloads_nothing(tmp_path, hub):
    fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    Hub.asked.clear()
    fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    assert not [path for path in Hub.asked if "/resolve/" in path and path.endswith("safetensors")]


def test_two_repositories_do_not_share_a_directory(tmp_path, hub):
    """Both have a model.safetensors."""
    fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    with pytest.raises(WeightsError, match="holds files of depth-anything/DA3-SMALL"):
        fetch("da3-base", tmp_path / "da3", endpoint=hub, token=False)


def test_a_gated_repository_says_what_to_do(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(Hub, "gated", True)
    with pytest.raises(WeightsError, match="hf auth login") as caught:
        fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    assert "GatedRepoError" in str(caught.value)


def test_an_absent_repository_says_what_to_do(tmp_path, hub):
    with pytest.raises(WeightsError, match="depth-anything/DA3-BASE"):
        fetch("da3-base", tmp_path / "da3", endpoint=hub, token=False)


def test_without_network_the_way_by_hand_is_given(tmp_path):
    with pytest.raises(WeightsError) as caught:
        fetch("da3-small", tmp_path / "da3", endpoint="http://127.0.0.1:9", token=False)
    for words in (
        "could not be fetched",
        "hf download depth-anything/DA3-SMALL --include 'config.json'",
        f"so that {tmp_path / 'da3' / 'model.safetensors'} exists",
    ):
        assert words in str(caught.value)


def test_offline_mode_is_respected(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="By hand"):
        fetch("da3-small", tmp_path / "da3", endpoint=hub, token=False)
    assert Hub.asked == []


def test_nothing_is_asked_before_the_license_is_accepted(tmp_path, hub):
    with pytest.raises(LicenseError, match="--accept-license nvidia-internal-research"):
        fetch("lyra2-dit", tmp_path, endpoint=hub)
    assert Hub.asked == []


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"lyra-worlds\[cloud\]"):
        fetch("da3-small", tmp_path)


def test_the_shipped_model_is_not_downloaded(tmp_path):
    with pytest.raises(WeightsError, match="nothing to do"):
        fetch("mini", tmp_path)


def test_hidden_files_are_pointed_out(tmp_path):
    """Browsers and copy tools leave .metadata behind, without which a checkpoint is unreadable."""
    text = by_hand(weight_set("lyra2-dit"), tmp_path)
    assert ".metadata" in text
    assert "checkpoints/model/model/*" in text
