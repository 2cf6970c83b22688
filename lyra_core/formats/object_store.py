"""Stores behind fsspec: S3 and its like, and memory for tests and notebooks.

Objects are only ever sent whole (`pipe_file`, `put_file`): a block that raises inside `with fs.open(..., "wb")`
publishes a truncated object on s3fs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mimetypes
import os
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_core.errors import StoreError, StoreRefusedError
from lyra_core.extras import require_client
from lyra_core.formats.store_interface import (
    HIDDEN_PREFIX,
    READ_BLOCK,
    ObjectInfo,
    Store,
    StoredObject,
    checked_key,
)
from lyra_core.public_uri import public_uri

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem

_CONFLICT_TRIES = 8
_LIST_PAGE = 1000  # S3's own limit
_JITTER = random.SystemRandom()
_PASSING = {408, 409, 412, 425, 429}  # of the 4xx: time-outs, races and throttling
_MD5 = re.compile(r"[0-9a-f]{32}")


class RemoteStore(Store):
    """An fsspec file system other than a folder: s3:// above all.

    The file system is opened at the first call and again in each new process.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        require_client(url, f"opening {public_uri(url)}")
        self.root = url.rstrip("/")
        self.protocol = url.partition("://")[0]
        self._options = dict(options)
        if self.protocol in ("s3", "s3a"):
            self._options.setdefault("use_listings_cache", False)  # other processes write too
            # Few: whoever can wait longer does (lyra_core.formats.patience), and says so meanwhile. s3fs tries twice
            # around these, see _open.
            self._options.setdefault("config_kwargs", {"retries": {"mode": "standard", "max_attempts": 3}})
        self._opened: tuple[int, AbstractFileSystem, str] | None = None
        self._etag_is_md5 = True

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def put_file(self, key: str, local_path: str | Path) -> StoredObject:
        """Upload a file; see Store.put_file.

        Raises:
            StoreError: the file cannot be read, or the store does not take it.
        """
        source = Path(local_path)
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with source.open("rb") as stream:
                while block := stream.read(READ_BLOCK):
                    sha256.update(block)
                    md5.update(block)
            size = source.stat().st_size
        except OSError as error:
            raise StoreError(f"cannot read {source} to upload it: {error.strerror or error}") from error
        fs, path = self._at(checked_key(key))
        with self._reporting("write", key):
            fs.put_file(str(source), path)
        return self._verified(key, size, sha256.hexdigest(), md5.hexdigest())

    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Upload bytes; see Store.put_bytes."""
        fs, path = self._at(checked_key(key))
        with self._reporting("write", key):
            fs.pipe_file(path, data, **self._labelled(key))
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return self._verified(key, len(data), hashlib.sha256(data).hexdigest(), md5)

    def _labelled(self, key: str) -> dict[str, str]:
        """The media type of an object on S3: browsers show no page and run no script of an unknown one.

        s3fs guesses it for files (`put_file`), but not for bytes.
        """
        media_type = mimetypes.guess_type(key)[0] if self.protocol in ("s3", "s3a") else None
        return {"ContentType": media_type} if media_type else {}

    def create(self, key: str, data: bytes) -> bool:
        """A PUT with If-None-Match: *; see Store.create."""
        fs, path = self._at(checked_key(key))
        with self._reporting("create", key):
            for attempt in range(_CONFLICT_TRIES):
                try:
                    fs.pipe_file(path, data, mode="create")
                    return True
                except FileExistsError:
                    return False
                except OSError as error:
                    status = _http_status(error)
                    # s3fs renders 412 as EINVAL unless the server names the condition.
                    if status == 412 or (status is None and error.errno == errno.EINVAL and self.info(key)):
                        return False
                    # AWS answers 409 ConditionalRequestConflict while another conditional write is in flight.
                    if status != 409 or attempt == _CONFLICT_TRIES - 1:
                        raise
                time.sleep(_JITTER.uniform(0.0, 0.05 * 2**attempt))
        return False

    def read_bytes(self, key: str) -> bytes:
        """The object's content."""
        fs, path = self._at(checked_key(key))
        with self._reporting("read", key):
            return bytes(fs.cat_file(path))

    def get_file(self, key: str, local_path: str | Path) -> None:
        """Download; see Store.get_file."""
        target = Path(local_path)
        temporary = target.parent / f"{HIDDEN_PREFIX}{uuid.uuid4().hex}"
        fs, path = self._at(checked_key(key))
        try:
            with self._reporting("read", key):
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(path, str(temporary))
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def info(self, key: str) -> ObjectInfo | None:
        """A HEAD request."""
        fs, path = self._at(checked_key(key))
        with self._reporting("look up", key):
            try:
                details = fs.info(path)
            except FileNotFoundError:
                return None
        return None if details["type"] == "directory" else _as_info(key, details)

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo]:
        """Listing pages; see Store.list."""
        fs, base = self._at("")
        if self.protocol in ("s3", "s3a"):
            yield from self._list_s3(fs, base, prefix, recursive)
            return
        folder, _, _ = prefix.rpartition("/")
        with self._reporting("list", prefix):
            try:
                found = fs.find(f"{base}{folder}", detail=True, maxdepth=None if recursive else 1)
            except FileNotFoundError:
                return
            for path, details in sorted(found.items()):
                key = path.removeprefix(base)
                if key.startswith(prefix) and not _is_hidden(key):
                    yield _as_info(key, details)

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        fs, path = self._at(checked_key(key))
        with self._reporting("delete", key), contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    def uri(self, key: str) -> str:
        """The full URL."""
        return f"{self.root}/{key}"

    def arrow_filesystem(self) -> FileSystem:
        """The fsspec file system, seen through pyarrow."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem, SubTreeFileSystem

        fs, base = self._at("")
        return SubTreeFileSystem(base, PyFileSystem(FSSpecHandler(fs)))

    def _at(self, key: str) -> tuple[Any, str]:
        """The file system of this process, and the path of a key in it."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *self._open())
        return self._opened[1], f"{self._opened[2]}{key}"

    def _open(self) -> tuple[AbstractFileSystem, str]:
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(self.root, **self._options)
        except ImportError as error:
            raise StoreRefusedError(f"cannot open {self.root}: {error}") from error
        except (ValueError, TypeError) as error:
            raise StoreRefusedError(
                f"cannot open {self.root}: {error}; wanted a path, file://, memory://, s3:// or another fsspec "
                "protocol, with options its client knows"
            ) from error
        if self.protocol in ("s3", "s3a"):
            fs.retries = 2  # 5 by default, with growing pauses
        return fs, f"{path.rstrip('/')}/"

    def _verified(self, key: str, size: int, sha256: str, md5: str) -> StoredObject:
        found = self.info(key)
        if found is None or found.bytes != size:
            held = "nothing" if found is None else f"{found.bytes} bytes"
            raise StoreError(f"sent {size} bytes to {self.uri(key)}, but the store holds {held}; send it again")
        if self._etag_is_md5 and _MD5.fullmatch(found.etag) and found.etag != md5:
            # A tag that is no MD5 (SSE-KMS) looks like a torn object: the bytes themselves decide, once.
            if hashlib.sha256(self.read_bytes(key)).hexdigest() != sha256:
                raise StoreError(f"{self.uri(key)} holds other bytes than were sent; send it again")
            self._etag_is_md5 = False
        return StoredObject(key=key, uri=self.uri(key), bytes=size, sha256=sha256, etag=found.etag)

    def _list_s3(self, fs: Any, base: str, prefix: str, recursive: bool) -> Iterator[ObjectInfo]:
        """One page a request: fsspec's `find` would hold the whole listing."""
        bucket, _, inside = base.partition("/")
        request: dict[str, str | int] = {"Bucket": bucket, "Prefix": f"{inside}{prefix}", "MaxKeys": _LIST_PAGE}
        if not recursive:
            request["Delimiter"] = "/"
        while True:
            with self._reporting("list", prefix):
                page = fs.call_s3("list_objects_v2", **request)
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(inside)
                if not _is_hidden(key):
                    yield ObjectInfo(
                        key=key,
                        bytes=item["Size"],
                        etag=item.get("ETag", "").strip('"'),
                        mtime_ns=int(item["LastModified"].timestamp() * 1e9),
                    )
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    @contextlib.contextmanager
    def _reporting(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except _remote_errors(self.protocol) as error:
            kind = StoreRefusedError if _is_refusal(error) else StoreError
            raise kind(f"cannot {action} {self.uri(key)}: {error}; {_remedy(error)}") from error


class MemoryStore(RemoteStore):
    """Objects in this process only: nothing is shared with other processes, so it serves the inline executor only."""

    def arrow_filesystem(self) -> FileSystem:
        """The memory file system, seen through pyarrow."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem, SubTreeFileSystem

        fs, base = self._at("")
        fs.makedirs(base.rstrip("/"), exist_ok=True)
        return SubTreeFileSystem(base, PyFileSystem(FSSpecHandler(fs)))

    def create(self, key: str, data: bytes) -> bool:
        """Atomic between the threads of this process; see Store.create."""
        from fsspec.implementations.memory import MemoryFile

        fs, path = self._at(checked_key(key))
        made = MemoryFile(fs, path, data)
        return fs.store.setdefault(path, made) is made


def _as_info(key: str, details: Mapping[str, Any]) -> ObjectInfo:
    changed = details.get("LastModified") or details.get("mtime") or details.get("created")
    return ObjectInfo(
        key=key,
        bytes=int(details["size"] or 0),
        etag=str(details.get("ETag") or details.get("etag") or "").strip('"'),
        mtime_ns=int(changed.timestamp() * 1e9) if isinstance(changed, datetime) else None,
    )


def _is_hidden(key: str) -> bool:
    return key.rpartition("/")[2].startswith(HIDDEN_PREFIX)


def _http_status(error: BaseException) -> int | None:
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping):
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status is not None else None


def _remote_errors(protocol: str) -> tuple[type[Exception], ...]:
    if protocol in ("s3", "s3a"):
        from botocore.exceptions import BotoCoreError, ClientError

        return (OSError, BotoCoreError, ClientError)
    return (OSError,)


def _is_refusal(error: Exception) -> bool:
    """Whether the store answered in a way that waiting does not change; throttling, 5xx and silence are none."""
    status = _http_status(error)
    if status is not None:
        return 400 <= status < 500 and status not in _PASSING
    return isinstance(error, (PermissionError, FileNotFoundError)) or "Credential" in type(error).__name__


def _remedy(error: Exception) -> str:
    """What a person can do about it, by the kind of the error."""
    status, kind, text = _http_status(error), type(error).__name__, str(error)
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in kind:
        return "check the credentials (AWS profile or environment, key=, secret=) and the bucket's policy"
    if "bucket" in text.lower() and isinstance(error, FileNotFoundError):
        return "create the bucket or correct its name"
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if "Connect" in kind or "Endpoint" in kind or isinstance(error, ConnectionError):
        return "check endpoint_url and the network"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "the store is full: free space or choose another output"
    return "try again, and look at the store's own log if it persists"
