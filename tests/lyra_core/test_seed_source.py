"""Seeds on servers that refuse, falter, lie or are not there: whose fault it is, and how often it is asked again."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lyra_core import seed_source
from lyra_core.errors import SeedError, SourceError
from lyra_core.seed_digests import SeedDigestCache
from lyra_core.seed_source import digest_seed, local_path, read_seed_bytes

BODY = b"photograph" * 1000


class _Handler(http.server.BaseHTTPRequestHandler):
    """/<status>/... answers it; /cut/ ends early; /flaky/ fails twice and then works."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        """As GET."""
        self.do_GET()

    def do_GET(self) -> None:
        """See the class."""
        what = self.path.split("/")[1]
        self.server.asked.append(self.path)
        if what == "flaky":
            what = "503" if self.server.asked.count(self.path) < 3 else "fine"
        if what.isdigit():
            self.send_error(int(what))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY) + (5000 if what == "cut" else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY)
        self.close_connection = what == "cut"


@pytest.fixture
def server(monkeypatch):
    """A web server on the loopback interface; waits between tries are short."""
    monkeypatch.setattr(seed_source, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(seed_source, "_outages", seed_source.Outages())
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found.asked = []
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    found.url = f"http://127.0.0.1:{found.server_port}"
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def nobody() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("path", "kind", "found", "tries"),
    [
        ("404/a.jpg", SeedError, r"nothing there \(HTTP 404\)", 1),
        ("400/a.jpg", SeedError, r"a refusal \(HTTP 400\)", 1),
        ("403/a.jpg", SourceError, r"no access \(HTTP 403\)", 1),
        ("429/a.jpg", SourceError, r"too many requests \(HTTP 429\) in 4 tries", 4),
        ("500/a.jpg", SourceError, r"a server error \(HTTP 500\) in 4 tries", 4),
        ("cut/a.jpg", SourceError, "a connection that broke off in 4 tries", 4),
    ],
)
def test_answers_are_named_and_passing_ones_asked_again(server, path, kind, found, tries):
    with pytest.raises(kind, match=found) as caught:
        digest_seed(f"{server.url}/{path}?X-Amz-Signature=S3CRET")
    assert "S3CRET" not in str(caught.value)
    assert ("next run" in str(caught.value)) == (kind is SourceError)
    assert len(server.asked) == tries


def test_a_server_that_recovers_is_no_fault(server):
    assert digest_seed(f"{server.url}/flaky/a.jpg") == hashlib.sha256(BODY).hexdigest()
    assert len(server.asked) == 3


def test_a_worker_reads_in_one_plain_request(server):
    assert read_seed_bytes(f"{server.url}/fine/a%20b.jpg?sig=x") == BODY
    assert server.asked == ["/fine/a%20b.jpg?sig=x"]


def test_a_server_that_is_down_is_not_asked_for_every_row(nobody, server):
    start = time.monotonic()
    said = []
    for number in range(50):
        with pytest.raises(SourceError) as caught:
            digest_seed(f"{nobody}/{number}.jpg")
        said.append(str(caught.value))
    assert "no answer" in said[0]
    assert "not asked for, because http://127.0.0.1" in said[-1]
    assert time.monotonic() - start < 10
    assert digest_seed(f"{server.url}/fine/a.jpg")  # another server is another matter


def test_a_server_that_answers_is_asked_for_every_row_once(server):
    for number in range(8):
        with pytest.raises(SourceError, match=r"HTTP 500|broke off"):
            digest_seed(f"{server.url}/{'500' if number % 2 else 'cut'}/{number}.jpg")
    assert len(server.asked) == 3 * 4 + 5
    assert digest_seed(f"{server.url}/fine/a.jpg") == hashlib.sha256(BODY).hexdigest()
    assert digest_seed(f"{server.url}/flaky/a.jpg"), "and patience is back"


def test_a_bucket_that_is_down_is_not_asked_for_every_row(nobody, monkeypatch, tmp_path):
    import s3fs

    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "ENDPOINT_URL": nobody}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(seed_source, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(seed_source, "_outages", seed_source.Outages())
    monkeypatch.setattr(seed_source, "_silences", seed_source.Outages())
    s3fs.S3FileSystem.clear_instance_cache()
    start = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        found = SeedDigestCache(tmp_path / "cache.db").digest_files([f"s3://b/{i}.jpg" for i in range(1000)], threads)
    assert all(isinstance(error, SourceError) for error in found)
    assert sum("not asked for" in str(error) for error in found) > 900
    assert time.monotonic() - start < 30
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("uri", "kind", "found"),
    [
        ("gs://bucket/a.jpg", SourceError, "no client for this protocol .*gcsfs"),
        ("foo://z/a.jpg", SeedError, "Protocol not known: foo"),
        ("/dev/zero", SeedError, "a device instead of an image file"),
        ("/tmp", SeedError, "a folder instead of an image file"),
        ("a\0b.jpg", SeedError, "an address that cannot be used"),
        (f"/{'x' * 5000}.jpg", SeedError, "a name that cannot be opened"),
        ("zip://a.jpg::/dev/zero", SeedError, "a device instead of an image file"),
        ("zip://a.jpg::/nowhere.zip", SeedError, "nothing there"),
        ("zip://a.jpg::zip://b.zip::zip://c.zip::/nowhere.zip", SeedError, "nothing there"),
        ("http://[bad/a.jpg", SeedError, "an address that cannot be used"),
    ],
)
def test_whatever_a_name_leads_to_is_one_sentence(uri, kind, found):
    with pytest.raises(kind, match=found):
        digest_seed(uri)


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(SeedError, match="a named pipe instead of an image file"):
        digest_seed(str(tmp_path / "p.jpg"))


def test_what_is_no_zip_archive_costs_its_seed_only(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(SourceError, match="an error of its storage"):
        digest_seed(f"zip://a.jpg::{tmp_path}/x.zip")


def test_a_seed_is_read_up_to_a_bound(tmp_path, monkeypatch):
    (tmp_path / "big.jpg").write_bytes(b"x" * 5000)
    monkeypatch.setattr(seed_source, "MAX_SEED_BYTES", 4096)
    with pytest.raises(SeedError, match="no photograph"):
        read_seed_bytes(str(tmp_path / "big.jpg"))


def test_buckets(s3_server, monkeypatch):
    import s3fs

    url = s3_server.new_root()
    s3fs.S3FileSystem(**s3_server.options).pipe_file(f"{url}/we::ird [1].jpg", BODY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert digest_seed(f"{url}/we::ird [1].jpg") == hashlib.sha256(BODY).hexdigest()
    with pytest.raises(SeedError, match="nothing there"):
        digest_seed(f"{url}/gone.jpg")
    with pytest.raises(SeedError, match=r"no such bucket|nothing there"):
        digest_seed("s3://lyra-no-such-bucket/a.jpg")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="no access"):
        digest_seed(f"{url}/we::ird [1].jpg")
    s3fs.S3FileSystem.clear_instance_cache()


def test_local_paths(tmp_path):
    (tmp_path / "a b.jpg").touch()
    assert local_path((tmp_path / "a b.jpg").as_uri()) == str(tmp_path / "a b.jpg")
    assert local_path("we::ird.jpg") == "we::ird.jpg"
    assert local_path("photos/12:30.jpg") == "photos/12:30.jpg"
    assert local_path("https://host/a.jpg") is None
