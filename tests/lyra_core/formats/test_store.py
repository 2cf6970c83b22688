"""Stores: whole objects or none, exactly one creator, errors that say what to do."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_core.errors import StoreError
from lyra_core.formats import object_store
from lyra_core.formats.object_store import RemoteStore
from lyra_core.formats.store import Store, file_sha256, open_store


@pytest.fixture(params=["path", "file", "memory", "s3"])
def store(request, tmp_path) -> Store:
    if request.param == "path":
        return open_store(tmp_path / "root")
    if request.param == "file":
        return open_store(f"file://{tmp_path}/root")
    if request.param == "memory":
        return open_store(f"memory://{tmp_path.name}/root")
    server = request.getfixturevalue("s3_server")
    return open_store(f"{server.new_root()}/some/prefix", **server.options)


def test_objects_come_back_whole(store, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 << 20))
    put = store.put_file("worlds/ab/x.ply", source)
    assert (put.bytes, put.sha256) == (3 << 20, file_sha256(source))
    assert put.uri.endswith("root/worlds/ab/x.ply") or put.uri.endswith("some/prefix/worlds/ab/x.ply")
    assert store.read_bytes("worlds/ab/x.ply") == source.read_bytes()
    info = store.info("worlds/ab/x.ply")
    assert (info.bytes, info.etag) == (put.bytes, put.etag)
    assert store.exists("worlds/ab/x.ply")
    assert store.size("worlds/ab/x.ply") == 3 << 20
    store.get_file("worlds/ab/x.ply", tmp_path / "down" / "copy.bin")
    assert file_sha256(tmp_path / "down" / "copy.bin") == put.sha256
    assert [p.name for p in (tmp_path / "down").iterdir()] == ["copy.bin"]
    assert store.put_bytes("worlds/ab/x.ply", b"shorter").bytes == 7
    assert store.read_bytes("worlds/ab/x.ply") == b"shorter"


def test_objects_on_s3_say_what_they_are(s3_server, tmp_path):
    """A browser shows no page and runs no script that comes as application/octet-stream."""
    import boto3

    store = open_store(s3_server.new_root(), **s3_server.options)
    (tmp_path / "poster.jpg").write_bytes(b"x")
    store.put_file("site/poster.jpg", tmp_path / "poster.jpg")
    for key in ("site/index.html", "site/a.js", "site/a.css", "site/a.json", "site/x.parquet"):
        store.put_bytes(key, b"x")
    bucket, _, prefix = store.root.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        aws_access_key_id=s3_server.key,
        aws_secret_access_key=s3_server.secret,
        **s3_server.options["client_kwargs"],
    )

    def media_type(key: str) -> str:
        return client.head_object(Bucket=bucket, Key=f"{prefix}/{key}")["ContentType"]

    assert media_type("site/index.html") == "text/html"
    assert media_type("site/a.js") in ("text/javascript", "application/javascript")
    assert media_type("site/a.css") == "text/css"
    assert media_type("site/a.json") == "application/json"
    assert media_type("site/poster.jpg") == "image/jpeg"


def test_nothing_is_there_before_it_is_written(store):
    assert not store.exists("a/b")
    assert not store.exists("a")
    assert list(store.list()) == []
    with pytest.raises(StoreError, match="no such object"):
        store.size("a/b")
    with pytest.raises(StoreError, match=r"cannot read .*a/b.*does not exist"):
        store.read_bytes("a/b")
    store.delete("a/b")
    store.put_bytes("a/b", b"")
    assert store.size("a/b") == 0
    assert not store.exists("a")  # a folder or common prefix is no object


def test_create_lets_only_the_first_write_win(store):
    assert store.create("c/x", b"first") is True
    assert store.create("c/x", b"second") is False
    assert store.read_bytes("c/x") == b"first"
    store.delete("c/x")
    assert store.create("c/x", b"third") is True


def test_list_finds_keys_by_prefix(store):
    for key in ("a/1", "a/2", "a/sub/3", "ab/4", "b"):
        store.put_bytes(key, key.encode())
    listed = {info.key: info for info in store.list()}
    assert set(listed) == {"a/1", "a/2", "a/sub/3", "ab/4", "b"}
    assert all(info.bytes == len(key) and info.stamp for key, info in listed.items())
    assert {i.key for i in store.list("a/")} == {"a/1", "a/2", "a/sub/3"}
    assert {i.key for i in store.list("a")} == {"a/1", "a/2", "a/sub/3", "ab/4"}
    assert {i.key for i in store.list("a/", recursive=False)} == {"a/1", "a/2"}
    assert {i.key for i in store.list("", recursive=False)} == {"b"}
    assert list(store.list("nothing/here")) == []


def test_pages_of_a_long_listing_are_joined(s3_server, monkeypatch):
    monkeypatch.setattr(object_store, "_LIST_PAGE", 7)
    store = open_store(s3_server.new_root(), **s3_server.options)
    fs, base = store._at("")
    fs.pipe({f"{base}k/{i:04d}": b"" for i in range(31)})
    assert sorted(info.key for info in store.list("k/")) == [f"k/{i:04d}" for i in range(31)]


def test_probes_pass_and_leave_nothing(store):
    store.check_writable()
    assert store.supports_conditional_create()
    store.require_conditional_create()
    assert list(store.list()) == []


def test_a_store_travels_to_another_process(store):
    store.put_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"1"


def test_pyarrow_reads_keys_as_paths(store):
    store.put_bytes("deep/er/x", b"arrow")
    with store.arrow_filesystem().open_input_file("deep/er/x") as source:
        assert source.read() == b"arrow"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\0b", "s3://b/k", ".lyra-x", "a/.lyra-x"]
)
def test_keys_cannot_leave_the_root(key, tmp_path):
    store = open_store(tmp_path)
    for act in (store.read_bytes, store.info, store.delete, lambda k: store.put_bytes(k, b""), store.exists):
        with pytest.raises(StoreError, match="a key is a relative path"):
            act(key)


@given(st.binary(max_size=2000), st.text("abc/.-_é ", min_size=1, max_size=30))
def test_any_bytes_under_any_valid_key(data, key):
    store = open_store("memory://property")
    try:
        store.put_bytes(key, data)
    except StoreError:
        assert any(part in ("", ".", "..") for part in key.split("/"))
    else:
        assert store.read_bytes(key) == data
        store.delete(key)


class _Careless(RemoteStore):
    """A store whose server does not know If-None-Match."""

    def create(self, key, data):
        self.put_bytes(key, data)
        return True


def test_stores_that_ignore_conditions_are_refused():
    store = _Careless("memory://careless", {})
    assert not store.supports_conditional_create()
    with pytest.raises(StoreError, match=r"ignores conditional writes.*committed twice"):
        store.require_conditional_create()


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/root.*a file stands where a folder is needed"):
        open_store(tmp_path / "file" / "root").check_writable()


def test_a_read_only_place_is_named():
    with pytest.raises(StoreError, match="cannot write /proc/"):
        open_store("/proc/lyra").check_writable()


def test_a_missing_source_is_named(store, tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        store.put_file("x", tmp_path / "nowhere")
    assert not store.exists("x")


def test_a_full_disk_leaves_no_object(tmp_path):
    """A limit on the size of files stands for the full disk: the write fails half-way, as there."""
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(20 << 20))
    child = multiprocessing.get_context("spawn").Process(target=_fill, args=(tmp_path, source))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    store = open_store(tmp_path / "root")
    assert [i.key for i in store.list()] == ["small"]
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["small"]


def _fill(tmp_path: Path, source: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))
    store = open_store(tmp_path / "root")
    store.put_bytes("small", b"fits")
    for act in (lambda: store.put_file("big", source), lambda: store.create("big", source.read_bytes())):
        try:
            act()
        except StoreError as error:
            if "larger than" not in str(error):
                sys.exit(2)
        else:
            sys.exit(3)


def test_a_full_tmpfs_is_named(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting needs more rights: {mounted.stderr.decode().strip()}")
    try:
        store = open_store(tmp_path / "root")
        with pytest.raises(StoreError, match="the disk is full: free space"):
            store.put_bytes("big", bytes(4 << 20))
        assert list(store.list()) == []
        store.check_writable()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_s3_errors_name_cause_and_remedy(s3_server):
    missing = open_store("s3://no-such-bucket-here/x", **s3_server.options)
    with pytest.raises(StoreError, match=r"s3://no-such-bucket-here.*create the bucket"):
        missing.check_writable()
    wrong = open_store(s3_server.new_root(), **{**s3_server.options, "secret": "wrong"})
    with pytest.raises(StoreError, match="check the credentials"):
        wrong.check_writable()
    client = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}
    nobody = open_store(
        "s3://x",
        key="a",
        secret="b",
        client_kwargs=client,
        config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}},
    )
    with pytest.raises(StoreError, match="check endpoint_url"):
        nobody.check_writable()


def test_unknown_protocols_and_options_are_named(tmp_path):
    with pytest.raises(StoreError, match="nosuch"):
        open_store("nosuch://x").check_writable()
    with pytest.raises(StoreError, match="takes only the option fsync"):
        open_store(tmp_path, endpoint="x")
    with pytest.raises(StoreError, match="found ''"):
        open_store("")


# --- processes that race or die --------------------------------------------------------------------------------


def _put_for_ever(url: str, options: dict, source: str, started) -> None:
    store = open_store(url, **options)
    started.set()
    while True:
        store.put_file("big", source)
        store.delete("big")


@pytest.mark.parametrize("kind", ["path", "s3"])
def test_a_killed_upload_leaves_all_or_nothing(kind, tmp_path, request):
    """SIGKILL at twelve moments of an endless upload: the object is never seen with a part of its bytes."""
    options: dict = {}
    url = str(tmp_path / "root")
    if kind == "s3":
        server = request.getfixturevalue("s3_server")
        url, options = server.new_root(), server.options
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(6 << 20))
    sha256, store = file_sha256(source), open_store(url, **options)
    store.put_bytes("warm", b"")
    context = multiprocessing.get_context("fork" if kind == "path" else "spawn")
    for round_ in range(12 if kind == "path" else 6):
        started = context.Event()
        child = context.Process(target=_put_for_ever, args=(url, options, str(source), started))
        child.start()
        assert started.wait(60)
        until = time.monotonic() + 0.02 * round_ + 0.1
        while time.monotonic() < until:  # nor does a reader see a part while the writer lives
            seen = store.info("big")
            assert seen is None or seen.bytes == 6 << 20
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        info = store.info("big")
        if info is not None:
            assert info.bytes == 6 << 20
            store.get_file("big", tmp_path / "copy")
            assert file_sha256(tmp_path / "copy") == sha256
    assert {i.key for i in store.list()} <= {"warm", "big"}
    if kind == "path":
        store.sweep(older_than_s=0.0)
        assert not list((tmp_path / "root").rglob(".lyra-*"))


def _create_all(url: str, options: dict, keys: list[str], barrier, results) -> None:
    store = open_store(url, **options)
    mine = f"{os.getpid()}".encode()
    store.exists("connect-first")
    barrier.wait()
    results.put([key for key in keys if store.create(key, mine)])


@pytest.mark.parametrize(
    ("kind", "processes", "count"), [("path", 16, 200), ("s3", 4, 8), pytest.param("s3", 8, 20, marks=pytest.mark.slow)]
)
def test_one_of_many_racing_creators_wins(kind, processes, count, tmp_path, request):
    options: dict = {}
    url = str(tmp_path / "root")
    if kind == "s3":
        server = request.getfixturevalue("s3_server")
        url, options = server.new_root(), server.options
    keys = [f"k/{i % 7}/{i}" for i in range(count)]
    wins = race(_create_all, processes, url, options, keys)
    assert sorted(key for won in wins for key in won) == sorted(keys)
    if kind == "path":
        assert len([1 for won in wins if won]) > 1, "one process won everything: there was no race"
    assert {i.key for i in open_store(url, **options).list()} == set(keys)


def race(target, processes: int, *args) -> list:
    """Run a target in many processes at once and gather what each puts into its queue."""
    context = multiprocessing.get_context("fork" if "s3" not in str(args[0])[:3] else "spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    children = [context.Process(target=target, args=(*args, barrier, results)) for _ in range(processes)]
    for child in children:
        child.start()
    found = [results.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    return found
