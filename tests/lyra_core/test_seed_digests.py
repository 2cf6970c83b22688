"""The cache of seed digests saves reading, never lies, and never stops a plan."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time

import pytest

from lyra_core.errors import LyraWarning, SeedError
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache


def _old_file(path, data: bytes) -> str:
    path.write_bytes(data)
    then = time.time() - 60
    os.utime(path, (then, then))
    return str(path)


def test_a_digest_is_computed_once(tmp_path):
    calls = []

    def compute() -> str:
        calls.append(1)
        return "d"

    for _ in range(3):
        assert SeedDigestCache(tmp_path / "sub" / "cache.db").digest("uri", 3, "etag", compute) == "d"
    assert len(calls) == 1


@pytest.mark.parametrize("change", [("other", 3, "etag"), ("uri", 4, "etag"), ("uri", 3, "other")])
def test_other_files_sizes_or_stamps_are_not_found(change, tmp_path):
    cache = SeedDigestCache(tmp_path / "cache.db")
    cache.put("uri", 3, "etag", "d")
    assert cache.get("uri", 3, "etag") == "d"
    assert cache.get(*change) is None


def test_a_changed_file_is_read_again(tmp_path):
    cache = SeedDigestCache(tmp_path / "cache.db")
    uri = _old_file(tmp_path / "seed.jpg", b"one")
    assert cache.digest_file(uri) == hashlib.sha256(b"one").hexdigest()
    found = (tmp_path / "seed.jpg").stat()
    assert cache.get(uri, found.st_size, str(found.st_mtime_ns)) is not None
    (tmp_path / "seed.jpg").write_bytes(b"two")  # same size, and a stamp too fresh to be trusted
    assert cache.digest_file(uri) == hashlib.sha256(b"two").hexdigest()
    (tmp_path / "seed.jpg").write_bytes(b"six")
    assert cache.digest_file(uri) == hashlib.sha256(b"six").hexdigest()


def test_objects_are_known_by_their_etag(tmp_path, s3_server, monkeypatch):
    url = s3_server.new_root()
    open_store(url, **s3_server.options).put_bytes("seed.jpg", b"one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    cache = SeedDigestCache(tmp_path / "cache.db")
    assert cache.digest_file(f"{url}/seed.jpg") == hashlib.sha256(b"one").hexdigest()
    etag = hashlib.md5(b"one").hexdigest()
    assert cache.get(f"{url}/seed.jpg", 3, etag) == hashlib.sha256(b"one").hexdigest()


def test_a_missing_seed_is_an_error(tmp_path):
    with pytest.raises(SeedError, match="nowhere: wanted an image file, found nothing there"):
        SeedDigestCache(tmp_path / "cache.db").digest_file(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 100, b"\0" * 5000])
def test_a_corrupt_cache_is_ignored_with_one_warning(content, tmp_path):
    (tmp_path / "cache.db").write_bytes(content)
    cache = SeedDigestCache(tmp_path / "cache.db")
    with pytest.warns(LyraWarning, match=r"cache\.db cannot be used .* delete it") as caught:
        found = [cache.digest("uri", 1, "s", lambda: "d"), cache.digest("uri", 1, "s", lambda: "e")]
    assert found == ["d", "e"]
    assert len(caught) == 1


def _fill(path: str, worker: int) -> None:
    cache = SeedDigestCache(path)
    for i in range(25):
        cache.put(f"own-{worker}-{i}", i, "s", f"{worker}")
        cache.put(f"shared-{i}", i, "s", f"d{i}")


def test_processes_share_one_cache(tmp_path):
    path = str(tmp_path / "cache.db")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_fill, args=(path, worker)) for worker in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 6
    cache = SeedDigestCache(path)
    assert all(cache.get(f"own-{w}-{i}", i, "s") == f"{w}" for w in range(6) for i in range(25))
    assert all(cache.get(f"shared-{i}", i, "s") == f"d{i}" for i in range(25))
